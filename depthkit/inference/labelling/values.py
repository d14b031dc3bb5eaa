"""Labels from a network's maps: a disparity in [0, 1], or a depth."""

import numpy as np
import torch

from depthkit.errors import LabelError, PredictionError
from depthkit.representation import convert_label
from depthkit.types import Ambiguity, LabelKind, Representation


def stored_kind(teacher: LabelKind) -> LabelKind:
    """Choose the label kind in which a teacher's predictions are stored.

    Disparity up to scale and shift stays as it is; all others become depth, metric or up to scale.

    Raises:
        LabelError: the teacher does not predict a dense label.

    Example:
        >>> str(stored_kind(LabelKind(Ambiguity.METRIC, Representation.LOG_DEPTH)))
        'metric depth'
    """
    if teacher.ambiguity in (Ambiguity.METRIC, Ambiguity.SCALE):
        return LabelKind(teacher.ambiguity, Representation.DEPTH)
    if teacher == LabelKind(Ambiguity.SHIFT_SCALE, Representation.DISPARITY):
        return teacher
    raise LabelError(
        f"expected a teacher of metric depth, depth up to scale or disparity up to scale and shift; got {teacher}. "
        "Its predictions are no labels: choose another teacher."
    )


def stored_label(
    values: np.ndarray, teacher: LabelKind, sky: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Convert one predicted map to a label, its valid pixels and the sky, float32, bool and bool ``(H, W)``.

    Disparity up to scale and shift is scaled to [0, 1], which loses nothing, and the sky becomes 0, the farthest (Depth
    Anything, section 3.1). In depth the sky becomes infinite. Both are valid.

    Args:
        values: map of the teacher, ``(H, W)``.
        teacher: label kind of the map.
        sky: bool ``(H, W)``; None if it is unknown.

    Raises:
        PredictionError: the map is not finite, has too little spread for a scale, or has no positive depth.

    Example:
        >>> label, valid, _ = stored_label(np.array([[2.0, 4.0, 6.0]]), LabelKind(Ambiguity.SHIFT_SCALE, "disparity"))
        >>> label.tolist(), valid.all()
        ([[0.0, 0.5, 1.0]], np.True_)
    """
    values = np.ascontiguousarray(values, np.float32)
    if not np.isfinite(values).all():
        raise PredictionError("expected a finite prediction; the teacher returned NaN or infinity. Try precision '32'.")
    seen = np.ones(values.shape, bool) if sky is None else ~sky
    if not seen.any():
        raise PredictionError(
            "expected an image with more than sky; all of it is sky, and a label of one value teaches nothing."
        )
    if teacher.ambiguity == Ambiguity.SHIFT_SCALE:
        low, high = values.min(where=seen, initial=np.inf), values.max(where=seen, initial=-np.inf)
        if not high > low:
            raise PredictionError(f"expected a disparity that varies; the teacher returned {low:g} at every pixel.")
        label = (values - low) / (high - low)
        return (label if sky is None else np.where(sky, np.float32(0), label)), np.ones(values.shape, bool), sky
    depth, valid = convert_label(torch.from_numpy(values), torch.from_numpy(seen), teacher.representation, Representation.DEPTH)
    if not bool(valid.any()):
        raise PredictionError("expected a prediction with positive depth; no pixel has one.")
    if sky is None:
        return depth.numpy(), valid.numpy(), None
    return np.where(sky, np.float32(np.inf), depth.numpy()), valid.numpy() | sky, sky
