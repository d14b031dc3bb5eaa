"""``depthkit odometry``: score the motions predicted by a checkpoint's pose network, and write the paths."""

from pathlib import Path
from typing import cast

from rich.console import Console

from depthkit.checks import check_device
from depthkit.data import ShardSource, VideoDataModule
from depthkit.evaluation import evaluate_odometry, find_odometry_protocol
from depthkit.inference import read_checkpoint
from depthkit.models import DepthNet, EgoMotion, read_pose_net

_PUBLISHED_SIZE = (192, 640)


def odometry(
    checkpoint: Path,
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
    """Score a checkpoint's pose network on videos with known poses; print the table, and write the predicted paths.

    For KITTI: `depthkit shards write kitti_raw KITTI OUT --split test --split_file odom/test_files_09.txt --views video`.

    Args:
        checkpoint: written by `depthkit fit` with a pose_net that sees 2 frames.
        shards: folders or URLs of shards with views=video, each scored by itself.
        protocol: name of the odometry protocol; the message on an unknown name lists all.
        split: of the shards.
        out: folder for one JSON file per dataset, and one path per sequence in KITTI's format; without it no files are written.
        size: height and width [px] that the networks see; default the size in training.
        num_workers: processes that read and decode.
        device: of the networks, such as `cuda`.
        allow: beginnings of further Python names that may be imported to build the checkpoint's networks.
    """
    rules, console = find_odometry_protocol(protocol), Console(soft_wrap=True, highlight=False)
    network = read_checkpoint(checkpoint, allow=allow or ())
    pose_net = read_pose_net(checkpoint, allow=allow or ())
    ego_motion = EgoMotion(cast(DepthNet, network.model), pose_net).eval().to(check_device(device))
    data = VideoDataModule(size=size or network.size or _PUBLISHED_SIZE, num_workers=num_workers)
    for root in shards:
        samples = data.views_dataloader(ShardSource(root, split))
        report = evaluate_odometry(ego_motion, samples, rules, name=checkpoint.stem, device=device)
        console.print(f"{root} ({split})\n{report.table()}\n", markup=False)
        if out is not None:
            folder = out / f"{root.strip('/').replace('/', '-').replace(':', '')}.{split}.{protocol}"
            report.to_json(folder / "report.json")
            console.print(f"wrote report.json and {len(report.save_paths(folder))} paths to {folder}", markup=False)
