"""Predictors: from any image to its map, at the image's own size."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from PIL import Image
from rich.progress import track
from torch import Tensor, nn

from depthkit.checks import check_choice, check_device
from depthkit.errors import CheckpointError, DepthKitError, GeometryError, PredictionError
from depthkit.images import as_image, find_images, read_image
from depthkit.inference.cameras import UNKNOWN, Cameras, Intrinsics, four_numbers
from depthkit.inference.film.frames import Footage, Frame, OnError, ahead, with_motion
from depthkit.inference.film.stabilise import Stabiliser
from depthkit.inference.outputs import COLOUR, OutputNames
from depthkit.inference.prediction import MapFormat, Prediction
from depthkit.models import Uncertainty, flip_averaged, from_pretrained, uncertain
from depthkit.precision import Precision
from depthkit.resize import (
    InputResize,
    NativeMap,
    OutputResize,
    check_finite,
    in_metres,
    input_rule_of,
    multiple_of,
    network_map,
    output_rule_of,
    representation_of,
    resized_map,
    resized_spread,
)
from depthkit.types import Ambiguity, Representation

Source = str | Path | Image.Image | np.ndarray | Tensor
_AUTOCAST = {Precision.BF16: torch.bfloat16, Precision.FLOAT16: torch.float16}


class Written(NamedTuple):
    """Result of ``DepthPredictor.write``: the files written, and by path the reason why others could not be read."""

    files: list[Path]
    broken: dict[Path, str]


class Loaded(NamedTuple):
    """An image to predict.

    Attributes:
        name: of it.
        image: RGB ``(1, 3, H, W)``, uint8 or floating point.
        size: (height, width) at the network [px].
        intrinsics: ``(3, 3)`` [px], if they are known.
        seen: as the input rule makes it, ``(1, 3, h, w)``, if that is done already.
    """

    name: str
    image: Tensor
    size: tuple[int, int]
    intrinsics: np.ndarray | None = None
    seen: Tensor | None = None


class DepthPredictor:
    """A network that predicts depth on images of any size.

    Args:
        model: network; called on float RGB in [0, 1], ``(B, 3, h, w)``; returns ``(B, 1, h', w')``.
        ambiguity: what its predictions leave undetermined; a disparity up to scale and shift has no depth.
        representation: of its maps; default ``model.representation``.
        input_rule: size at which the network sees an image; default ``depthkit.resize.input_rule_of(model)``: the network's
            own ``input_rule`` or ``processing_size``, else about ``384 x 384`` pixels in the image's aspect.
        output_rule: how its map is resized to the image's size; default the network's own ``output_rule``, else bilinear.
        device: of the network; default the model's.
        precision: of the network: ``"32"``, or autocast to ``"bf16"`` or ``"16"``; maps are float32 in any case.
        uncertainty: where to have it from, "flip", "ensemble" or "head", see ``depthkit.models.uncertain``; None: only from a
            network that gives it anyway. An ensemble of several networks is a ``DepthEnsemble`` as ``model``.

    Raises:
        LabelError: the representation is unknown.
        RecipeError: an unknown precision, a device that this machine does not have, or an uncertainty that the network has not.

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
        input_rule: InputResize | None = None,
        output_rule: OutputResize | None = None,
        device: torch.device | str | None = None,
        precision: Precision | str = Precision.FLOAT32,
        uncertainty: Uncertainty | str | None = None,
    ):
        found = representation_of(model, representation)
        if uncertainty is not None:
            model = uncertain(model, uncertainty, ambiguity=ambiguity, representation=found)
        own = next((x.device for x in (*model.parameters(), *model.buffers())), torch.device("cpu"))
        self.device = own if device is None else check_device(device)
        self.model = model.to(self.device).eval()
        self.representation, self.ambiguity = found, Ambiguity(ambiguity)
        self.input_rule, self.output_rule = input_rule or input_rule_of(model), output_rule or output_rule_of(model)
        self.precision = check_choice("precision", precision, Precision)

    def to(self, device: torch.device | str) -> Self:
        """Move the network to a device; return the predictor."""
        self.device = check_device(device)
        self.model.to(self.device)
        return self

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path,
        *,
        allow: Sequence[str] = (),
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        flip: bool | None = None,
        **options: Any,
    ) -> Self:
        """Return the predictor of the network that a MODEL names.

        Args:
            model: a checkpoint, a folder, or the name of a published network, see ``depthkit.models.from_pretrained``.
            allow: further names that may be imported to build a checkpoint's network, see ``read_checkpoint``.
            revision: branch, tag or commit on the hub.
            cache_dir: where downloads are kept.
            flip: also predict the mirror image and average, see ``depthkit.models.FlipAverage``; None as the authors do.
            options: ``input_rule``, ``output_rule``, ``device``, ``precision`` and ``uncertainty`` of the predictor. By default
                the rules are those of the network's authors; of a checkpoint, as many pixels as the training images had, in the
                image's own aspect; the device is the CPU.

        Raises:
            CheckpointError: there is no such network, or it cannot be had or read.
        """
        network: Any = from_pretrained(model, allow=allow, revision=revision, cache_dir=cache_dir)
        return cls(flip_averaged(network, flip), ambiguity=network.ambiguity, **options)

    @classmethod
    def from_checkpoint(cls, path: str | Path, **options: Any) -> Self:
        """Return the predictor of a run's checkpoint, or of a file of ``save_network``; a name is none.

        Args:
            path: the file.
            options: of ``from_pretrained``.

        Raises:
            CheckpointError: there is no such file, or it is no checkpoint.
        """
        if not Path(path).is_file():
            raise CheckpointError(f"expected the file of a checkpoint; got {path}. For a published name use from_pretrained.")
        return cls.from_pretrained(path, **options)

    def __call__(
        self,
        source: Source | Sequence[Source],
        *,
        intrinsics: Intrinsics | None = None,
        batch_size: int = 1,
        progress: bool = True,
    ) -> Prediction | list[Prediction]:
        """Predict one image, or a list of them.

        Args:
            source: an image file, image of Pillow, array ``(H, W, 3)`` or tensor ``(3, H, W)`` (uint8, or floating point in
                [0, 1]); a list of these; or a folder for all images in it.
            intrinsics: of all images, ``(3, 3)`` or fx, fy, cx, cy [px]; by default looked for in ``intrinsics.json`` beside an
                image's file, and in its EXIF. A network with a canonical focal length needs them.
            batch_size: greatest number of successive images of equal network size that run together.
            progress: show a progress bar for lists and folders.

        Returns:
            One prediction for one image, at its size; a list for a list or a folder. ``stream`` and ``write`` serve more images
            than memory holds.

        Raises:
            ShapeError: a source is not a readable image.
            PredictionError: the network returned NaN or infinity.
        """
        if isinstance(source, str | Path) and Path(source).is_dir():
            source = list(find_images(source))
        if isinstance(source, list | tuple):
            stream = self.stream(source, intrinsics=intrinsics, batch_size=batch_size)
            return list(track(stream, "predicting", total=len(source), disable=not progress))
        return next(self.stream([source], intrinsics=intrinsics))  # type: ignore[list-item]

    def stream(
        self,
        sources: Iterable[Source],
        *,
        intrinsics: Intrinsics | None = None,
        batch_size: int = 1,
        on_error: Callable[[Source, DepthKitError], None] | None = None,
    ) -> Iterator[Prediction]:
        """Predict one by one in the order of ``sources``; memory holds one batch.

        Args:
            sources: as in ``__call__``.
            intrinsics: as in ``__call__``.
            batch_size: as in ``__call__``.
            on_error: called with each source that cannot be read, which is then skipped; None raises.
        """
        cameras = _cameras(intrinsics)

        def loaded() -> Iterator[Loaded]:
            for source in sources:
                try:
                    yield self._load(source, cameras)
                except DepthKitError as error:
                    if on_error is None:
                        raise
                    on_error(source, error)

        for batch in grouped(loaded(), batch_size):
            yield from self.predictions(batch, self.maps(batch))

    def video(
        self,
        source: str | Path | Iterable[Source],
        *,
        stabilise: bool = True,
        intrinsics: Intrinsics | None = None,
        on_error: OnError | None = None,
    ) -> Iterator[Prediction]:
        """Predict a film frame by frame, without flicker; memory does not grow with its length.

        A frame's prediction waits for no later frame, so a camera's live frames will do. While the network looks at a frame,
        the next one is read and its optical flow found.

        Args:
            source: a film, a folder of images in the order of their names, or any iterable of images in the order of time.
            stabilise: see ``depthkit.inference.Stabiliser``; else every frame is predicted by itself.
            intrinsics: of all frames, ``(3, 3)`` or fx, fy, cx, cy [px]; by default looked for beside a folder's images.
            on_error: called with the name of each frame that cannot be read, or whose map is not finite, which is then left
                out; None raises.

        Raises:
            DepthKitError: there is no such film or folder, or PyAV is not installed.
            PredictionError: the network returned NaN or infinity.
        """
        footage = Footage(source, on_error=on_error)
        yield from self.frames(footage, stabilise=stabilise, cameras=_cameras(intrinsics), on_error=on_error)

    def frames(
        self,
        footage: Iterable[Frame],
        *,
        stabilise: bool = True,
        cameras: Cameras = UNKNOWN,
        on_error: OnError | None = None,
    ) -> Iterator[Prediction]:
        """Predict the frames of footage as ``video`` does."""
        stabiliser = Stabiliser() if stabilise else None
        for frame in ahead(with_motion(footage) if stabilise else footage):
            image = torch.from_numpy(frame.image).permute(2, 0, 1)[None]
            size = image.shape[-2], image.shape[-1]
            seen = self.input_rule.size(*size, multiple_of(self.model))
            loaded = Loaded(frame.name, image, seen, cameras.of(frame.file, size))
            try:
                prediction = next(self.predictions([loaded], self.maps([loaded])))
            except (PredictionError, GeometryError) as error:
                if on_error is None:
                    raise
                on_error(frame.name, error)
                continue
            yield prediction if stabiliser is None else stabiliser(prediction, frame.motion)

    def write(
        self,
        source: str | Path | Sequence[str | Path],
        out: str | Path,
        *,
        suffix: MapFormat | str = MapFormat.PNG,
        colour: bool = True,
        batch_size: int = 1,
        progress: bool = True,
    ) -> Written:
        """Predict files and write each map, and a coloured picture of it, under the name of its image.

        ``photo.jpg`` becomes ``photo.jpg.png`` and ``photo.jpg.colour.png``, see ``OutputNames``. Results of an earlier
        call are not predicted.

        Args:
            source: an image file, a folder, or a list of these. Inner folders are kept.
            out: folder to write to.
            suffix: ``.png`` or ``.npy`` for the maps, see ``Prediction.save``.
            colour: also write ``<name>.colour.png``.
            batch_size: as in ``__call__``.
            progress: show a progress bar.

        Returns:
            The files written, and a sentence about each file that could not be read.

        Raises:
            ShapeError: there is no image.
            RecipeError: an unknown suffix, or a result would overwrite an image or another result.
        """
        suffix = check_choice("suffix", suffix, MapFormat)
        sources = [source] if isinstance(source, str | Path) else source
        names = OutputNames(sources, out, (suffix, COLOUR) if colour else (suffix,))
        written: list[Path] = []
        broken: dict[Path, str] = {}
        stream = self.stream(
            track(names.files, "predicting", disable=not progress),
            batch_size=batch_size,
            on_error=lambda file, error: broken.update({Path(str(file)): str(error)}),
        )
        for prediction in stream:
            written.append(prediction.save(names(prediction.name, suffix)))
            if colour:
                written.append(prediction.save_colour(names(prediction.name, COLOUR)))
        return Written(written, broken)

    def _load(self, source: Source, cameras: Cameras) -> Loaded:
        file = source if isinstance(source, str | Path) else None
        image = as_image(source if file is None else read_image(file))
        size = image.shape[-2], image.shape[-1]
        seen = self.input_rule.size(*size, multiple_of(self.model))
        return Loaded("image" if file is None else str(file), image, seen, cameras.of(file, size))

    @torch.inference_mode()
    def maps(self, batch: Sequence[Loaded]) -> NativeMap:
        """Predict images of one network size, at that size."""
        images = torch.cat([self._seen(x) for x in batch])
        dtype = _AUTOCAST.get(self.precision)
        with torch.autocast(self.device.type, dtype, enabled=dtype is not None):
            return network_map(self.model, images, batch[0].size)

    def _seen(self, x: Loaded) -> Tensor:
        return self.input_rule(x.image.to(self.device), multiple_of(self.model)) if x.seen is None else x.seen

    @torch.inference_mode()
    def predictions(self, batch: Sequence[Loaded], found: NativeMap) -> Iterator[Prediction]:
        """Bring what ``maps`` found for a batch to the sizes of its images.

        Raises:
            GeometryError: a network with a canonical focal length, and an image without intrinsics.
            PredictionError: the network returned NaN or infinity.
        """
        for row, loaded in enumerate(batch):
            own, size = self.representation, (loaded.image.shape[-2], loaded.image.shape[-1])
            full = resized_map(
                found.map[row : row + 1],
                size,
                self.model,
                output_rule=self.output_rule,
                input_rule=self.input_rule,
                representation=own,
            )
            camera = loaded.intrinsics
            full = in_metres(
                full,
                self.model,
                own,
                None if camera is None else torch.as_tensor(camera, dtype=torch.float64)[None],
                size=size,
                seen=loaded.size,
                margins=self.input_rule.margins(*size),
            )
            check_finite(full, loaded.name)
            image = loaded.image[0]
            picture = (image if image.dtype == torch.uint8 else (image * 255).round().byte()).permute(1, 2, 0).cpu().numpy()
            spread = None
            if found.spread is not None:
                spread = resized_spread(found.spread[row : row + 1], size, self.input_rule)[0, 0].cpu().numpy()
            yield Prediction(
                full[0, 0].cpu().numpy(), own, self.ambiguity, picture, camera, name=loaded.name, uncertainty=spread
            )


def _cameras(intrinsics: Intrinsics | None) -> Cameras:
    return UNKNOWN if intrinsics is None else Cameras(four_numbers(intrinsics), whole=False)


def grouped(images: Iterable[Loaded], batch_size: int) -> Iterator[list[Loaded]]:
    """Cut images into batches of neighbours that have one size at the network."""
    waiting: list[Loaded] = []
    for image in images:
        if waiting and (len(waiting) == batch_size or waiting[0].size != image.size):
            yield waiting
            waiting = []
        waiting.append(image)
    if waiting:
        yield waiting
