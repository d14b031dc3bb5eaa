"""Depth and sky by models of the ``transformers`` library, called as our networks are, on RGB in [0, 1]."""

import json
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from depthkit.checks import first_line, garbled, optional_import
from depthkit.errors import CheckpointError, LabelError
from depthkit.models.networks.heads import OutputConv
from depthkit.resize import InputResize, OutputResize
from depthkit.types import Ambiguity, LabelKind, Representation


class Output(StrEnum):
    """Outputs of depth models of ``transformers``, which call both ``predicted_depth``."""

    DISPARITY = "disparity"
    DEPTH = "depth"


_KINDS = {
    Output.DISPARITY: LabelKind(Ambiguity.SHIFT_SCALE, Representation.DISPARITY),
    Output.DEPTH: LabelKind(Ambiguity.METRIC, Representation.DEPTH),
}
_METRIC = ("zoedepth", "depth_pro", "glpn", "prompt_depth_anything")
_DEFAULT_SIDE = 512  # px, of a segmentation model whose processor names no size


class _Transformers(nn.Module):
    """A model with its processor's normalisation and input size.

    Attributes:
        size: (height, width) [px] of its input, as its processor says.
        keep_aspect: whether an image keeps its aspect, scaled by the factor nearer to 1 that makes one side fit.
        size_multiple: both sides must be multiples of it [px].
    """

    image_mean: Tensor
    image_std: Tensor

    def __init__(self, model: nn.Module, processor: dict[str, Any]) -> None:
        super().__init__()
        self.model = model.eval()
        for name, default in (("mean", [0.485, 0.456, 0.406]), ("std", [0.229, 0.224, 0.225])):
            values = torch.tensor(processor.get(f"image_{name}") or default).view(1, 3, 1, 1)
            self.register_buffer(f"image_{name}", values, persistent=False)
        size = processor.get("size") or {}
        size = {"height": size, "width": size} if isinstance(size, int) else size
        side = size.get("shortest_edge", _DEFAULT_SIDE)
        self.size = int(size.get("height", side)), int(size.get("width", side))
        self.keep_aspect = bool(processor.get("keep_aspect_ratio", False))
        config: Any = model.config
        backbone = getattr(config, "backbone_config", None)
        patch = getattr(backbone, "patch_size", None) or getattr(config, "patch_size", None)
        self.size_multiple = patch if isinstance(patch, int) else int(processor.get("ensure_multiple_of") or 1)

    def normalised(self, image: Tensor) -> Tensor:
        """Normalise images as in the model's training."""
        return (image - self.image_mean) / self.image_std


class _Patches:
    """A hook that tells the stage which reassembles tokens how many patches lie along height and width."""

    grid = (0, 0)

    def __call__(self, stage: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return (inputs[0], *self.grid)


def _of_any_size(embeddings: Any, inputs: tuple[Tensor]) -> None:
    """Let DPT-Hybrid resize its positions, as it knows how to, instead of refusing images of another size."""
    embeddings.image_size = inputs[0].shape[-2:]


class TransformersDepth(_Transformers):
    """A depth network from an ``AutoModelForDepthEstimation``.

    Args:
        model: the model.
        processor: the content of its ``preprocessor_config.json``.
        output: what the model returns under the name ``predicted_depth``: a relative model disparity up to scale and shift, a
            metric one depth [m]. It must agree with the model's configuration.

    Attributes:
        input_rule: what the model's processor does to the size of an image.
        output_rule: what it does to the map's, if that differs from ``OutputResize()``.

    Raises:
        LabelError: ``output`` is None, or contradicts the model's configuration.
    """

    def __init__(self, model: nn.Module, processor: dict[str, Any], *, output: Output | str | None) -> None:
        super().__init__(model, processor)
        said = _own_word(model.config)
        hint = f"This one calls itself {said[0]}: " if said else "Its model card says which; "
        if output is None or output not in _KINDS:
            raise LabelError(
                f"expected to be told what the teacher returns, disparity (a relative model) or depth (a metric one); got "
                f"{output}. {hint}give --output {said[1] if said else 'disparity or --output depth'}."
            )
        if said and said[1] != output:
            raise LabelError(
                f"expected --output {said[1]}, as this model calls itself {said[0]} in its configuration; got {output}. "
                "Labels of the wrong kind would turn near and far around: correct --output."
            )
        self.kind = _KINDS[Output(output)]
        self.representation, self.ambiguity = self.kind.representation, self.kind.ambiguity
        config: Any = model.config
        self.input_rule = self._rule(processor, zoedepth=getattr(config, "model_type", "") == "zoedepth")
        if self.input_rule.padding:
            self.output_rule = OutputResize(mode="bicubic")
        _leave_autocast(model)
        # DPT without a backbone of its own takes the grid of its patches for square, and one of the two refuses others
        self.patches = _Patches() if getattr(model, "backbone", self) is None and hasattr(model, "neck") else None
        if self.patches is not None:
            network: Any = model
            network.neck.reassemble_stage.register_forward_pre_hook(self.patches)
            network.dpt.embeddings.register_forward_pre_hook(_of_any_size)
        # ZoeDepth's network of two scenes lets the images of a batch vote for one
        self.one_by_one = len(getattr(config, "bin_configurations", None) or ()) > 1

    def _rule(self, processor: dict[str, Any], *, zoedepth: bool) -> InputResize:
        """Read the rule of the processor, which differs from its own in that pictures are not rounded to 8 bits."""
        rule = "minimal" if self.keep_aspect else "stretch"
        multiple = max(int(processor.get("ensure_multiple_of") or 1), 1)
        if zoedepth:
            padding = 3.0 if processor.get("do_pad", True) else 0.0
            return InputResize(self.size, rule, multiple, "bilinear", align_corners=True, padding=padding)
        bilinear = processor.get("resample") == 2  # Pillow's number
        return InputResize(self.size, rule, multiple, "bilinear" if bilinear else "bicubic", antialias=True)

    def forward(self, image: Tensor) -> Tensor:
        """Predict the map ``(B, 1, h, w)`` of RGB in [0, 1], ``(B, 3, h, w)``."""
        if self.patches is not None:
            self.patches.grid = image.shape[-2] // self.size_multiple, image.shape[-1] // self.size_multiple
        parts = image.split(1) if self.one_by_one else [image]
        return torch.cat([self.model(pixel_values=self.normalised(part)).predicted_depth for part in parts])[:, None]


def _leave_autocast(model: nn.Module) -> None:
    """Let the convolutions of a model's heads leave autocast, as depthkit's own: a map in bfloat16 has 8 bits."""
    for name, head in model.named_children():
        if "head" in name:
            for layer in head.modules():
                if type(layer) is nn.Conv2d:
                    layer.__class__ = OutputConv


class TransformersSky(_Transformers):
    """A sky detector: the class ``sky`` of an ``AutoModelForSemanticSegmentation``.

    Args:
        model: the model.
        processor: the content of its ``preprocessor_config.json``.

    Raises:
        CheckpointError: the model has no class of this name.
    """

    def __init__(self, model: nn.Module, processor: dict[str, Any]) -> None:
        super().__init__(model, processor)
        names = {number: str(name).lower() for number, name in model.config.id2label.items()}  # type: ignore[union-attr,operator]
        found = [int(number) for number, name in names.items() if name == "sky" or name.startswith(("sky,", "sky-"))]
        if len(found) != 1:
            raise CheckpointError(
                f"expected a segmentation model with a class 'sky'; this one knows {', '.join(list(names.values())[:5])}, ... "
                "Choose one trained on ADE20K or Cityscapes."
            )
        self.sky = found[0]

    def forward(self, image: Tensor) -> Tensor:
        """Predict the probability of sky, ``(B, 1, h', w')`` in [0, 1], of RGB in [0, 1], ``(B, 3, h, w)``."""
        return self.model(pixel_values=self.normalised(image)).logits.float().softmax(1)[:, self.sky : self.sky + 1]


def load_depth(
    name: str, *, output: Output | str | None, revision: str | None = None, cache_dir: str | Path | None = None
) -> TransformersDepth:
    """Load a depth model of ``transformers`` from a folder or a hub id.

    Args:
        name: folder written by ``save_pretrained``, or hub id.
        output: see ``TransformersDepth``; None takes it from the model's configuration.
        revision: branch, tag or commit on the hub.
        cache_dir: folder of downloads.

    Raises:
        MissingPackageError: ``transformers`` is not installed.
        CheckpointError: there is no such model, or it cannot be reached.
        LabelError: see ``TransformersDepth``.
    """
    hub = {"revision": revision, "cache_dir": cache_dir}
    model, processor = _load(name, "AutoModelForDepthEstimation", "depth", hub)
    said = _own_word(model.config) if output is None else None
    with garbled(f"the preprocessor_config.json of {name}", CheckpointError, "Get it again."):
        return TransformersDepth(model, processor, output=said[1] if said else output)


def load_sky(name: str) -> TransformersSky:
    """Load a segmentation model of ``transformers`` from a folder or a hub id.

    Raises:
        CheckpointError: as of ``load_depth``, or the model has no class sky.
    """
    model, processor = _load(name, "AutoModelForSemanticSegmentation", "segmentation")
    with garbled(f"the preprocessor_config.json of {name}", CheckpointError, "Get it again."):
        return TransformersSky(model, processor)


def _own_word(config: Any) -> tuple[str, Output] | None:
    """Read from a model's configuration whether it is relative or metric, and its output."""
    said = getattr(config, "depth_estimation_type", None)
    if said == "metric" or (said is None and getattr(config, "model_type", "") in _METRIC):
        return "metric", Output.DEPTH
    return ("relative", Output.DISPARITY) if said == "relative" else None


def _load(name: str, factory: str, what: str, hub: Mapping[str, Any] | None = None) -> tuple[nn.Module, dict[str, Any]]:
    if (name.startswith((".", "/", "~")) or name.count("/") != 1) and not (Path(name).expanduser() / "config.json").is_file():
        raise CheckpointError(
            f"expected a {what} model of transformers at {name}: a folder with config.json, or a hub id such as "
            "depth-anything/Depth-Anything-V2-Small-hf. Check the path."
        )
    transformers = optional_import("transformers", "transformers")
    place = str(Path(name).expanduser()) if (Path(name).expanduser() / "config.json").is_file() else name
    try:
        model, report = getattr(transformers, factory).from_pretrained(place, output_loading_info=True, **(hub or {}))
        processor = _processor(place, hub or {})
    except Exception as error:  # the package, its parser of weights and the hub's client have classes of their own
        raise CheckpointError(
            f"expected a {what} model of transformers at {name}; it cannot be had ({first_line(error)}). "
            "Without a connection to the hub, give a folder that save_pretrained wrote."
        ) from error
    if missing := sorted(map(str, (*report["missing_keys"], *report.get("mismatched_keys", ())))):
        raise CheckpointError(
            f"expected all weights of the {what} model {name}; {len(missing)} are missing, such as {missing[0]}, and would be "
            "random. Choose a model that was trained for this."
        )
    return model, processor


def _processor(place: str, hub: Mapping[str, Any]) -> dict[str, Any]:
    """Read ``preprocessor_config.json``."""
    folder = Path(place)
    if folder.is_dir():
        file = folder / "preprocessor_config.json"
    else:
        from huggingface_hub import hf_hub_download

        file = Path(hf_hub_download(place, "preprocessor_config.json", **hub))
    if not file.is_file():
        raise OSError(f"{file.name} is missing, which says at what size and how normalised it wants images")
    return dict(json.loads(file.read_text()))
