"""``depthkit odometry``: score the motions that a pose network predicts, and write the paths."""

from pathlib import Path
from typing import Any

from rich.console import Console

from depthkit.checks import check_device
from depthkit.cli.options import own_size, shown_name
from depthkit.data import ShardSource, VideoDataModule
from depthkit.evaluation import evaluate_odometry, find_odometry_protocol
from depthkit.models import EgoMotion, from_pretrained, pose_from_pretrained

_PUBLISHED_SIZE = (192, 640)


def odometry(
    model: str,
    shards: list[str],
    protocol: str = "monodepth2_odometry_09",
    *,
    split: str = "test",
    out: Path | None = None,
    size: tuple[int, int] | None = None,
    num_workers: int = 0,
    device: str = "cpu",
    allow: list[str] | None = None,
) -> None:
    """Score a pose network on videos with known poses; print the table, and write the predicted paths.

    For KITTI: `depthkit shards write kitti_raw KITTI OUT --split test --split_file odom/test_files_09.txt --views video`.

    Args:
        model: a checkpoint of `depthkit fit` with a pose_net that sees 2 frames, or a name such as monodepth2_mono_640x192.
        shards: folders or URLs of shards with views=video, each scored by itself.
        protocol: name of the odometry protocol; the message on an unknown name lists all.
        split: of the shards.
        out: folder for one JSON file per dataset, and one path per sequence in KITTI's format; without it no files are written.
        size: height and width [px] that the networks see; default the size in training.
        num_workers: processes that read and decode.
        device: where the networks run, such as `cuda`.
        allow: beginnings of further Python names that may be imported to build a checkpoint's networks.
    """
    rules, console = find_odometry_protocol(protocol), Console(soft_wrap=True, highlight=False)
    pose_net = pose_from_pretrained(model, allow=allow or ())
    network: Any = from_pretrained(model, allow=allow or ())
    ego_motion = EgoMotion(network, pose_net).eval().to(check_device(device))
    data = VideoDataModule(size=size or own_size(network) or _PUBLISHED_SIZE, num_workers=num_workers)
    for root in shards:
        samples = data.views_dataloader(ShardSource(root, split))
        report = evaluate_odometry(ego_motion, samples, rules, name=shown_name(model), device=device)
        console.print(f"{root} ({split})\n{report.table()}\n", markup=False)
        if out is not None:
            folder = out / f"{root.strip('/').replace('/', '-').replace(':', '')}.{split}.{protocol}"
            report.to_json(folder / "report.json")
            console.print(f"wrote report.json and {len(report.save_paths(folder))} paths to {folder}", markup=False)
