"""Published checkpoints: rename their authors' weights and load them into our networks, completely or not at all."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

from torch import Tensor, nn

from depthkit.errors import CheckpointError
from depthkit.models.encoders.vit import PositionInterpolation, ViTEncoder
from depthkit.models.net import DepthNet
from depthkit.models.weights.convert_dpt import FUSION, Rules, from_depth_anything, from_transformers, from_zoedepth, renamed
from depthkit.models.weights.convert_gp2 import from_gp2
from depthkit.models.weights.files import check_fit, plain_network, plain_state

Converter = Callable[[Mapping[str, Any]], dict[str, Tensor]]

# layer1 of the released encoders is a sequence that begins with the stem.
_MIDAS_DECODER: Rules = (
    *FUSION,
    (r"scratch\.output_conv\.0\.", "head.reduce."),
    (r"scratch\.output_conv\.2\.", "head.refine."),
    (r"scratch\.output_conv\.4\.", "head.output."),
)
_MIDAS_RESNET: Rules = (
    (r"pretrained\.layer1\.0\.", "encoder.backbone.conv1."),
    (r"pretrained\.layer1\.1\.", "encoder.backbone.bn1."),
    (r"pretrained\.layer1\.4\.", "encoder.backbone.layer1."),
    *((rf"pretrained\.layer{k}\.", f"encoder.backbone.layer{k}.") for k in (2, 3, 4)),
)
_MIDAS_EFFICIENTNET: Rules = (
    (r"pretrained\.layer1\.0\.", "encoder.backbone.conv_stem."),
    (r"pretrained\.layer1\.1\.", "encoder.backbone.bn1."),
    *((rf"pretrained\.layer{k}\.{i}\.", f"encoder.backbone.blocks.{stage}.") for k, i, stage in (
        (1, 3, 0), (1, 4, 1), (2, 0, 2), (3, 0, 3), (3, 1, 4), (4, 0, 5), (4, 1, 6),
    )),
)  # fmt: skip


def _from_midas(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename weights of MiDaS v2, v2.1 large (ResNeXt-101) and v2.1 small (EfficientNet-Lite3)."""
    small = any(key.startswith("pretrained.layer1.3.") for key in state)  # a max-pooling without weights in the others
    return renamed(state, _MIDAS_DECODER + (_MIDAS_EFFICIENTNET if small else _MIDAS_RESNET))


# Every file of Monodepth2: its rules, and names in it that are no part of the network.
_MONODEPTH2_ENCODER: Rules = ((r"encoder\.", "encoder.backbone."),)
_MONODEPTH2_DECODER: Rules = tuple(
    (rf"decoder\.{2 * k + j}\.conv\.conv\.", f"decoder.up.{k}.{part}.")
    for k in range(5)
    for j, part in ((0, "reduce"), (1, "merge"))
)
_MONODEPTH2_POSE: Rules = tuple(
    (rf"net\.{k}\.", f"decoder.{part}.") for k, part in enumerate(("squeeze", "first", "second", "output"))
)
_MONODEPTH2_POSE_CNN: Rules = ((r"net\.", "convs."), (r"pose_conv\.", "output."))
_MONODEPTH2: Mapping[str, Rules] = {
    "encoder": _MONODEPTH2_ENCODER,
    "pose_encoder": _MONODEPTH2_ENCODER,
    "depth": _MONODEPTH2_DECODER + tuple((rf"decoder\.{10 + s}\.conv\.", f"head.output.{s}.") for s in range(4)),
    "predictive_mask": _MONODEPTH2_DECODER + tuple((rf"decoder\.{10 + s}\.conv\.", f"output.{s}.") for s in range(4)),
}


def _from_monodepth2(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Rename weights of Monodepth2's files: encoder and depth, pose_encoder and pose, pose, predictive_mask."""
    converted: dict[str, Tensor] = {}
    for file, weights in state.items():
        if not isinstance(weights, Mapping) or file not in ("pose", *_MONODEPTH2):
            raise CheckpointError(
                f"expected Monodepth2's files under their names, {', '.join(_MONODEPTH2)}, pose; got {file!r}. "
                'Pass for example {"encoder": torch.load("encoder.pth"), "depth": torch.load("depth.pth")}.'
            )
        pose = _MONODEPTH2_POSE_CNN if any(key.endswith("pose_conv.weight") for key in weights) else _MONODEPTH2_POSE
        converted |= renamed(_network_of(plain_state(weights)), _MONODEPTH2.get(file, pose))
    return converted


def _network_of(weights: Mapping[str, Any]) -> dict[str, Tensor]:
    """Drop the classifier and the training size from an encoder's file."""
    beside = ("encoder.fc.", "height", "width", "use_stereo")
    return {key: x for key, x in weights.items() if not key.startswith(beside)}


def _from_depth_anything(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Rename weights of Depth Anything, in its authors' names or those of the same file for transformers."""
    theirs = any(key.startswith("backbone.embeddings.") for key in state)
    return from_transformers(state) if theirs else from_depth_anything(state)


CONVERTERS: Mapping[str, Converter] = {
    "depth_anything": _from_depth_anything,
    "gp2": from_gp2,
    "midas": _from_midas,
    "monodepth2": _from_monodepth2,
    "transformers": from_transformers,
    "zoedepth": from_zoedepth,
}
"""Who published the checkpoint -> its state dict in the names of our networks."""
_POSITIONS: Mapping[str, PositionInterpolation] = {
    "depth_anything": PositionInterpolation.DINOV2,
    "zoedepth": PositionInterpolation.DINOV2,
    "transformers": PositionInterpolation.TRANSFORMERS,
}
# What a network of another build is told.
_BUILT = {
    "gp2": " (of an EfficientNet: with released_taps=True)",
    "zoedepth": " (with a depth_range if its bins are bounded: 32, 16, 8 and 2 outputs of the attractors; else without)",
}


def load_published(model: nn.Module, state_dict: Mapping[str, Any], *, source: str = "midas") -> None:
    """Load a published checkpoint into ``model``, in place, completely or not at all.

    The input's normalisation, and batch counters of BatchNorm that the checkpoint lacks, stay as they are. Weights nested
    under ``state_dict`` or ``model``, and names with ``module.`` or ``_orig_mod.``, are understood. "depth_anything" and
    "zoedepth" set the rule "dinov2" of ``ViTEncoder``, by which their authors resize position embeddings; "transformers" sets
    that package's.

    Args:
        model: a network of the same architecture: for "midas" ``midas_resnext101``,
            ``midas_small``, or ``midas_timm`` on a ResNet; for "gp2" ``lrn_mobilenetv2``, or ``lrn_efficientnet_*`` with
            ``released_taps=True``; for "monodepth2" ``monodepth2_timm`` on a ResNet, a pose network or a ``PredictiveMask``;
            for "depth_anything" and "transformers" ``dpt_dinov2_*``, with the ``hooks`` and ``max_depth`` of its training,
            which the weights do not reveal; for "zoedepth" ``zoedepth`` on these.
        state_dict: contents of the official file, for example ``torch.load(path, weights_only=True)``; of "monodepth2"
            of all files by name: ``{"encoder": ..., "depth": ...}``, ``{"pose_encoder": ..., "pose": ...}``,
            ``{"pose": ...}`` or ``{"predictive_mask": ...}``. Their ImageNet classifier and training size are not read.
        source: who published it: "midas" (v2 and v2.1, github.com/isl-org/MiDaS), "gp2"
            (github.com/SamsungLabs/geometry-preserving-de), "monodepth2" (github.com/nianticlabs/monodepth2), "depth_anything"
            (v1 and v2, relative and v2's metric ones, github.com/LiheYoung/Depth-Anything, also as transformers has them; its
            authors' positions), "transformers"
            (``DepthAnythingForDepthEstimation.state_dict()``) or
            "zoedepth" (Depth Anything v1's metric ones, or ``ZoeDepthForDepthEstimation.state_dict()`` on DINOv2).

    Raises:
        CheckpointError: an unknown source, or weights that do not fit; the message lists the first names that are missing,
            unexpected or of another shape, the attribute ``misfits`` all of them.
    """
    if source not in CONVERTERS:
        raise CheckpointError(
            f"expected a source among {', '.join(sorted(CONVERTERS))}; got {source!r}. Convert the weights first."
        )
    model = plain_network(model)
    expected = model.state_dict()
    converted = CONVERTERS[source](plain_state(state_dict))
    kept = {key: expected[key] for key in _never_published(expected) if key not in converted}
    check_fit(kept | converted, expected, f"{source} for this {type(model).__name__}{_BUILT.get(source, '')}")
    model.load_state_dict(kept | converted)
    if source in _POSITIONS and isinstance(encoder := getattr(model, "encoder", None), ViTEncoder):
        of_transformers = any(key.startswith("metric_head.") for key in plain_state(state_dict))
        rule = PositionInterpolation.TRANSFORMERS if of_transformers else _POSITIONS[source]
        encoder.position_interpolation = rule
        _remember_positions(cast(DepthNet, model).config, str(rule))


def _remember_positions(config: dict[str, Any] | None, rule: str) -> None:
    """Record the rule in the config from which a checkpoint of the network is rebuilt."""
    while config is not None and "base" in config:  # ZoeDepth's
        base = config["base"]
        config["base"] = config = {"architecture": base} if isinstance(base, str) else base
    if config is not None:
        config["position_interpolation"] = rule


def _never_published(names: Iterable[str]) -> list[str]:
    return [key for key in names if key in ("mean", "std") or key.endswith(".num_batches_tracked")]
