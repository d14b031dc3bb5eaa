"""What is left between a view and its neighbours warped into it: the training signal of video and stereo."""

from collections.abc import Callable
from enum import StrEnum
from functools import wraps
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy

from depthkit.checks import check_choice, check_image
from depthkit.errors import RecipeError, ShapeError
from depthkit.losses.photometric import PhotometricError, photometric_error
from depthkit.masked import masked_mean
from depthkit.precision import in_float32

PixelError = Callable[[Tensor, Tensor], Tensor]
TIE_BREAK = 1e-5
"""Standard deviation of the noise that decides between a source and its warp where both are the same."""


class SourceReduction(StrEnum):
    """How the errors of several sources become one."""

    MIN = "min"
    """The least, which forgives occlusion."""
    MEAN = "mean"
    """The mean, as before Monodepth2."""


class Reprojection(NamedTuple):
    """A loss and the maps behind it."""

    loss: Tensor
    """The loss per image, ``(B,)``."""
    error: Tensor
    """The error that each pixel contributes, ``(B, 1, H, W)``."""
    selected: Tensor
    """Which source each pixel learns from (0 for the mean of all), int64 ``(B, 1, H, W)``; -1 where it learns from none."""


@in_float32
def min_reprojection(
    target: Tensor,
    warped: Tensor,
    sources: Tensor,
    *,
    automask: bool = True,
    reduction: SourceReduction | str = SourceReduction.MIN,
    error: PixelError = photometric_error,
    mask_weight: float = 0.2,
    identity: Tensor | None = None,
    visible: Tensor | None = None,
    predictive_mask: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Reprojection:
    """Compute ``min_reprojection_loss`` with the maps behind it.

    Args:
        target: RGB in [0, 1] without colour augmentation, ``(B, 3, H, W)``.
        warped: each source seen from the target by predicted depth and pose, ``(B, S, 3, H, W)``.
        sources: the sources as they are, ``(B, S, 3, H, W)``.
        automask: let the unwarped sources compete.
        reduction: over sources: ``"min"``, which forgives occlusion, or ``"mean"``, as before Monodepth2.
        error: two images ``(B, S, 3, H, W)`` and ``(B, 1, 3, H, W)`` to errors ``(B, S, 1, H, W)``.
        mask_weight: weight of the term that draws ``predictive_mask`` to 1.
        identity: what ``source_errors`` gives for these images, ``(B, S, H, W)``, if it is known from another scale already.
        visible: where each source shows what the target pixel shows, bool ``(B, S, H, W)``, for example from ``inside_image``.
            None, as released: a pixel warped from beyond the border, or from behind the source camera, is compared with the
            border pixel it got. Otherwise a source takes no part where it is not visible, whatever ``warped`` holds there, and
            a pixel that no source shows has no gradient; without ``automask`` it leaves the mean.
        predictive_mask: in [0, 1], ``(B, S, H, W)``, multiplies the errors: the mask of Zhou et al. (2017), the baseline that
            ``automask`` replaced. Their cross-entropy against 1 is added.
        generator: source of the noise; on the device of ``target``.

    Returns:
        The loss per image with the maps behind it.

    Raises:
        ShapeError: the tensors are not of these shapes, or the images less than 2 pixels high or wide.
        RecipeError: unknown ``reduction``, or ``automask`` together with a predictive mask.
    """
    _check(target, warped, sources, visible, predictive_mask)
    reduction = check_choice("reduction", reduction, SourceReduction)
    if automask and predictive_mask is not None:
        raise RecipeError("expected either automask or a predictive mask; got both. Set automask to False.")
    if visible is not None:
        warped = warped.where(visible[:, :, None], target[:, None])  # nothing unseen enters a seen pixel's window
    errors = error(warped, target[:, None])[:, :, 0]
    if predictive_mask is not None:
        errors = errors * predictive_mask
    best, index = _over_sources(errors, reduction, visible)
    seen = torch.ones_like(best, dtype=torch.bool) if visible is None else visible.any(1, keepdim=True)
    if automask:
        if identity is None:
            identity = source_errors(target, sources, error=error)
        noise = torch.randn(_reduced(identity.shape, reduction), generator=generator, device=target.device, dtype=best.dtype)
        still = _over_sources(identity, reduction, None, noise=TIE_BREAK * noise)[0]
        selected = index.where(seen & (best < still), -1)
        least = torch.minimum(best, still).where(seen, still)
        loss = least.flatten(1).mean(1)
    else:
        selected, least = index.where(seen, -1), best.where(seen, 0)
        loss = masked_mean(least, seen)
    if predictive_mask is not None:
        surprise = binary_cross_entropy(predictive_mask, torch.ones_like(predictive_mask), reduction="none")
        loss = loss + mask_weight * surprise.flatten(1).mean(1)
    return Reprojection(loss, least, selected)


@wraps(min_reprojection, assigned=())
def min_reprojection_loss(*images: Tensor, **options: Any) -> Tensor:
    r"""Compute the minimum reprojection with automask of Godard et al. (2019), eqs 1 and 5, one value per image.

    .. math:: L = \overline{\min\bigl(\min_s pe(I_t, I_{s \to t}),\; \min_s pe(I_t, I_s)\bigr)}

    A pixel that a source matches better as it is than warped (a static camera, an object that moves along, plain texture) adds
    a constant: it has no gradient and stays in the mean. The unwarped errors carry noise of 1e-5, which breaks ties.

    Args:
        images: ``target``, ``warped`` and ``sources``.
        options: the same arguments as of ``min_reprojection``, which raises the same errors.

    Returns:
        Loss [1], ``(B,)``.

    Example:
        >>> target, sources = torch.rand(1, 3, 4, 4), torch.rand(1, 2, 3, 4, 4)
        >>> perfect = target[:, None].expand_as(sources)
        >>> min_reprojection_loss(target, perfect, sources)
        tensor([0.])
    """
    return min_reprojection(*images, **options).loss


@in_float32
def source_errors(target: Tensor, sources: Tensor, *, error: PixelError = photometric_error) -> Tensor:
    """Compare the sources as they are, ``(B, S, 3, H, W)``, with the target, ``(B, 3, H, W)``; errors are ``(B, S, H, W)``.

    They are the same at every scale that is compared at full resolution: compute them once and pass them as ``identity``.
    """
    with torch.no_grad():
        return error(sources, target[:, None])[:, :, 0]


def _over_sources(
    errors: Tensor, reduction: SourceReduction, visible: Tensor | None, noise: Tensor | float = 0.0
) -> tuple[Tensor, Tensor]:
    """Reduce over sources: error and which one it is of, ``(B, 1, H, W)`` each; 0 of a mean, anything where none is visible."""
    if reduction == SourceReduction.MIN:
        errors = errors if visible is None else errors.where(visible, torch.inf)
        best, index = (errors + noise).min(1, keepdim=True)
        return best, index
    if visible is None:
        mean = errors.mean(1, keepdim=True)
    else:  # every pixel is a row with one value per source
        rows = (x.movedim(1, -1).flatten(0, -2) for x in (errors, visible))
        mean = masked_mean(*rows).view_as(errors[:, :1])
    return mean + noise, torch.zeros_like(mean, dtype=torch.int64)


def _reduced(shape: torch.Size, reduction: SourceReduction) -> tuple[int, ...]:
    return tuple(shape) if reduction == SourceReduction.MIN else (shape[0], 1, *shape[2:])


def _check(target: Tensor, warped: Tensor, sources: Tensor, visible: Tensor | None, predictive_mask: Tensor | None) -> None:
    check_image("target", target)
    expected = (len(target), warped.shape[1] if warped.ndim > 1 else 0, *target.shape[1:])
    for name, x in (("warped", warped), ("sources", sources)):
        if tuple(x.shape) != expected or not expected[1]:
            raise ShapeError(
                f"expected {name} of shape (B, S, 3, H, W) with the target's B, H and W, {tuple(target.shape)}; "
                f"got {tuple(x.shape)}. Stack the sources on axis 1."
            )
    maps = (expected[0], expected[1], *expected[3:])
    for name, given in (("visible", visible), ("predictive_mask", predictive_mask)):
        if given is not None and (tuple(given.shape) != maps or (given.dtype == torch.bool) != (name == "visible")):
            kind = "bool" if name == "visible" else "float"
            raise ShapeError(f"expected {name} as {kind} of shape {maps}; got {given.dtype} of shape {tuple(given.shape)}.")


class MinReprojectionLoss(nn.Module):
    """``min_reprojection_loss`` with its options; rows of Monodepth2's ablation are choices of them.

    Args:
        error: the error per pixel; ``PhotometricError()`` by default.
        automask: let the unwarped sources compete.
        reduction: "min" or "mean" over sources.
        mask_weight: weight of the term that draws a predictive mask to 1.

    Raises:
        RecipeError: unknown ``reduction``.
    """

    def __init__(
        self,
        *,
        error: nn.Module | None = None,
        automask: bool = True,
        reduction: SourceReduction | str = SourceReduction.MIN,
        mask_weight: float = 0.2,
    ) -> None:
        super().__init__()
        self.error = PhotometricError() if error is None else error
        self.reduction = check_choice("reduction", reduction, SourceReduction)
        self.automask, self.mask_weight = automask, mask_weight

    def forward(self, target: Tensor, warped: Tensor, sources: Tensor, **given: Any) -> Tensor:
        """Compute the loss per image, ``(B,)``; ``given`` is what ``maps`` takes."""
        return self.maps(target, warped, sources, **given).loss

    def maps(self, target: Tensor, warped: Tensor, sources: Tensor, **given: Any) -> Reprojection:
        """Compute the loss per image with the maps behind it.

        Args:
            target: see ``min_reprojection``.
            warped: see ``min_reprojection``.
            sources: see ``min_reprojection``.
            given: ``identity``, ``visible``, ``predictive_mask`` and ``generator`` of ``min_reprojection``.
        """
        return min_reprojection(
            target,
            warped,
            sources,
            automask=self.automask,
            reduction=self.reduction,
            error=self.error,
            mask_weight=self.mask_weight,
            **given,
        )

    def identity(self, target: Tensor, sources: Tensor) -> Tensor:
        """Compute ``source_errors`` by this loss's error, ``(B, S, H, W)``."""
        return source_errors(target, sources, error=self.error)
