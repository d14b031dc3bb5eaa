"""The odometry test of Zhou et al. 2017, as Godard et al. 2019 (Monodepth2) run it: named, cited, with its figures.

It scores motions instead of maps, so it is no ``Protocol``: ``metric()`` is what computes its number.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from depthkit.metrics import TrajectoryError
from depthkit.metrics.trajectory import Chaining


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
    chaining: Chaining = "published"
    published: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def metric(self) -> TrajectoryError:
        """What scores one sequence: ``update(predicted, true)`` with motions ``next_from_current``, ``(N, 4, 4)``."""
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
