"""The mean over images of what every metric of uncertainty computes for each."""

from torch import Tensor

from depthkit.masked import per_image
from depthkit.metrics.exact import ExactSums


class UncertaintyMetric(ExactSums):
    """A number or curve per image, and its mean over images, float64. Subclasses give ``values``.

    Args:
        shape: of the values of an image.

    Attributes:
        n_images: images scored, int64.
        n_left_out: images left out because nothing in them was valid, int64.
        last: values of the images of the latest ``update``, ``(B, *shape)``.
    """

    full_state_update = False
    last: Tensor
    total: Tensor
    n_images: Tensor
    n_left_out: Tensor

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.add_sum("total", *shape)
        self.add_count("n_images")
        self.add_count("n_left_out")

    def values(self, pred: Tensor, target: Tensor, valid: Tensor, uncertainty: Tensor) -> Tensor:
        """Compute the values of each image of a batch, float64 ``(B, *shape)``; any value where nothing is valid."""
        raise NotImplementedError

    def update(self, preds: Tensor, target: Tensor, valid: Tensor, uncertainty: Tensor) -> None:
        """Add a batch.

        Args:
            preds: predicted depth [m], ``(B, 1, H, W)``.
            target: labelled depth [m], ``(B, 1, H, W)``; any value where not valid.
            valid: bool, ``(B, 1, H, W)``.
            uncertainty: ``(B, 1, H, W)``.

        Raises:
            ShapeError: the maps do not fit together.
        """
        self.last = self.values(preds, target, valid, uncertainty)
        scored = valid.flatten(1).any(1)
        self.accumulate("total", self.last.where(per_image(scored, self.last), 0).sum(0))
        self.accumulate("n_images", scored.sum())
        self.accumulate("n_left_out", (~scored).sum())

    def mean(self) -> Tensor:
        """Average the values of everything seen, float64; NaN if no image was scored."""
        return self.total / self.n_images

    def compute(self) -> Tensor:
        """Compute the metric over everything seen: by default the mean."""
        return self.mean()
