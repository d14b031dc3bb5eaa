"""The odometry test of Zhou et al. 2017, as Godard et al. 2019 (Monodepth2) run it: named, cited, with its figures.

It scores motions instead of maps, so it is no ``Protocol``; ``evaluate_odometry`` is to it what ``evaluate`` is to those.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor

from depthkit import __version__
from depthkit.errors import GeometryError, PredictionError, RecipeError, ShapeError
from depthkit.evaluation.report import table_of
from depthkit.geometry import chain_poses, invert_pose
from depthkit.metrics import TrajectoryError
from depthkit.metrics.trajectory import Chaining
from depthkit.types import Batch
from depthkit.writing import replacing


@dataclass(frozen=True)
class OdometryProtocol:
    """A named, cited way of scoring the motions of a camera over a sequence.

    Attributes:
        name: how reports call it.
        source: citation.
        sequence: of KITTI's odometry, ``"09"`` or ``"10"``.
        frames: positions of a snippet.
        chaining: see ``depthkit.metrics.functional.trajectory_error``.
        published: mean and standard deviation over snippets [m] by model.

    Example:
        >>> import torch
        >>> motions = torch.eye(4).repeat(6, 1, 1)
        >>> motions[:, 2, 3] = -1.0
        >>> metric = ODOMETRY_PROTOCOLS["monodepth2_odometry_09"].metric()
        >>> metric.update(0.1 * motions + 0.9 * torch.eye(4), motions)
        >>> bool(metric.compute()["trajectory_error"] < 1e-6)
        True
    """

    name: str
    source: str
    sequence: str
    frames: int = 5
    chaining: Chaining | str = Chaining.PUBLISHED
    published: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def metric(self) -> TrajectoryError:
        """Make the metric of one sequence: ``update(predicted, true)`` with motions ``next_from_current``, ``(N, 4, 4)``."""
        return TrajectoryError(frames=self.frames, chaining=self.chaining)


# Table 4: mean and standard deviation [m] on sequences 09 and 10.
_TABLE_4 = {
    "Monodepth2 M": ((0.017, 0.008), (0.015, 0.010)),
    "Monodepth2 MS": ((0.017, 0.008), (0.015, 0.010)),
    "Monodepth2 M without ImageNet": ((0.018, 0.010), (0.015, 0.010)),
    "Monodepth2 MS without ImageNet": ((0.018, 0.009), (0.015, 0.010)),
    "ORB-SLAM": ((0.014, 0.008), (0.012, 0.011)),
    "DDVO": ((0.045, 0.108), (0.033, 0.074)),
    "Zhou et al. 2017, pairs": ((0.050, 0.039), (0.034, 0.028)),
    "Zhou et al. 2017": ((0.021, 0.017), (0.020, 0.015)),
    "Zhou et al. 2017, newer": ((0.016, 0.009), (0.013, 0.009)),
    "Mahjourian et al. 2018": ((0.013, 0.010), (0.012, 0.011)),
    "GeoNet": ((0.012, 0.007), (0.012, 0.009)),
    "EPC++ M": ((0.013, 0.007), (0.012, 0.008)),
    "Ranjan et al. 2019": ((0.012, 0.007), (0.012, 0.008)),
    "EPC++ MS": ((0.012, 0.006), (0.012, 0.008)),
}

ODOMETRY_PROTOCOLS: Mapping[str, OdometryProtocol] = MappingProxyType(
    {
        f"monodepth2_odometry_{sequence}": OdometryProtocol(
            name=f"monodepth2_odometry_{sequence}",
            source="Godard et al., Digging Into Self-Supervised Monocular Depth Estimation, ICCV 2019, table 4",
            sequence=sequence,
            published={model: figures[column] for model, figures in _TABLE_4.items()},
        )
        for column, sequence in enumerate(("09", "10"))
    }
)
"""``monodepth2_odometry_{09,10}``."""


def find_odometry_protocol(name: str) -> OdometryProtocol:
    """Find the protocol of that name.

    Raises:
        RecipeError: there is none.
    """
    if name not in ODOMETRY_PROTOCOLS:
        raise RecipeError(f"unknown odometry protocol {name!r}; expected one of {', '.join(ODOMETRY_PROTOCOLS)}.")
    return ODOMETRY_PROTOCOLS[name]


@dataclass(frozen=True)
class OdometryReport:
    """The numbers of one model under one odometry protocol.

    Attributes:
        protocol: how they were computed.
        model: name of what was evaluated.
        summary: ``trajectory_error`` and ``trajectory_error_std`` over all snippets [m].
        beside: the same of a camera that stands still, and of one that always drives straight ahead.
        motions: predicted ``next_from_current`` of each sequence in the model's unit, ``(N, 4, 4)``, by the key it starts with.
    """

    protocol: OdometryProtocol
    model: str
    summary: Mapping[str, float]
    beside: Mapping[str, Mapping[str, float]]
    motions: Mapping[str, Tensor] = field(repr=False)

    def table(self) -> str:
        """Write the numbers as text under what they mean, the published ones below."""
        names = ("trajectory_error", "trajectory_error_std")
        published = {f"{name} (published)": dict(zip(names, row, strict=True)) for name, row in self.protocol.published.items()}
        lengths = [len(motions) for motions in self.motions.values()]
        facts = [
            f"protocol: {self.protocol.name}",
            f"source: {self.protocol.source}",
            f"scored: snippets of {self.protocol.frames} positions [m] after the best scale, chaining {self.protocol.chaining}",
            f"sequences: {len(lengths)} of {min(lengths)} to {max(lengths)} motions, {sum(lengths)} in all",
        ]
        return "\n".join([*facts, "", table_of({self.model: self.summary, **self.beside, **published})])

    def to_json(self, path: str | Path) -> Path:
        """Write the numbers."""
        path = Path(path)
        lengths = {key: len(motions) for key, motions in self.motions.items()}
        facts = {"version": __version__, "protocol": self.protocol.name, "source": self.protocol.source, "model": self.model}
        content = {**facts, "summary": dict(self.summary), "beside": dict(self.beside), "motions": lengths}
        with replacing(path) as part:
            part.write_text(json.dumps(content, indent=2))
        return path

    def save_paths(self, folder: str | Path) -> list[Path]:
        """Write the path of every sequence in KITTI's format: per frame, 12 numbers of its pose, camera to world.

        The world is the first camera; lengths are in the model's unit.
        """
        files = []
        for key, motions in self.motions.items():
            poses = chain_poses(invert_pose(motions.double()))[:, :3].flatten(1)
            files.append(Path(folder) / f"{key.replace('/', '-')}.txt")
            with replacing(files[-1]) as part:
                part.write_text("".join(" ".join(f"{x:.9e}" for x in row) + "\n" for row in poses.tolist()))
        return files


def evaluate_odometry(
    ego_motion: Callable[[Tensor], Tensor],
    samples: Iterable[Batch],
    protocol: OdometryProtocol,
    *,
    name: str | None = None,
    device: torch.device | str = "cpu",
) -> OdometryReport:
    """Score what predicts the motion between two pictures, whoever made it.

    Args:
        ego_motion: pictures with the ones after them, RGB in [0, 1], ``(N, 2, 3, H, W)``, to ``next_from_current``,
            ``(N, 4, 4)``; such as ``depthkit.models.EgoMotion``.
        samples: in their order, with the views ``prev`` and ``next`` and their poses. A sample goes on with the sequence before
            it if each one's neighbour is the other's image; else it begins another, with the motion from its ``prev``.
        protocol: how to score.
        name: of the model in the report; default its class or function name.
        device: where ``ego_motion`` runs.

    Raises:
        GeometryError: a sample without these views, or without their poses.
        PredictionError: a predicted motion is not finite.
        ShapeError: there are no samples.
    """
    pairs: dict[str, list[tuple[Tensor, Tensor]]] = {}
    key = ""
    with torch.inference_mode():
        for begins, here, pictures, true in _motions(samples):
            predicted = ego_motion(pictures.to(device)).cpu().double()
            if not predicted.isfinite().all():
                raise PredictionError(f"{here}: expected a finite motion; got NaN or infinity. Look at what was trained.")
            key = here if begins else key
            pairs.setdefault(key, []).append((predicted, true.double()))
    if not pairs:
        raise ShapeError("expected at least one sample to evaluate; got none. Check the split and the path of the shards.")
    sequences = {key: tuple(torch.cat(part) for part in zip(*found, strict=True)) for key, found in pairs.items()}
    ahead = torch.eye(4, dtype=torch.float64)
    ahead[2, 3] = -1.0
    guesses = {"no motion": torch.eye(4, dtype=torch.float64), "straight ahead": ahead}
    model = name or str(getattr(ego_motion, "__name__", type(ego_motion).__name__))
    return OdometryReport(
        protocol,
        model,
        _score(protocol, ((predicted, true) for predicted, true in sequences.values())),
        {
            row: _score(protocol, ((guess.expand_as(true), true) for _, true in sequences.values()))
            for row, guess in guesses.items()
        },
        {key: predicted for key, (predicted, _) in sequences.items()},
    )


def _score(protocol: OdometryProtocol, sequences: Iterable[Sequence[Tensor]]) -> dict[str, float]:
    metric = protocol.metric()
    for predicted, true in sequences:
        metric.update(predicted, true)
    return {name: float(value) for name, value in metric.compute().items()}


def _motions(samples: Iterable[Batch]) -> Iterator[tuple[bool, str, Tensor, Tensor]]:
    """Per sample: whether a sequence begins, key, pairs of pictures ``(N, 2, 3, H, W)``, true motions; N is 2 at a begin."""
    last: tuple[Tensor, Tensor] | None = None
    for batch in samples:
        for row in (row for row, real in enumerate(batch.real.tolist()) if real):
            image, key = batch.image[row], batch.keys[row]
            if not {"prev", "next"} <= set(batch.frame_names):
                raise GeometryError(
                    f"{key}: expected views prev and next; got {', '.join(batch.frame_names) or 'none'}. "
                    "Write the shards with views=video, and read them with VideoDataModule.views_dataloader."
                )
            places = [batch.frame_names.index(view) for view in ("prev", "next")]
            (before, behind), poses = batch.frames[row, places], batch.frames_from_camera[row, places]
            if not poses.isfinite().all():
                raise GeometryError(
                    f"{key}: expected the true poses of prev and next; they are not known. "
                    "Write shards of recordings with poses, such as KITTI's odometry with its folder poses."
                )
            begins = last is None or not (torch.equal(last[0], before) and torch.equal(last[1], image))
            last = image, behind
            pictures, true = [torch.stack([image, behind])], [poses[1]]
            if begins:
                pictures, true = [torch.stack([before, image]), *pictures], [invert_pose(poses[0]), *true]
            yield begins, key, torch.stack(pictures), torch.stack(true)
