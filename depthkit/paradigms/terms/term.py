"""Terms: the summands of an objective, and their exact means over images, pixels and ranks."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from depthkit.errors import ShapeError
from depthkit.masked import masked_count, masked_sum
from depthkit.paradigms.terms.labels import mean_over_images, mean_over_pixels, mean_over_ranks
from depthkit.precision import in_float32


class Term(NamedTuple):
    """One summand of an objective.

    Attributes:
        values: one per image, ``(B,)``, or per pixel, ``(B, 1, H, W)``.
        counted: mask of the values that the mean counts, bool of the same shape.
        weight: factor in the sum; a term of weight 0 is logged and teaches nothing.
    """

    values: Tensor
    counted: Tensor
    weight: float = 1.0


def check_terms(terms: Mapping[str, Term], images: int, owner: str) -> None:
    """Check that every term has a value per image, or per pixel with its mask.

    Raises:
        ShapeError: a term has another shape; the message names the module, the term and the shape.
    """
    if not terms:
        raise ShapeError(f"expected at least one term from {owner}.losses; got none. Return {{name: Term(values, counted)}}.")
    for name, term in terms.items():
        shape = tuple(term.values.shape)
        per_pixel = len(shape) == 4 and shape[:2] == (images, 1) and tuple(term.counted.shape) == shape
        if not per_pixel and (shape != (images,) or tuple(term.counted.shape) != shape):
            raise ShapeError(
                f"expected term {name!r} of {owner}.losses of shape ({images},), a value per image, or (B, 1, H, W) with its "
                f"mask, and counted of the same shape; got {shape} and {tuple(term.counted.shape)}. Reduce a loss to one "
                "value per image, for example with depthkit.masked.masked_mean."
            )
        if term.counted.dtype != torch.bool:
            raise ShapeError(
                f"expected counted of term {name!r} of {owner}.losses as a bool mask; got {term.counted.dtype}. "
                "Compare it, for example counted > 0."
            )


def mean_of(term: Term) -> tuple[Tensor, Tensor]:
    """Average a term over what it counts on all ranks; return the mean ``()`` and whether anything is counted.

    On several ranks the returned means differ, and their average, which DDP takes of their gradients, is the mean over all.
    """
    return (mean_over_images if term.values.ndim == 1 else mean_over_pixels)(term.values, term.counted)


@in_float32
def means_per_group(term: Term, group: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Average a term within each group of images, as ``mean_of`` does over all.

    Args:
        term: the term.
        group: int64 ``(B,)`` in ``[0, groups)``, for example ``Batch.dataset``.
        groups: number of groups ``K``.

    Returns:
        Means ``(K,)``, 0 for an absent group, and whether the group has a counted value on any rank, bool ``(K,)``.
    """
    pixels = term.values.ndim == 4
    sums = masked_sum(term.values, term.counted) if pixels else term.values.where(term.counted, 0)
    counts = (masked_count(term.counted) if pixels else term.counted).to(sums.dtype)
    member = torch.nn.functional.one_hot(group, groups).to(sums.dtype)
    count = mean_over_ranks(counts @ member)
    return sums @ member / count.where(count > 0, 1), count > 0
