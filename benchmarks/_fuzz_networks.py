"""Cases of ``fuzz.py`` that damage networks and recipes: checkpoints, folders of the hub, exported programs."""

import io
import json
import random
import zipfile
from contextlib import redirect_stdout, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from _damage import Case, altered, damaged

from depthkit.cli.main import main
from depthkit.cli.recipes import find_recipe


def checkpoint_cases(root: Path) -> Case:
    """Damage a saved network, its bytes or what it says of itself, and rebuild it."""
    import torch

    from depthkit.models import read_checkpoint, save_network

    root.mkdir(parents=True, exist_ok=True)
    file = root / "net.ckpt"
    save_network(_smallest(), file, ambiguity="shift_scale", size=(64, 96))
    whole, content = file.read_bytes(), torch.load(file, weights_only=True)
    facts = {key: value for key, value in content.items() if key != "state_dict"}

    def case(rng: random.Random) -> None:
        if rng.random() < 0.5:
            file.write_bytes(damaged(whole, rng))
        else:
            state = dict(content["state_dict"])
            if rng.random() < 0.2:
                name = rng.choice(list(state))
                strange = (
                    torch.zeros(3),
                    torch.zeros(0),
                    None,
                    state[name].float() * float("nan"),
                    "x",
                    state[name][None],
                )
                state[name] = rng.choice(strange)
            changed = altered(facts, rng)
            torch.save({**changed, "state_dict": state} if isinstance(changed, dict) else changed, file)
        read_checkpoint(file)

    return case


def recipe_cases(root: Path) -> Case:
    """Damage a recipe, its text or one of its values, and parse it."""
    import yaml  # as PyYAML comes with the parser

    root.mkdir(parents=True, exist_ok=True)
    file = root / "recipe.yaml"
    whole = find_recipe("quickstart").read_text()
    with suppress(SystemExit), redirect_stdout(io.StringIO()):  # packages start programs when imported
        main(["fit", "--config", "quickstart", "--print_config"])

    def case(rng: random.Random) -> None:
        data = (
            damaged(whole.encode(), rng) if rng.random() < 0.4 else yaml.safe_dump(altered(yaml.safe_load(whole), rng)).encode()
        )
        file.write_bytes(data)
        main(["fit", "--config", str(file), "--print_config"])

    return case


def _smallest() -> Any:
    from depthkit.models import midas_timm

    return midas_timm("mobilenetv3_small_050", pretrained=False, features=8).eval()


def hub_cases(root: Path) -> Case:
    """Damage folders of networks, ours and those of transformers, and rebuild them."""
    from depthkit.models import from_pretrained

    _smallest().save_pretrained(root / "ours", ambiguity="shift_scale", size=(64, 96))
    folders = [root / "ours"]
    if find_spec("transformers"):
        from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config

        backbone = Dinov2Config(
            hidden_size=16, num_hidden_layers=4, num_attention_heads=2, out_indices=[1, 2, 3, 4], image_size=28,
            reshape_hidden_states=False, apply_layernorm=True,
        )  # fmt: skip
        sizes = {"reassemble_hidden_size": 16, "neck_hidden_sizes": [8, 8, 8, 8], "fusion_hidden_size": 8}
        config = DepthAnythingConfig(backbone_config=backbone, head_hidden_size=8, **sizes)
        DepthAnythingForDepthEstimation(config).save_pretrained(root / "theirs")
        processor = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": {"height": 28, "width": 28}}
        (root / "theirs" / "preprocessor_config.json").write_text(json.dumps(processor))
        folders.append(root / "theirs")
    whole = {file: file.read_bytes() for place in folders for file in sorted(place.iterdir())}

    def case(rng: random.Random) -> None:
        for file, data in whole.items():
            file.write_bytes(data)
        file = rng.choice([file for file in whole if file.suffix != ".md"])
        text = file.suffix == ".json" and rng.random() < 0.8
        file.write_bytes(json.dumps(altered(json.loads(whole[file]), rng)).encode() if text else damaged(whole[file], rng))
        from_pretrained(file.parent, output="disparity")

    return case


def program_cases(root: Path) -> Case:
    """Damage exported programs, their bytes or their members, and read them."""
    from depthkit.inference import export_program
    from depthkit.models import from_pretrained
    from depthkit.types import Ambiguity

    endings = [".pt2", *([".onnx"] if find_spec("onnxscript") and find_spec("onnxruntime") else [])]
    whole = {}
    for ending in endings:
        file = root / f"a{ending}"
        export_program(_smallest(), file, size=(32, 32), ambiguity=Ambiguity.SHIFT_SCALE)
        whole[file] = file.read_bytes()
    with zipfile.ZipFile(root / "a.pt2") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}

    def rebuilt(rng: random.Random) -> bytes:
        parts, stream = dict(members), io.BytesIO()
        name = rng.choice([*members, *(name for name in members if name.endswith(".json"))])
        if name.endswith(".json") and rng.random() < 0.8:
            parts[name] = json.dumps(altered(json.loads(members[name]), rng)).encode()
        else:
            parts[name] = damaged(members[name], rng) if members[name] else b"x"
        with zipfile.ZipFile(stream, "w") as archive:
            for member, data in parts.items():
                archive.writestr(member, data)
        return stream.getvalue()

    def case(rng: random.Random) -> None:
        file = rng.choice(list(whole))
        file.write_bytes(rebuilt(rng) if file.suffix == ".pt2" and rng.random() < 0.7 else damaged(whole[file], rng))
        from_pretrained(file)

    return case
