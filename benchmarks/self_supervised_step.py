"""A training step of SelfSupervisedVideoModule against the published Monodepth2 layers put together as their paper trains them.

The published package is no dependency: unpack it with `pip install --no-deps --target FOLDER monodepth2`.

Run: python benchmarks/self_supervised_step.py --rival FOLDER --batch 2 --steps 5 --profile
"""

import argparse
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
import warnings
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from _command import parsed
from torch import Tensor, nn
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile, record_function

from depthkit.losses import MinReprojectionLoss
from depthkit.models import load_published, monodepth2_resnet18, pose_resnet18
from depthkit.models.networks.monodepth2 import Monodepth2Net
from depthkit.paradigms import SelfSupervisedVideoModule, self_supervised_video
from depthkit.types import Batch

RIVAL, OURS, JITTER = "published layers", "depthkit", "depthkit, colour jitter in the step"
SCALES = range(4)
Step = Callable[[], float]


class PublishedStep(nn.Module):
    """The published networks and layers, connected as Godard et al. (2019) describe: monocular video, all defaults."""

    def __init__(self, batch: Batch) -> None:
        super().__init__()
        import layers
        import networks

        (rows, _, height, width), self.layers = batch.image.shape, layers
        self.encoder = networks.ResnetEncoder(18, False)
        self.depth = networks.DepthDecoder(self.encoder.num_ch_enc, SCALES)
        self.pose_encoder = networks.ResnetEncoder(18, False, num_input_images=2)
        self.pose = networks.PoseDecoder(self.pose_encoder.num_ch_enc, 1, num_frames_to_predict_for=2)
        self.unproject = layers.BackprojectDepth(rows, height, width)
        self.project = layers.Project3D(rows, height, width)
        self.ssim = layers.SSIM()
        size = (height, width)  # the loader prepares these two for the published step
        self.pyramid = [_antialiased(batch.image, (size[0] >> s, size[1] >> s)) for s in SCALES]
        self.camera = torch.eye(4, device=batch.image.device).repeat(rows, 1, 1)
        self.camera[:, :3, :3] = batch.intrinsics

    def error(self, a: Tensor, b: Tensor) -> Tensor:
        """Photometric error, ``(B, 1, H, W)``."""
        with record_function("part/photometric"):
            return 0.85 * self.ssim(a, b).mean(1, True) + 0.15 * (b - a).abs().mean(1, True)

    def forward(self, batch: Batch) -> Tensor:
        """The loss."""
        target, (previous, following) = batch.image, batch.frames.unbind(1)
        with record_function("part/networks"):
            sigmoids = self.depth(self.encoder(target))
            poses = []
            for pair, backwards in (((previous, target), True), ((target, following), False)):
                turn, move = self.pose([self.pose_encoder(torch.cat(pair, 1))])
                poses.append(self.layers.transformation_from_parameters(turn[:, 0], move[:, 0], invert=backwards))
        losses = []
        for scale in SCALES:
            with record_function("part/warp"):
                full = F.interpolate(sigmoids["disp", scale], target.shape[-2:], mode="bilinear", align_corners=False)
                _, depth = self.layers.disp_to_depth(full, 0.1, 100.0)
                warped = []
                for source, pose in zip((previous, following), poses, strict=True):
                    points = self.unproject(depth, self.camera.inverse())
                    at = self.project(points, self.camera, pose)
                    warped.append(F.grid_sample(source, at, padding_mode="border", align_corners=True))
            errors = torch.cat([self.error(x, target) for x in warped], 1)
            identity = torch.cat([self.error(x, target) for x in (previous, following)], 1)
            with record_function("part/photometric"):
                identity = identity + torch.randn(identity.shape, device=identity.device) * 1e-5
                photometric = torch.cat([identity, errors], 1).min(1)[0].mean()
            with record_function("part/smoothness"):
                sigmoid = sigmoids["disp", scale]
                normalised = sigmoid / (sigmoid.mean((2, 3), True) + 1e-7)
                smoothness = self.layers.get_smooth_loss(normalised, self.pyramid[scale])
            losses.append(photometric + 1e-3 / 2**scale * smoothness)
        return torch.stack(losses).mean()


class OurStep(nn.Module):
    """What ``training_step`` minimises, with the weights of the published networks."""

    def __init__(self, batch: Batch, published: nn.Module | None, *, channels_last: bool, augment: nn.Module | None) -> None:
        super().__init__()
        model, pose_net = monodepth2_resnet18(pretrained=False), pose_resnet18(pretrained=False)
        for ours, names in ((model, ("encoder", "depth")), (pose_net, ("pose_encoder", "pose"))) if published else ():
            load_published(ours, {name: getattr(published, name).state_dict() for name in names}, source="monodepth2")
        self.module = SelfSupervisedVideoModule(model, pose_net, augment=augment, channels_last=channels_last)
        self.to(batch.image.device).train()

    def forward(self, batch: Batch) -> Tensor:
        """The loss."""
        return self.module.reconstruct(batch).loss.mean()


def example(rows: int, height: int, width: int, device: str) -> Batch:
    """Smooth images that move sideways, under KITTI's camera."""
    scene = F.interpolate(torch.rand(rows, 3, height // 8, width // 8), (height, width + 16), mode="bicubic").clamp(0, 1)
    previous, image, following = (scene[..., x : x + width].contiguous() for x in (0, 8, 16))
    camera = torch.tensor([[0.58 * width, 0, width / 2], [0, 1.92 * height, height / 2], [0, 0, 1]])
    none, zero = torch.zeros(rows, 1, height, width, dtype=torch.bool), torch.zeros(rows, dtype=torch.int64)
    return Batch(
        image=image,
        target=torch.zeros(rows, 1, height, width),
        valid=none,
        sky=none,
        ambiguity=zero,
        representation=zero,
        dataset=zero,
        intrinsics=camera.repeat(rows, 1, 1),
        real=torch.ones(rows, dtype=torch.bool),
        keys=tuple(map(str, range(rows))),
        pairs=torch.zeros(rows, 0, 5, dtype=torch.int64),
        frames=torch.stack([previous, following], 1),
        frame_names=("prev", "next"),
    ).to(device)


def steps(options: argparse.Namespace) -> dict[str, Step]:
    """Each contender's whole step: forward, loss, backward, Adam. The same weights and inputs for all."""
    torch.manual_seed(0)
    batch = example(options.batch, options.height, options.width, options.device)
    published = PublishedStep(batch).to(options.device).train() if options.rival else None
    ours = {OURS: OurStep(batch, published, channels_last=not options.contiguous, augment=nn.Identity())}
    if options.jitter:
        ours[JITTER] = OurStep(batch, published, channels_last=not options.contiguous, augment=None)
    rival = {RIVAL: published} if published else {}
    return {name: _step(part, batch) for name, part in (rival | ours).items()}


def _step(contender: nn.Module, batch: Batch) -> Step:
    optimizer = torch.optim.Adam([p for p in contender.parameters() if p.requires_grad], lr=1e-4)

    def step() -> float:
        optimizer.zero_grad()
        loss = contender(batch)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def timed(step: Step, device: str) -> tuple[float, float]:
    """Wall and processor time [s]."""
    _synchronise(device)
    wall, cpu = time.perf_counter(), time.process_time()
    step()
    _synchronise(device)
    return time.perf_counter() - wall, time.process_time() - cpu


def peak_memory(name: str, options: argparse.Namespace) -> float:
    """Memory that two steps need beside networks and inputs [MiB]."""
    step = steps(options)[name]
    if options.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before, measure = torch.cuda.memory_allocated(), torch.cuda.max_memory_allocated
    else:
        before, measure = _resident(), _resident
    step()
    step()
    return (measure() - before) / 2**20


def _resident() -> int:
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def by_part(step: Step, device: str) -> tuple[Counter[str], dict[str, Counter[str]]]:
    """Time [ms] of one step in each part's operators, and of each part's operators by name.

    A backward operator belongs to the part whose forward operator has its sequence number.
    """
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device == "cuda")
    with profile(activities=activities) as profiler:
        step()
        _synchronise(device)
    events = [e for e in profiler.events() if "cpu" in str(e.device_type).lower()]
    spans = sorted((e.time_range.start, e.time_range.end, e.name[5:]) for e in events if e.name.startswith("part/"))
    starts = [start for start, _, _ in spans]

    def forward_part(event: Any) -> str | None:
        place = bisect_right(starts, event.time_range.start) - 1
        return spans[place][2] if place >= 0 and event.time_range.end <= spans[place][1] else None

    numbered = {e.sequence_nr: part for e in events if e.sequence_nr >= 0 and e.scope != 1 and (part := forward_part(e))}
    totals: Counter[str] = Counter()
    operators: dict[str, Counter[str]] = {}
    for event in events:
        if event.name.startswith("part/"):
            continue
        part, above = forward_part(event), event
        direction = "forward" if part else "backward"
        while part is None and above is not None:
            part = numbered.get(above.sequence_nr) if above.scope == 1 else None
            above = above.cpu_parent
        key = f"{part}, {direction}" if part else "the rest: sums of gradients, Adam"
        spent = (event.self_device_time_total if device == "cuda" else event.self_cpu_time_total) / 1e3
        totals[key] += spent
        operators.setdefault(key, Counter())[event.name] += spent
    return totals, operators


def mark_parts() -> None:
    """Name the parts of our step for the profiler."""
    places: dict[str, list[tuple[Any, str]]] = {
        "warp": [(self_supervised_video, name) for name in ("interpolate", "reproject", "sample_pixels")],
        "photometric": [(MinReprojectionLoss, "maps"), (MinReprojectionLoss, "identity")],
        "smoothness": [(self_supervised_video, name) for name in ("_shrunk", "edge_aware_smoothness_loss")],
        "networks": [
            (self_supervised_video, "encode_views"),
            (SelfSupervisedVideoModule, "poses"),
            (Monodepth2Net, "multiscale_of"),
        ],
    }
    for part, marked in places.items():
        for owner, name in marked:
            setattr(owner, name, record_function(f"part/{part}")(getattr(owner, name)))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rival", default=os.environ.get("DEPTHKIT_MONODEPTH2"), help="folder of the published package")
    parser.add_argument("--batch", type=int, default=2, help="triplets per step (default %(default)s; the paper: 12)")
    parser.add_argument("--height", type=int, default=192, help="[px] (default %(default)s)")
    parser.add_argument("--width", type=int, default=640, help="[px] (default %(default)s)")
    parser.add_argument("--steps", type=int, default=5, help="timed steps of each, taking turns (default %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch (default %(default)s)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--contiguous", action="store_true", help="do not use the channels-last layout, for comparison")
    parser.add_argument("--jitter", action="store_true", help="also time the step with its own colour jitter")
    parser.add_argument("--profile", action="store_true", help="also print which operators of which part the time goes to")
    parser.add_argument("--memory-of", choices=(RIVAL, OURS), help=argparse.SUPPRESS)
    options = parsed(parser, batch=1, height=64, width=64, steps=1, threads=1)
    if options.rival:
        sys.path.insert(0, options.rival)  # for its top-level modules `layers` and `networks`
    else:
        print("Ours alone: neither --rival nor DEPTHKIT_MONODEPTH2 names a folder with the published package\n")
    warnings.filterwarnings("ignore")  # of the published code
    torch.set_num_threads(options.threads)
    if options.memory_of:
        print(peak_memory(options.memory_of, options))
        return

    memory = {}
    compared = (RIVAL, OURS) if options.rival else (OURS,)
    for name in compared:  # in fresh processes, and before this one grows: a child's peak begins at its parent's size
        run = subprocess.run([sys.executable, *sys.argv, "--memory-of", name], stdout=subprocess.PIPE, text=True, check=True)
        memory[name] = float(run.stdout.split()[-1])

    contenders = steps(options)
    losses = {}
    for name in compared:
        torch.manual_seed(1)  # the same noise against ties
        losses[name] = contenders[name]()
    torch.testing.assert_close(losses[OURS], losses[compared[0]], rtol=5e-5, atol=0)

    walls: dict[str, list[float]] = {name: [] for name in contenders}
    cpus: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(options.steps + 1):
        for name, step in contenders.items():
            wall, cpu = timed(step, options.device)
            if turn:  # the first warms up
                walls[name].append(wall)
                cpus[name].append(cpu)
    where = torch.cuda.get_device_name() if options.device == "cuda" else f"{platform.machine()} CPU, {options.threads} threads"
    shape = f"{options.batch} triplets of {options.width}x{options.height}"
    print(f"ResNet-18 depth and pose, {shape}; torch {torch.__version__}, {where}")
    print(f"Loss of the first step: {', '.join(f'{loss:.7f} {name}' for name, loss in losses.items())}\n")
    print(f"| step | median [s] | fastest [s] | {compared[0]} / this | fastest | CPU time, fastest | peak memory [MiB] |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    for name in contenders:
        measures = ((statistics.median, walls), (min, walls), (min, cpus))
        ratios = " | ".join(f"{of(x[compared[0]]) / of(x[name]):.2f}" for of, x in measures)
        held = f"{memory[name]:.0f}" if name in memory else ""
        print(f"| {name} | {statistics.median(walls[name]):.3f} | {min(walls[name]):.3f} | {ratios} | {held} |")
    if options.profile and options.rival:
        print_profile(contenders, options.device)


def print_profile(contenders: dict[str, Step], device: str) -> None:
    """The fastest of four profiled steps of each: its parts side by side, and the operators behind them."""
    mark_parts()
    profiled = [{name: by_part(contenders[name], device) for name in (RIVAL, OURS)} for _ in range(4)]
    found = {name: min((turn[name] for turn in profiled), key=lambda parts: parts[0].total()) for name in (RIVAL, OURS)}
    print(f"\n| operators of | {RIVAL} [ms] | {OURS} [ms] |\n|---|--:|--:|")
    parts = sorted(found[RIVAL][0], key=found[RIVAL][0].__getitem__, reverse=True)
    for part in parts:
        print(f"| {part} | {found[RIVAL][0][part]:.0f} | {found[OURS][0][part]:.0f} |")
    for name, (_, operators) in found.items():
        print(f"\n{name}:\n")
        for part in parts:
            largest = operators.get(part, Counter()).most_common(5)
            print(f"- {part}: " + ", ".join(f"{operator} {spent:.0f}" for operator, spent in largest))


def _antialiased(x: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(x, size, mode="bilinear", align_corners=False, antialias=True)


def _synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
