"""Wrappers that predict twice, or with several networks, and tell how far apart the predictions are."""

from collections.abc import Sequence
from enum import StrEnum
from math import lcm
from typing import Any

import torch
from torch import Tensor, nn

from depthkit.checks import check_choice
from depthkit.errors import LabelError, RecipeError
from depthkit.models.networks.flip import FlipAverage
from depthkit.models.uncertainty.members import reduced
from depthkit.models.wrapped import WrappedDepth
from depthkit.resize import as_maps, canonical_focal_of, interpolate, multiple_of, shown_part
from depthkit.types import Ambiguity, Representation


class Uncertainty(StrEnum):
    """Where an uncertainty is from: the mirror image, other networks or other noise, or a part trained to predict it."""

    FLIP = "flip"
    ENSEMBLE = "ensemble"
    HEAD = "head"


class UncertainDepth(WrappedDepth):
    """A network in a wrapper that tells how uncertain its map is. Subclasses give ``members``.

    Arguments and attributes of ``WrappedDepth``.

    Attributes:
        gives_uncertainty: true.

    Raises:
        LabelError: the representation or ambiguity is not known.
    """

    gives_uncertainty = True

    def __init__(
        self, model: nn.Module, *, ambiguity: Ambiguity | None = None, representation: Representation | None = None
    ) -> None:
        super().__init__(model, ambiguity=ambiguity, representation=representation)
        if self.ambiguity is None:
            raise LabelError(
                "expected to be told what the maps leave undetermined, without which they cannot be compared; "
                f"{type(model).__name__} does not say it. Pass ambiguity=."
            )

    def with_uncertainty(self, image: Tensor, shown: tuple[int, int] | None = None) -> tuple[Tensor, Tensor]:
        """Predict the map, and its uncertainty as the package's docstring says, ``(B, 1, h, w)`` each.

        Args:
            image: RGB in [0, 1], ``(B, 3, H, W)``.
            shown: (height, width) [px] of the image without what was added to it; what shows more is cropped from both.
        """
        seen = image.shape[-2], image.shape[-1]
        one, members = self.members(image)
        own, *others = (shown_part(x, seen, shown or seen) for x in (one, *members))
        mean, distance = reduced(others, self.ambiguity, self.representation)
        return self.chosen(own, mean), distance

    def members(self, image: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        """Predict the map that the network itself returns, and those that are compared, ``(B, 1, h, w)`` each."""
        raise NotImplementedError

    def chosen(self, own: Tensor, mean: Tensor) -> Tensor:
        """Return the network's own map, or the mean of all."""
        return own

    def forward(self, image: Tensor) -> Tensor:
        """Predict the map, ``(B, 1, h, w)``."""
        return self.with_uncertainty(image)[0]


class FlipUncertainty(UncertainDepth):
    """A network, and how far its map is from that of the mirror image, mirrored back: one more prediction, for any network.

    The map is the network's own, unchanged; that of a ``FlipAverage`` is its average, from the same two predictions. Arguments
    and attributes of ``UncertainDepth``.

    Example:
        >>> class Brightness(nn.Module):
        ...     representation = Representation.DISPARITY
        ...     def forward(self, image):
        ...         return image.mean(1, keepdim=True)
        >>> image = torch.rand(1, 3, 4, 6)
        >>> depth, uncertainty = FlipUncertainty(Brightness(), ambiguity=Ambiguity.SCALE).with_uncertainty(image)
        >>> torch.equal(depth, Brightness()(image)), uncertainty.max().item()
        (True, 0.0)
    """

    def members(self, image: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        """Predict the image and its mirror image."""
        averaged: Any = self.model if isinstance(self.model, FlipAverage) else None
        model = self.model if averaged is None else averaged.model
        both = as_maps(model(torch.cat([image, image.flip(-1)])), 2 * len(image), type(model).__name__)
        seen, mirrored = both.chunk(2)
        pair = seen, mirrored.flip(-1)
        return seen if averaged is None else averaged.average(*pair), pair


class DepthEnsemble(UncertainDepth):
    """Several networks as one: the mean of their maps, and how far these are apart.

    Each sees the image at the size that the first one's rule makes of it.

    Args:
        models: two or more of one representation and ambiguity; what these leave undetermined is fitted to the first.
        ambiguity: as of ``UncertainDepth``.
        representation: as of ``UncertainDepth``.

    Raises:
        RecipeError: there is one alone.
        LabelError: they predict different things.
    """

    def __init__(
        self,
        models: Sequence[nn.Module],
        *,
        ambiguity: Ambiguity | None = None,
        representation: Representation | None = None,
    ) -> None:
        if len(models) < 2:
            raise RecipeError(f"expected two networks or more for an ensemble; got {len(models)}.")
        super().__init__(models[0], ambiguity=ambiguity, representation=representation)
        self.others = nn.ModuleList(models[1:])
        for other in models[1:]:
            kind = getattr(other, "ambiguity", self.ambiguity), getattr(other, "representation", self.representation)
            if kind != (self.ambiguity, self.representation):
                raise LabelError(
                    f"expected an ensemble of networks that predict {self.ambiguity} {self.representation}, as the first does; "
                    f"got one of {kind[0]} {kind[1]}. Leave it out."
                )
            if canonical_focal_of(other) != self.canonical_focal:
                raise LabelError(
                    f"expected an ensemble of one canonical focal length, {self.canonical_focal} as of the first; "
                    f"got one of {canonical_focal_of(other)}. Leave it out."
                )
        self.size_multiple = lcm(*map(multiple_of, models))

    def members(self, image: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        """Predict with each network, at the size of the first one's map."""
        first, *others = (as_maps(x(image), len(image), type(x).__name__) for x in (self.model, *self.others))
        size = first.shape[-2], first.shape[-1]
        same = [x if x.shape == first.shape else interpolate(x, size, "bilinear") for x in others]
        return first, [first, *same]

    def chosen(self, own: Tensor, mean: Tensor) -> Tensor:
        """Return the mean."""
        return mean


def uncertain(
    model: Any,
    kind: Uncertainty | str,
    *,
    others: Sequence[nn.Module] = (),
    ambiguity: Ambiguity | None = None,
    representation: Representation | None = None,
) -> Any:
    """Return a network that tells how uncertain each pixel is.

    Args:
        model: the network.
        kind: "flip" compares with the mirror image, see ``FlipUncertainty``; "ensemble" with ``others``, see ``DepthEnsemble``,
            or, of a latent diffusion model, the members of its ``sampling``; "head" takes what the network predicts itself, see
            ``heteroscedastic``.
        others: further networks of an ensemble.
        ambiguity: what the maps leave undetermined; default ``model.ambiguity``.
        representation: of the maps; default ``model.representation``.

    Raises:
        RecipeError: an unknown kind, or the network does not have it.
        LabelError: members of an ensemble predict different things, or what they predict is not known.
    """
    kind = check_choice("uncertainty", kind, Uncertainty)
    if others and kind != Uncertainty.ENSEMBLE:
        raise RecipeError(f"expected further networks for an ensemble alone; got {len(others)} for {kind}. Leave them out.")
    if kind == Uncertainty.FLIP:
        return FlipUncertainty(model, ambiguity=ambiguity, representation=representation)
    if kind == Uncertainty.ENSEMBLE and others:
        return DepthEnsemble([model, *others], ambiguity=ambiguity, representation=representation)
    several = hasattr(model, "sampling") or isinstance(model, DepthEnsemble)
    if getattr(model, "gives_uncertainty", False) and several == (kind == Uncertainty.ENSEMBLE):
        return model
    name = type(model.model if isinstance(model, FlipAverage) else model).__name__
    if kind == Uncertainty.ENSEMBLE:
        remedy = "Give its sampling 3 members or more" if several else "Give further networks, or take flip"
        raise RecipeError(f"expected several networks, or a diffusion model of several members; got one {name}. {remedy}.")
    raise RecipeError(
        f"expected a network that was trained to predict its uncertainty; got a {name} without such a part, or averaged with "
        "its mirror image, which has none. Train it with MetricModule(uncertainty_weight=1), leave out flip, or ask for flip."
    )
