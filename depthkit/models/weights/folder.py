"""Networks as folders for the Hugging Face hub: ``model.safetensors``, ``config.json``, a model card."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import save

from depthkit.errors import CheckpointError
from depthkit.models.weights.facts import facts_in, write_facts
from depthkit.models.weights.files import plain_network, plain_state, read_file
from depthkit.types import Ambiguity
from depthkit.writing import replacing

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"


def save_folder(
    model: Any,
    folder: str | Path,
    *,
    ambiguity: Ambiguity | str | None = None,
    size: tuple[int, int] | None = None,
    card: str = "",
) -> Path:
    """Write a network as a folder; arguments as of ``save_network``.

    Args:
        model: the network.
        folder: created if it does not exist.
        ambiguity: what its predictions leave undetermined; default what the network states.
        size: (height, width) [px] of the images it was trained on; default what the network states.
        card: Markdown to add to the model card: data, licence, recipe, scores.

    Raises:
        CheckpointError: the network was put together from parts.
        LabelError: there is no such ambiguity, or none is known.
    """
    model, folder = plain_network(model), Path(folder)
    if model.config is None:
        raise CheckpointError(
            "expected a network that knows how it was built; got one put together from parts. Build it by a function of "
            "depthkit.models, or by one of your own under depthkit.models.architecture."
        )
    folder.mkdir(parents=True, exist_ok=True)
    facts: dict[str, Any] = {}
    write_facts(facts, model, ambiguity, size)
    state = {key: x.detach().cpu().contiguous().clone() for key, x in plain_state(model.state_dict()).items()}
    files = {
        CARD: _card(model, facts_in(facts), card).encode(),
        WEIGHTS: save(state, metadata={"format": "pt"}),
        CONFIG: (json.dumps(facts, indent=2) + "\n").encode(),
    }
    for name, content in files.items():
        with replacing(folder / name) as part:
            part.write_bytes(content)
    return folder


def push_folder(model: Any, repo: str, *, private: bool = False, **facts: Any) -> str:
    """Write a network to a repository of the hub, created if it does not exist; return its address.

    Args:
        model: the network.
        repo: ``ORG/NAME``.
        private: make a new repository visible to its owner only.
        facts: see ``save_folder``.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    with TemporaryDirectory() as scratch:
        model.save_pretrained(scratch, **facts)
        api.create_repo(repo, private=private, exist_ok=True)
        return str(api.upload_folder(repo_id=repo, folder_path=scratch, commit_message="Network of depthkit"))


def read_folder(folder: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Return the facts of the network in a folder of ``save_folder``, and its weights.

    Raises:
        CheckpointError: the folder is not of ``save_folder``, or is damaged.
    """
    try:
        facts = facts_in(json.loads((folder / CONFIG).read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"expected {CONFIG} of a network in {folder}; it cannot be read. Get the folder again."
        ) from error
    if not facts.get("model") or not (folder / WEIGHTS).is_file():
        raise CheckpointError(
            f"expected {CONFIG} and {WEIGHTS} of a network of depthkit in {folder}; one is missing or of another program. Of a "
            "published network write NAME=FILE; a folder of transformers needs its preprocessor_config.json."
        )
    return facts, read_file(folder / WEIGHTS, "weights")


def _card(model: Any, facts: dict[str, Any], more: str) -> str:
    parameters = sum(x.numel() for x in model.parameters()) / 1e6
    size = "x".join(map(str, facts["size"])) or "not recorded"
    lines = [
        "---",
        "library_name: depthkit",
        "pipeline_tag: depth-estimation",
        "---",
        f"# {facts['model'].get('architecture', type(model).__name__)}",
        "",
        f"Predicts {facts['representation']}, ambiguity: {facts['ambiguity']}.",
        f"{parameters:.1f} M parameters. Trained at {size} px.",
        "",
        "```python",
        "from depthkit.models import from_pretrained",
        "",
        'model = from_pretrained("hf:ORG/NAME")  # or the path of this folder',
        "```",
        "",
        *([more, ""] if more else []),
        f"Written by depthkit {facts['version']}.",
    ]
    return "\n".join(lines) + "\n"
