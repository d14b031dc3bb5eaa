"""From any image to its map, at the image's own size."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, Self

import numpy as np
import torch
from rich.progress import track
from torch import Tensor, nn

from depthkit.checks import check_device
from depthkit.errors import DepthKitError, LabelError, PredictionError, ShapeError
from depthkit.evaluation import InputResize
from depthkit.evaluation.resize import interpolate
from depthkit.inference.images import as_image, find_images, read_image
from depthkit.inference.prediction import Prediction
from depthkit.models import FlipAverage, LatentDiffusionDepth, read_checkpoint
from depthkit.representation import convert
from depthkit.types import REPRESENTATIONS, Ambiguity, Representation

Source = str | Path | np.ndarray | Tensor
Precision = Literal["32", "bf16", "16"]
_AUTOCAST = {"bf16": torch.bfloat16, "16": torch.float16}


class Written(NamedTuple):
    """What ``DepthPredictor.write`` did: files written, and why others could not be read, by their path."""

    files: list[Path]
    broken: dict[Path, str]


class _Loaded(NamedTuple):
    name: str
    image: Tensor
    size: tuple[int, int]


class DepthPredictor:
    """Predicts depth on images of any size.

    Args:
        model: network; called on float RGB in [0, 1], ``(B, 3, h, w)``, and returning ``(B, 1, h', w')``.
        ambiguity: what its predictions leave undetermined; a disparity up to scale and shift has no depth.
        representation: what its numbers are; default ``model.representation``.
        resize: size at which the network sees an image; default: ``model.processing_size`` [px] along the longer side if the
            network has one, else about ``384 x 384`` pixels in the image's aspect.
        device: where it runs; default where the model is.
        precision: of the network: ``"32"``, or autocast to ``"bf16"`` or ``"16"``; maps are float32 in any case.

    Raises:
        LabelError: the representation is unknown.

    Example:
        >>> class Brightness(nn.Module):
        ...     representation = Representation.DISPARITY
        ...     def forward(self, image):
        ...         return image.mean(1, keepdim=True)
        >>> prediction = DepthPredictor(Brightness(), ambiguity=Ambiguity.SHIFT_SCALE)(np.zeros((31, 47, 3), np.uint8))
        >>> prediction.map.shape, prediction.representation.value
        ((31, 47), 'disparity')
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        ambiguity: Ambiguity,
        representation: Representation | None = None,
        resize: InputResize | None = None,
        device: torch.device | str | None = None,
        precision: Precision = "32",
    ):
        found = getattr(model, "representation", None) if representation is None else representation
        if found not in REPRESENTATIONS:
            raise LabelError(
                f"expected the representation of the model's output, one of {', '.join(REPRESENTATIONS)}; got {found!r}. "
                "Pass representation=."
            )
        if precision not in ("32", *_AUTOCAST):
            raise ShapeError(f"expected precision '32', 'bf16' or '16'; got {precision!r}.")
        own = next((x.device for x in (*model.parameters(), *model.buffers())), torch.device("cpu"))
        self.device = own if device is None else check_device(device)
        self.model = model.to(self.device).eval()
        if self.device.type == "cpu" and isinstance(model, LatentDiffusionDepth):
            self.model.to(memory_format=torch.channels_last)  # a tenth faster; on CUDA group norms would undo it
        self.representation, self.ambiguity = Representation(found), Ambiguity(ambiguity)
        self.resize = resize or own_resize(model)
        self.precision = precision

    @classmethod
    def from_checkpoint(
        cls,
        path: str | Path,
        *,
        allow: Sequence[str] = (),
        resize: InputResize | None = None,
        device: torch.device | str | None = None,
        precision: Precision = "32",
        flip: bool = False,
    ) -> Self:
        """The predictor of a checkpoint written by ``depthkit fit``, or of a folder with a latent diffusion model.

        Args:
            path: the ``.ckpt`` file, or the folder, see ``depthkit.models.latent_diffusion``.
            allow: further names that may be imported to build the network, see ``read_checkpoint``.
            resize: default: as many pixels as the training images had, in the image's own aspect; for a folder what it says.
            device: default the CPU.
            precision: of the network.
            flip: also predict the mirror image and average, see ``depthkit.models.FlipAverage``.

        Raises:
            CheckpointError: the file is missing, unreadable, or does not fit the network it describes.
        """
        model, ambiguity, size = read_checkpoint(path, allow=allow)
        if resize is None and size is not None:
            resize = InputResize((size[0] * size[1]) ** 0.5, "area", antialias=True)
        model = FlipAverage(model) if flip else model
        return cls(model, ambiguity=ambiguity, resize=resize, device=device, precision=precision)

    def __call__(
        self, source: Source | Sequence[Source], *, batch_size: int = 1, progress: bool = True
    ) -> Prediction | list[Prediction]:
        """Predict one image, or a list of them.

        Args:
            source: an image file, array ``(H, W, 3)`` or tensor ``(3, H, W)`` (uint8, or floating point in [0, 1]); or a list
                of such; or a folder, which stands for the images in it.
            batch_size: neighbours whose network size is equal run together, up to this many.
            progress: show a progress bar for lists and folders.

        Returns:
            One prediction for one image, at its size; a list for a list or a folder. For more than memory holds, use
            ``stream`` or ``write``.

        Raises:
            ShapeError: a source is no readable image.
            PredictionError: the network returned NaN or infinity.
        """
        if isinstance(source, str | Path) and Path(source).is_dir():
            source = list(find_images(source))
        if isinstance(source, list | tuple):
            stream = self.stream(source, batch_size=batch_size)
            return list(track(stream, "predicting", total=len(source), disable=not progress))
        return next(self.stream([source]))  # type: ignore[list-item]

    def stream(
        self,
        sources: Iterable[Source],
        *,
        batch_size: int = 1,
        on_error: Callable[[Source, DepthKitError], None] | None = None,
    ) -> Iterator[Prediction]:
        """Predictions one by one in the order of ``sources``; memory holds one batch.

        Args:
            sources: as in ``__call__``.
            batch_size: as in ``__call__``.
            on_error: told of each source that cannot be read, which is then passed over; None raises.
        """
        waiting: list[_Loaded] = []
        for source in sources:
            try:
                loaded = self._load(source)
            except DepthKitError as error:
                if on_error is None:
                    raise
                on_error(source, error)
                continue
            if waiting and (len(waiting) == batch_size or waiting[0].size != loaded.size):
                yield from self._predict(waiting)
                waiting = []
            waiting.append(loaded)
        if waiting:
            yield from self._predict(waiting)

    def write(
        self,
        source: str | Path | Sequence[str | Path],
        out: str | Path,
        *,
        suffix: Literal[".png", ".npy"] = ".png",
        colour: bool = True,
        batch_size: int = 1,
        progress: bool = True,
    ) -> Written:
        """Predict files and write each map, and a coloured picture of it, under the name of its image.

        Args:
            source: an image file, a folder, or a list of files. A folder's inner folders are kept.
            out: folder to write to.
            suffix: of the maps, see ``Prediction.save``.
            colour: also write ``<name>.colour.png``.
            batch_size: as in ``__call__``.
            progress: show a progress bar.

        Returns:
            The files written, and the sentence about each file that could not be read; the others are not held up by it.
        """
        root = Path(source) if isinstance(source, str | Path) else None
        files = find_images(root) if root and root.is_dir() else [root] if root else [Path(file) for file in source]  # type: ignore[union-attr]
        base = root if root and root.is_dir() else None
        names = {file: (file.relative_to(base) if base else Path(file.name)) for file in files}
        taken = Counter(name.with_suffix("") for name in names.values())
        written: list[Path] = []
        broken: dict[Path, str] = {}
        stream = self.stream(
            track(files, "predicting", disable=not progress),
            batch_size=batch_size,
            on_error=lambda file, error: broken.update({Path(str(file)): str(error)}),
        )
        for prediction in stream:
            name = names[Path(prediction.name)]
            stem = Path(out) / (name.with_suffix("") if taken[name.with_suffix("")] == 1 else name)
            written.append(prediction.save(stem.with_name(stem.name + suffix)))
            if colour:
                written.append(prediction.save_colour(stem.with_name(stem.name + ".colour.png")))
        return Written(written, broken)

    def _load(self, source: Source) -> _Loaded:
        name = str(source) if isinstance(source, str | Path) else "image"
        image = as_image(read_image(source) if isinstance(source, str | Path) else source)
        multiple = int(getattr(self.model, "size_multiple", 1))
        return _Loaded(name, image, self.resize.size(image.shape[-2], image.shape[-1], multiple))

    @torch.inference_mode()
    def _predict(self, batch: Sequence[_Loaded]) -> Iterator[Prediction]:
        multiple = int(getattr(self.model, "size_multiple", 1))
        images = torch.cat([self.resize(x.image.to(self.device), multiple) for x in batch])
        dtype = _AUTOCAST.get(self.precision)
        with torch.autocast(self.device.type, dtype, enabled=dtype is not None):
            maps, spreads = _maps_of(self.model, images)
        if maps.shape[:2] != (len(batch), 1):
            raise ShapeError(f"expected the model to return ({len(batch)}, 1, h, w); got {tuple(maps.shape)}.")
        for loaded, depth_map, spread in zip(batch, maps, spreads, strict=True):
            if not depth_map.isfinite().all():
                raise PredictionError(
                    f"{loaded.name}: expected a finite prediction; the network returned NaN or infinity. "
                    "With precision '16' or 'bf16' it may have overflowed: try '32'."
                )
            size, own = (loaded.image.shape[-2], loaded.image.shape[-1]), self.representation
            space = getattr(self.model, "resize_space", own)
            full = convert(interpolate(convert(depth_map[None], own, space), size, "bilinear"), space, own)
            picture = (loaded.image[0] * 255).round().byte().permute(1, 2, 0).cpu().numpy()
            uncertainty = None if spread is None else interpolate(spread[None], size, "bilinear")[0, 0].cpu().numpy()
            yield Prediction(full[0, 0].cpu().numpy(), own, self.ambiguity, picture, name=loaded.name, uncertainty=uncertainty)


def own_resize(model: nn.Module) -> InputResize:
    """The size at which a network sees images unless told otherwise, see ``DepthPredictor``."""
    side = getattr(model, "processing_size", None)
    if side is None:
        return InputResize(384, "area", antialias=True)
    multiple = int(getattr(model, "size_multiple", 1))
    return InputResize(side or 1, "upper_bound" if side else "native", multiple, "bilinear", antialias=True)


def _maps_of(model: nn.Module, images: Tensor) -> tuple[Tensor, Sequence[Tensor | None]]:
    """The maps, and how uncertain each is if the model is an ensemble."""
    if isinstance(model, LatentDiffusionDepth) and model.sampling.members > 1:
        return model.with_uncertainty(images)  # type: ignore[return-value]
    return model(images).float(), [None] * len(images)
