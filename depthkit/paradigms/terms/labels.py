"""Labels of a batch in the representation of a loss, checks of losses, and means over images of all ranks."""

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, distributed

from depthkit.errors import LabelError
from depthkit.masked import masked_count, masked_range, masked_sum, per_image
from depthkit.precision import in_float32
from depthkit.representation import convert_rows
from depthkit.types import AMBIGUITIES, REPRESENTATIONS, Ambiguity, Batch, LabelKind, Representation

DENSE = frozenset({Ambiguity.METRIC, Ambiguity.SCALE, Ambiguity.SHIFT_SCALE})
"""Ambiguities of a label with a value per pixel."""


def readable(ambiguities: Collection[Ambiguity]) -> frozenset[LabelKind]:
    """List the label kinds that ``labels`` can read: labels up to shift and scale only as disparity."""
    anything = {LabelKind(a, r) for a in ambiguities if a != Ambiguity.SHIFT_SCALE for r in Representation}
    affine = {LabelKind(Ambiguity.SHIFT_SCALE, Representation.DISPARITY)} if Ambiguity.SHIFT_SCALE in ambiguities else set()
    return frozenset(anything | affine)


def labels(batch: Batch, representation: Representation, ambiguities: Collection[Ambiguity] = DENSE) -> tuple[Tensor, Tensor]:
    """Convert the labels of a batch to one representation, whatever representation each row is stored in.

    Args:
        batch: rows of any kind.
        representation: of the result.
        ambiguities: of the labels to read.

    Returns:
        Target, float32 ``(B, 1, H, W)``, and its mask, bool ``(B, 1, H, W)``: False in rows of another ambiguity, and where
        the label has no finite value in ``representation`` (a disparity up to shift and scale stays in disparity only).
    """
    stored = batch.representation == REPRESENTATIONS.index(representation)
    rows = torch.zeros_like(stored)
    for ambiguity in ambiguities:
        of_kind = batch.ambiguity == AMBIGUITIES.index(ambiguity)
        rows |= of_kind & stored if ambiguity == Ambiguity.SHIFT_SCALE else of_kind
    return convert_rows(batch.target, batch.valid & per_image(rows, batch.valid), batch.representation, representation)


def unit_range(target: Tensor, valid: Tensor) -> Tensor:
    """Move and scale labels to [0, 1] per image, as MiDaS does with ground-truth disparity (section 5).

    An aligned robust loss does not change; in a least-squares loss every image and dataset gets the same weight. A constant
    label becomes 0.

    Args:
        target: label, ``(B, 1, H, W)``; any value where not valid.
        valid: bool, ``(B, 1, H, W)``.
    """
    low, high = masked_range(target, valid)
    span = (high - low).where(high > low, 1)
    return ((target - per_image(low, target)) / per_image(span, target)).where(valid, 0)


def has_label(valid: Tensor) -> Tensor:
    """Tell which images have a valid pixel, bool ``(B,)``."""
    return masked_count(valid) > 0


@in_float32
def mean_over_images(per_image_loss: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
    """Average ``(B,)`` over the counted images of all ranks; return the mean and whether there is one, ``()`` each.

    On several ranks the returned means differ, and the average over ranks, which DDP takes of their gradients, is the mean
    over all images: the same gradient as one process with the whole batch, however labels are spread over ranks.
    """
    count = mean_over_ranks(counted.sum().to(per_image_loss.dtype))
    total = per_image_loss.where(counted, 0) @ counted[:, None].to(per_image_loss.dtype)
    return total[0] / count.where(count > 0, 1), count > 0


@in_float32
def mean_over_pixels(x: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Average ``(B, 1, H, W)`` over the valid pixels of all images of all ranks; return the mean and whether there is one.

    On several ranks the returned means differ, and their average is the mean over all pixels, as in ``mean_over_images``.
    """
    count = mean_over_ranks(masked_count(valid).sum().to(x.dtype))
    return masked_sum(x, valid).sum() / count.where(count > 0, 1), count > 0


def mean_over_ranks(x: Tensor) -> Tensor:
    """Average a tensor without gradient over all ranks; on one process return it as it is."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return x
    total = x.clone()
    distributed.all_reduce(total)
    return total / distributed.get_world_size()


def check_states(name: str, loss: Any) -> None:
    """Check that ``loss`` declares ``representation`` and ``accepts``."""
    if not (hasattr(loss, "representation") and hasattr(loss, "accepts")):
        raise LabelError(
            f"expected {name} to say what it reads; {type(loss).__name__} does not. Give it the attributes "
            "`representation` and `accepts`, as the losses of depthkit.losses have."
        )


def check_affine(name: str, loss: Any) -> None:
    """Check that ``loss``, if it declares what it reads, can use disparity up to shift and scale."""
    reads, accepted = getattr(loss, "representation", Representation.DISPARITY), getattr(loss, "accepts", frozenset(DENSE))
    if reads != Representation.DISPARITY or not accepted >= frozenset(DENSE):
        raise LabelError(
            f"expected {name} to read disparity up to shift and scale; {type(loss).__name__} reads {reads} of "
            f"{', '.join(sorted(accepted))} labels. Choose PairwiseL1SSILoss or SSILoss, for example."
        )


def check_label_kinds(kinds: Mapping[str, Collection[LabelKind]], accepted: Collection[LabelKind], paradigm: str) -> None:
    """Check that a paradigm learns from every label kind of its datasets.

    Args:
        kinds: label kinds of each training set, by its name.
        accepted: label kinds that the paradigm learns from.
        paradigm: name of its class, for the message.

    Raises:
        LabelError: a dataset holds labels of another kind.
    """
    for name, held in kinds.items():
        for kind in sorted(set(held) - set(accepted)):
            raise LabelError(
                f"dataset {name!r} holds {kind} labels; {paradigm} as configured learns from "
                f"{', '.join(sorted(map(str, accepted)))}. "
                "Leave the dataset out, convert its labels, or choose another paradigm or loss."
            )
