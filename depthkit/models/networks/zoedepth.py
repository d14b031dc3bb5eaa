"""ZoeDepth: metric depth from bins on the features of a relative network (Bhat et al. 2023, the released networks)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from depthkit.errors import RecipeError
from depthkit.models.build import architecture, build
from depthkit.models.net import DepthNet
from depthkit.models.networks.dpt import DPTDecoder, DPTHead, SigmoidDepthHead
from depthkit.models.networks.heads import OutputConv
from depthkit.types import Representation

_EMBEDDING = 128
_ATTRACTORS = (16, 8, 4, 1)  # at each fused level, coarsest first
_ATTRACTION = 300.0
_TEMPERATURES = (0.0212, 50.0)
_LEAST = 1e-4  # of a probability; and added to what is divided by a sum
_NEARLY_0 = 1e-7  # keeps x ln x finite at 0; a low temperature makes it show, so it is that of the released network
_WIDTH = 1e-3  # added to a bin's width before widths are divided by their sum


class BinsHead(nn.Module):
    """Depth as the mean of each pixel's bin centres under a log-binomial distribution.

    The centres start at the coarsest level and are drawn towards attractors at each finer one.

    Args:
        channels: channels of the decoder's levels.
        relative: head that predicts disparity; the bins see the disparity and its last hidden map.
        bins: number of centres.
        depth_range: None leaves centres unbounded (as released for NYU); (least, greatest) depth [m] bounds them (for KITTI).

    Raises:
        RecipeError: ``depth_range`` is not 0 <= least < greatest, or there are fewer than two bins.
    """

    representation = Representation.DEPTH

    def __init__(
        self, channels: int, relative: DPTHead, *, bins: int = 64, depth_range: tuple[float, float] | None = None
    ) -> None:
        super().__init__()
        if bins < 2:
            raise RecipeError(f"expected 2 bins or more; got {bins}.")
        if depth_range is not None and not 0 <= depth_range[0] < depth_range[1]:
            raise RecipeError(f"expected depth_range as 0 <= least < greatest [m]; got {tuple(depth_range)}.")
        self.relative = relative
        self.depth_range = depth_range
        hidden: int = relative.refine.out_channels
        self.bottleneck = nn.Conv2d(channels, channels, 1)
        self.seed = _mlp(channels, 256, bins)
        self.seed_embedding = _mlp(channels, _EMBEDDING, _EMBEDDING)
        self.embedding = nn.ModuleList(_mlp(channels, _EMBEDDING, _EMBEDDING) for _ in _ATTRACTORS)
        # of a bounded attractor's two numbers the released network reads one, to which its weights are trained
        self.attractors = nn.ModuleList(_mlp(_EMBEDDING, _EMBEDDING, n * (2 if depth_range else 1)) for n in _ATTRACTORS)
        seen = hidden + 1 + _EMBEDDING
        self.distribution = nn.Sequential(nn.Conv2d(seen, seen // 2, 1), nn.GELU(), OutputConv(seen // 2, 4, 1))

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Predict depth [m], ``(B, 1, H, W)``, from the decoder's five levels, coarsest first."""
        coarsest, *fused = levels
        x = self.bottleneck(coarsest)
        centres, embedding = self._seed_centres(self.seed(x)), self.seed_embedding(x)
        for embed, attract, level in zip(self.embedding, self.attractors, fused, strict=True):
            seen = embed(level)
            centres = self._drawn(_resized(centres, seen), attract(seen + _resized(embedding, seen)))
            embedding = seen
        hidden = self.relative.hidden(fused[-1])
        described = torch.cat([hidden, self.relative.map(hidden), _resized(embedding, hidden)], 1)
        probability = _log_binomial(self.distribution(described), centres.shape[1])
        return (probability * _resized(self._metric(centres), hidden)).sum(1, keepdim=True)

    def _seed_centres(self, x: Tensor) -> Tensor:
        """Compute the first centres [m], or in [0, 1] of the range the middles of bins whose widths add up to 1."""
        if self.depth_range is None:
            return F.softplus(x)
        width = F.relu(x) + _WIDTH
        edges = F.pad((width / width.sum(1, keepdim=True)).cumsum(1), (0, 0, 0, 0, 1, 0))
        return (edges[:, :-1] + edges[:, 1:]) / 2

    def _drawn(self, centres: Tensor, x: Tensor) -> Tensor:
        """Move centres c by the mean over attractors a of dx / (1 + 300 dx^2) with dx = a - c."""
        attractors = F.softplus(x) if self.depth_range is None else (F.relu(x) + _WIDTH)[:, ::2]
        dx = attractors.unsqueeze(2) - centres.unsqueeze(1)  # finer levels have fewer attractors: of like size at each
        return centres + (dx / (1 + _ATTRACTION * dx.square())).mean(1)

    def _metric(self, centres: Tensor) -> Tensor:
        if self.depth_range is None:
            return centres
        least, greatest = self.depth_range
        return ((greatest - least) * centres + least).clamp(least, greatest)


class ZoeDepthNet(DepthNet):
    """A depth network whose head reads every level of the decoder."""

    def fused(self, features: list[Tensor]) -> list[Tensor]:
        """Compute all levels of the decoder, finest last."""
        return self.decoder.levels(features)


@architecture
def zoedepth(
    base: DepthNet | Mapping[str, Any] | str = "dpt_dinov2_large",
    *,
    pretrained: bool | str | Path = True,
    bins: int = 64,
    depth_range: tuple[float, float] | None = None,
) -> ZoeDepthNet:
    """Build ZoeDepth on a DPT network for disparity, as Depth Anything fine-tunes it.

    Args:
        base: network for disparity, whose parts become parts of this one (not copies); or the name of its architecture; or its
            ``config``.
        pretrained: weights of the encoder if ``base`` is a name or a ``config``, see ``ViTEncoder``.
        bins: see ``BinsHead``.
        depth_range: see ``BinsHead``: None for indoor scenes as released; (0.001, 80) for KITTI.

    Raises:
        RecipeError: the base has no decoder and head of DPT, no pyramid of four levels, or predicts metric depth.

    Example:
        >>> from depthkit.models import dpt_timm
        >>> base = dpt_timm("test_vit", pretrained=False, features=16)
        >>> model = zoedepth(base)
        >>> model.representation.value, model(torch.rand(1, 3, 32, 48)).shape
        ('depth', torch.Size([1, 1, 32, 48]))
    """
    if not isinstance(base, DepthNet):
        base = cast(DepthNet, build({"architecture": base} if isinstance(base, str) else base, pretrained=pretrained))
    decoder, head = base.decoder, base.head
    if not (isinstance(decoder, DPTDecoder) and isinstance(head, DPTHead) and len(decoder.fusion) == len(_ATTRACTORS)):
        raise RecipeError(
            f"expected a base with the decoder of DPT on four maps and its head; got {type(decoder).__name__} and "
            f"{type(head).__name__}. Take a dpt_* network."
        )
    if isinstance(head, SigmoidDepthHead) or head.representation != Representation.DISPARITY:
        raise RecipeError(f"expected a base that gives disparity; got {head.representation}. Leave out its max_depth.")
    return ZoeDepthNet(base.encoder, decoder, BinsHead(decoder.channels, head, bins=bins, depth_range=depth_range))


def _mlp(channels: int, hidden: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, hidden, 1), nn.ReLU(), OutputConv(hidden, out_channels, 1))


def _resized(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=True)


def _log_binomial(x: Tensor, classes: int) -> Tensor:
    """Compute class probabilities ``(B, classes, H, W)``, softmax of (ln C(n, k) + k ln p + (n - k) ln(1 - p)) / temperature.

    Args:
        x: two numbers that give p and two that give the temperature, ``(B, 4, H, W)``.
        classes: number of classes, n + 1.
    """
    p, p_rest, t, t_rest = (F.softplus(x) + _LEAST).unsqueeze(2).unbind(1)
    p, t = p / (p + p_rest), t / (t + t_rest)
    temperature = (_TEMPERATURES[1] - _TEMPERATURES[0]) * t + _TEMPERATURES[0]
    k = torch.arange(classes, device=x.device, dtype=x.dtype).view(1, -1, 1, 1)
    n = float(classes - 1)
    logits = _log_choose(n, k) + k * p.clamp(_LEAST, 1).log() + (n - k) * (1 - p).clamp(_LEAST, 1).log()
    return (logits / temperature).softmax(1)


def _log_choose(n: float, k: Tensor) -> Tensor:
    """Approximate ln C(n, k) by Stirling's formula without the root, n ln n - k ln k - (n - k) ln(n - k), as released."""
    whole, k = torch.full_like(k, n) + _NEARLY_0, k + _NEARLY_0
    return whole * whole.log() - k * k.log() - (whole - k) * (whole - k + _NEARLY_0).log()
