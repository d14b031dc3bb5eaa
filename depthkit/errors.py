"""The errors a user can cause. Each is also a ``ValueError`` and says: expected, got, where, what to do."""

from collections.abc import Mapping, Sequence


class DepthKitError(ValueError):
    """Base of every error that depthkit raises about its input."""


class ShapeError(DepthKitError):
    """A tensor or image has a size or dtype that the function cannot take."""


class LabelError(DepthKitError):
    """A label's ambiguity or representation does not fit the loss, model or protocol that reads it."""


class GeometryError(DepthKitError):
    """Camera facts (intrinsics, poses, baseline) are missing or contradict the image."""


class PredictionError(DepthKitError):
    """A model's output is not a map that can be scored: not finite, or without a value in the representation needed."""


class TrainingError(DepthKitError):
    """Training broke down: its weights are no longer finite."""


class ShardError(DepthKitError):
    """A shard, its index or a sample in it cannot be written, read or trusted."""


class CheckpointError(DepthKitError):
    """Weights do not fit the model, or cannot be found or read.

    Attributes:
        misfits: all names that do not fit, by kind ("missing", "unexpected", "of another shape"), if names are the reason.
    """

    misfits: Mapping[str, Sequence[str]] = {}


class RecipeError(DepthKitError):
    """A recipe names an object or a setting that does not exist, or settings that contradict each other."""


class MissingPackageError(DepthKitError):
    """An optional package is needed that is not installed."""
