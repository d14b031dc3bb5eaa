"""SelfSupervisedVideoModule against Godard et al. (2019), section 3, and the conventions of the released layers."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

from depthkit.losses import MinReprojectionLoss, PhotometricError
from depthkit.models import PredictiveMask, monodepth2_timm, pose_cnn, pose_shared, pose_timm
from depthkit.paradigms import SelfSupervisedVideoModule
from depthkit.paradigms.terms.rng import step_rng
from depthkit.types import Batch
from tests.contracts.objective import assert_same_step
from tests.contracts.paradigm import METRIC_DEPTH, batch

SIZE = (64, 96)
VIDEO, STEREO, BOTH = ("prev", "next"), ("stereo",), ("prev", "next", "stereo")


class Darkened(nn.Module):
    """Colours that are changed without chance."""

    def forward(self, views: Tensor) -> Tensor:
        return 0.7 * views**2 + 0.1


def video(names: Sequence[str], seed: int = 0, rows: int = 2) -> Batch:
    """Smooth scenes seen from three places, with known poses; the last row is mirrored: its partner is on the other side."""
    g = torch.Generator().manual_seed(seed)
    height, width = SIZE
    scene = interpolate(torch.rand(rows, 3, height // 4, width // 4 + 3, generator=g), (height, width + 12), mode="bicubic")
    scene = scene.clamp(0, 1)
    offsets = {"prev": 4, "next": 9, "stereo": 11}
    frames = torch.stack([scene[..., offsets[n] : offsets[n] + width] for n in names], 1).contiguous()
    poses = torch.eye(4).repeat(rows, len(names), 1, 1)
    poses[..., :3, 3] = 0.02 * torch.randn(rows, len(names), 3, generator=g)
    poses[..., 0, 3] = torch.tensor([-0.1, 0.1])[:rows, None]
    focal = torch.tensor([[0.58 * width, 0, 0.5 * width], [0, 0.9 * height, 0.47 * height], [0, 0, 1]])
    b = batch([(0, METRIC_DEPTH)] * rows, size=SIZE, seed=seed)
    image = scene[..., 6 : 6 + width].contiguous()
    return replace(
        b, image=image, frames=frames, frames_from_camera=poses, frame_names=tuple(names), intrinsics=focal.repeat(rows, 1, 1)
    )


def rigid(turn: Tensor, move: Tensor) -> Tensor:
    """Rotate by an axis times an angle, then translate, ``(4, 4)``."""
    x, y, z = turn
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero]).view(3, 3)
    top = torch.cat([torch.linalg.matrix_exp(cross), move[:, None]], 1)
    return torch.cat([top, torch.tensor([[0.0, 0, 0, 1]], dtype=top.dtype)])


def seen_at(image: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """``(3, H, W)`` read bilinearly at columns and rows, beyond the border the border."""
    height, width = image.shape[-2:]
    x, y = x.clamp(0, width - 1), y.clamp(0, height - 1)
    left, top = x.detach().floor().long(), y.detach().floor().long()
    right, bottom = (left + 1).clamp(max=width - 1), (top + 1).clamp(max=height - 1)
    u, v = x - left, y - top
    upper = (1 - u) * image[:, top, left] + u * image[:, top, right]
    lower = (1 - u) * image[:, bottom, left] + u * image[:, bottom, right]
    return (1 - v) * upper + v * lower


def warped(source: Tensor, depth: Tensor, camera: Tensor, pose: Tensor) -> Tensor:
    """Eq 1's I_{t' -> t}: unproject, move, project, sample."""
    height, width = depth.shape
    row, column = torch.meshgrid(torch.arange(height).double(), torch.arange(width).double(), indexing="ij")
    pixel = torch.stack([column, row, torch.ones_like(row)]).flatten(1)
    point = torch.linalg.inv(camera) @ pixel * depth.flatten()
    image = camera @ (pose[:3, :3] @ point + pose[:3, 3:])
    x, y = (image[:2] / (image[2] + 1e-7)).view(2, height, width)
    return seen_at(source, x, y)


def error(a: Tensor, b: Tensor, alpha: float) -> Tensor:
    """Eqs 1 and 2 between two images, ``(H, W)``: SSIM over 3x3 windows of mirrored images, and L1."""

    def windows(x: Tensor) -> Tensor:
        return pad(x[None], (1, 1, 1, 1), mode="reflect")[0].unfold(1, 3, 1).unfold(2, 3, 1).flatten(3)

    p, q = windows(a), windows(b)
    mean_p, mean_q = p.mean(3), q.mean(3)
    var_p, var_q = p.var(3, correction=0), q.var(3, correction=0)
    covariance = ((p - mean_p[..., None]) * (q - mean_q[..., None])).mean(3)
    c1, c2 = 0.01**2, 0.03**2
    ssim = (2 * mean_p * mean_q + c1) * (2 * covariance + c2) / ((mean_p**2 + mean_q**2 + c1) * (var_p + var_q + c2))
    return alpha * ((1 - ssim) / 2).clamp(0, 1).mean(0) + (1 - alpha) * (a - b).abs().mean(0)


def smoothness(sigmoid: Tensor, image: Tensor) -> Tensor:
    """Eq 3 of a map ``(h, w)`` and an image ``(3, h, w)``."""
    d = sigmoid / sigmoid.mean()
    across = (d[:, 1:] - d[:, :-1]).abs() * (-(image[:, :, 1:] - image[:, :, :-1]).abs().mean(0)).exp()
    down = (d[1:] - d[:-1]).abs() * (-(image[:, 1:] - image[:, :-1]).abs().mean(0)).exp()
    return across.mean() + down.mean()


def predicted_poses(m: SelfSupervisedVideoModule, b: Batch, views: Tensor, disparity: Tensor) -> list[list[Tensor]]:
    """T_{t -> t'} of each row and source: pairs in temporal order, that of the past inverted; the rig's as it is."""
    found = [[b.frames_from_camera[row, i].double() for i in range(len(b.frame_names))] for row in range(len(b))]
    timed = [i for i, name in enumerate(b.frame_names) if name != "stereo"]
    net = m.pose_net
    if net is None or not timed:
        return found
    looked_at = views if not net.shares_encoder else m.model.encode(views.flatten(0, 1))[-1].unflatten(0, views.shape[:2])
    for place, i in enumerate(timed):
        past = b.frame_names[i] == "prev"
        if net.frames == 2:
            pair = looked_at[:, [i + 1, 0]] if past else looked_at[:, [0, i + 1]]
            turn, move = (x[:, 0].double() for x in net.motions(pair))
        else:
            turn, move = (x[:, place].double() for x in net.motions(looked_at[:, [0, *(j + 1 for j in timed)]]))
        for row in range(len(b)):
            length = disparity[row].mean() if net.times_mean_disparity else 1.0
            pose = rigid(turn[row], move[row] * length)
            found[row][i] = torch.linalg.inv(pose) if past and net.frames == 2 else pose
    return found


def reference(
    m: SelfSupervisedVideoModule,
    b: Batch,
    *,
    alpha: float = 0.85,
    automask: bool = True,
    mean: bool = False,
    full: bool = True,
    known_motion: float = 0.0,
    weight: float = 1e-3,
) -> Tensor:
    """The mean over images and scales of L_p + lambda / 2^s L_s (eq 4)."""
    count = len(b.frame_names)
    with step_rng(0, m._drawn, 0):  # the noise that breaks ties
        sizes = [(SIZE[0] >> s, SIZE[1] >> s) if not full else SIZE for s in range(4)]
        noise = [1e-5 * torch.randn(len(b), 1 if mean else count, *size).double() for size in sizes]
    views = m.augment(torch.cat([b.image[:, None], b.frames], 1))
    features = m.model.encode(views[:, 0])
    if m.pose_net is not None and m.pose_net.shares_encoder:
        features = [x.unflatten(0, views.shape[:2])[:, 0] for x in m.model.encode(views.flatten(0, 1))]
    sigmoids = [x[:, 0].double() for x in m.model.multiscale_of(features)]
    masks = [x.double() for x in m.mask_decoder(features)] if m.mask_decoder is not None else None
    low, high = 1 / 100, 1 / 0.1
    poses = predicted_poses(m, b, views, low + (high - low) * sigmoids[0])
    losses = []
    for s, sigmoid in enumerate(sigmoids):
        size = sigmoid.shape[-2:]
        small = [interpolate(x.double(), size, mode="bilinear", antialias=True) for x in (b.image, *b.frames.unbind(1))]
        target, *sources = small if not full else [x.double() for x in (b.image, *b.frames.unbind(1))]
        shown = interpolate(sigmoid[:, None], target.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
        depth = 1 / (low + (high - low) * shown)
        mask = None if masks is None else interpolate(masks[s], target.shape[-2:], mode="bilinear", align_corners=False)
        for row in range(len(b)):
            camera = b.intrinsics[row].double().clone()
            if not full:  # pixel centres at integers: (u + 0.5) / 2^s - 0.5
                camera[:2] /= 2**s
                camera[:2, 2] += 0.5 / 2**s - 0.5
            moved = [warped(x[row], depth[row], camera, poses[row][i]) for i, x in enumerate(sources)]
            errors = torch.stack([error(x, target[row], alpha) for x in moved])
            still = torch.stack([error(x[row], target[row], alpha) for x in sources])
            if mask is not None:
                errors = errors * mask[row]
            if mean:
                errors, still = errors.mean(0, keepdim=True), still.mean(0, keepdim=True)
            both = torch.cat([errors, still + noise[s][row]]) if automask else errors
            loss = both.min(0).values.mean() + weight / 2**s * smoothness(sigmoid[row], small[0][row])
            if mask is not None:
                loss = loss + 0.2 * -mask[row].log().mean()
            losses.append(loss / 4)
    total = torch.stack(losses).sum() / len(b)
    if known_motion:
        lengths = [
            (poses[row][i][:3, 3].norm() - b.frames_from_camera[row, i, :3, 3].double().norm()).abs()
            for row in range(len(b))
            for i, name in enumerate(b.frame_names)
            if name != "stereo"
        ]
        total = total + known_motion * torch.stack(lengths).mean()
    return total


def module(pose: str | None, frames: int = 2, predictive: bool = False, **options: Any) -> SelfSupervisedVideoModule:
    torch.manual_seed(3)
    model = monodepth2_timm("test_resnet", pretrained=False)
    nets = {
        "separate": lambda: pose_timm("test_resnet", pretrained=False, frames=frames),
        "shared": lambda: pose_shared(model.encoder.channels[-1], frames=frames),
        "cnn": lambda: pose_cnn(frames=frames),
        None: lambda: None,
    }
    if predictive:
        options["mask_decoder"] = PredictiveMask(model.encoder.channels, model.encoder.strides)
    m = SelfSupervisedVideoModule(model, nets[pose](), augment=Darkened(), **options).eval()
    with torch.no_grad():  # motions and maps as training makes them: neither tiny nor flat
        if m.pose_net is not None:
            last = m.pose_net.output if pose == "cnn" else m.pose_net.decoder.output
            last.bias += torch.randn(len(last.bias)) * (20 if pose == "cnn" else 2)
        for conv in m.model.head.output:
            conv.weight *= 4
            conv.bias -= 2
    m.training = True  # augment as in training; the networks' statistics stay
    return m


TIES = 5e-3
"""A pixel whose two smallest errors are one in float32 may take the gradient of either."""


@pytest.mark.parametrize(
    ("pose", "frames", "views"),
    [
        ("separate", 2, VIDEO),
        ("separate", 3, VIDEO),
        ("shared", 2, VIDEO),
        ("cnn", 2, VIDEO),
        ("cnn", 3, VIDEO),
        (None, 2, STEREO),
        ("separate", 2, BOTH),
    ],
    ids=str,
)
def test_the_step_is_section_3(pose: str | None, frames: int, views: tuple[str, ...]) -> None:
    m, b = module(pose, frames, stereo="stereo" in views), video(views)
    m._drawn = 5
    assert_same_step(m, b, reference(m, b), TIES)


@pytest.mark.parametrize(
    ("options", "rows"),
    [
        ({"reprojection": MinReprojectionLoss(automask=False)}, {"automask": False}),
        ({"reprojection": MinReprojectionLoss(reduction="mean")}, {"mean": True}),
        ({"reprojection": MinReprojectionLoss(error=PhotometricError(ssim_weight=0))}, {"alpha": 0.0}),
        ({"reprojection": MinReprojectionLoss(automask=False), "predictive": True}, {"automask": False}),
        ({"full_resolution": False}, {"full": False}),
        ({"motion_weight": 0.05, "stereo": True}, {"known_motion": 0.05}),
        ({"smoothness": 0.1}, {"weight": 0.1}),
    ],
    ids=["no automask", "mean", "no SSIM", "predictive mask", "each at its own resolution", "known motion", "smoother"],
)
def test_a_row_of_the_ablation_is_the_papers(options: dict[str, Any], rows: dict[str, Any]) -> None:
    m, b = module("separate", **options), video(BOTH if "stereo" in options else VIDEO)
    assert_same_step(m, b, reference(m, b, **rows), TIES)


def test_metres_and_units_of_5_4_metres_are_one_objective() -> None:
    """Depth, the rig's baseline and the pose network's unit in metres: every warp is the same, hence loss and gradient."""
    m, b = module("cnn", stereo=True), video(BOTH)
    model = monodepth2_timm("test_resnet", pretrained=False, min_depth=0.54, max_depth=540.0)
    metres = SelfSupervisedVideoModule(model, pose_cnn(unit=5.4), augment=Darkened(), stereo=True).eval()
    metres.load_state_dict(m.state_dict())
    metres.training = True
    poses = b.frames_from_camera.clone()
    poses[..., :3, 3] *= 5.4
    pairs = [(m, b), (metres, replace(b, frames_from_camera=poses))]
    (first, ours), (second, theirs) = (
        (total, torch.cat([g.flatten() for g in torch.autograd.grad(total, list(x.parameters()), materialize_grads=True)]))
        for x, total in ((x, x.combine(x, held).total) for x, held in pairs)
    )
    torch.testing.assert_close(first, second)
    assert (ours - theirs).norm() < 1e-3 * ours.norm()


def test_consistency_is_the_relative_difference_of_the_moved_depth_and_the_one_seen_there() -> None:
    """Bian et al. (2019), eqs 2 and 3, over the pixels whose points lie before the source camera and in its image."""
    m, b = module(None, consistency=0.5), video(VIDEO)

    def depth_of(image: Tensor) -> Tensor:
        sigmoid = m.model.multiscale_of(m.model.encode(image))[0][:, 0].double()
        return 1 / (1 / 100 + (1 / 0.1 - 1 / 100) * sigmoid)

    target, expected, behind = depth_of(m.augment(b.image)), [], 0
    b.frames_from_camera[0, 0, 2, 3] = -target[0].quantile(0.1)  # some of the points are then behind the source camera
    row, column = torch.meshgrid(torch.arange(SIZE[0]).double(), torch.arange(SIZE[1]).double(), indexing="ij")
    pixel = torch.stack([column, row, torch.ones_like(row)]).flatten(1)
    for i in range(len(b)):
        of_sources = []
        for source, pose in zip(b.frames[i], b.frames_from_camera[i].double(), strict=True):
            camera = b.intrinsics[i].double()
            moved = pose[:3, :3] @ (torch.linalg.inv(camera) @ pixel * target[i].flatten()) + pose[:3, 3:]
            x, y, computed = (camera @ moved).unbind()
            x, y = x / computed, y / computed
            inside = (x >= 0) & (x <= SIZE[1] - 1) & (y >= 0) & (y <= SIZE[0] - 1)
            behind += int((computed < 0).sum())
            seen = inside & (computed > 0)
            sampled = seen_at(depth_of(source[None]), x, y)[0]
            of_sources.append(((computed - sampled).abs() / (computed + sampled))[seen].mean())
        expected.append(torch.stack(of_sources).mean())
    assert behind > 30
    found = m.losses(b)["consistency"]
    torch.testing.assert_close(found.values.double(), torch.stack(expected), rtol=1e-3, atol=1e-5)
    assert found.weight == 0.5
