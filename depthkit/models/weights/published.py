"""Published networks by name: their files, builders, outputs, and their authors' rules."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from depthkit.resize import InputResize, OutputResize
from depthkit.types import Ambiguity, Representation

_MIDAS = "https://github.com/isl-org/MiDaS/releases/download"
_GP2 = "https://github.com/saic-vul/geometry-preserving-de/releases/download/v1.0"
_MONODEPTH2 = "https://storage.googleapis.com/niantic-lon-static/research/monodepth2"
_FREE, _FORBIDS = ("MIT", "Apache-2.0"), ("non-commercial", "CC BY-NC 4.0")


@dataclass(frozen=True)
class PublishedNetwork:
    """Facts of a published network.

    Attributes:
        name: for ``from_pretrained``.
        place: an address of a file; ``hub:ORG/NAME/FILE`` for a file on the Hugging Face hub; ``diffusers:ORG/NAME`` or
            ``transformers:ORG/NAME`` for a folder there, in the format of that package.
        source: publisher of the weights, see ``load_published``; empty for a folder.
        builder: function of ``depthkit.models`` that builds the network; empty for a folder.
        arguments: of the builder; of a folder of diffusers the settings of ``Sampling``.
        checksum: ``md5:...`` or ``sha256:...`` of the file, or its first digits, if the authors give it; else the checksum
            of the first download is recorded and checked afterwards.
        licence: of the weights; ``?`` if the authors do not say.
        licence_code: of the authors' code.
        representation: of the output.
        ambiguity: what the output leaves undetermined.
        input_rule: its authors' rule for resizing the image; None if its processor or ``processing_size`` decides.
        output_rule: its authors' rule for resizing its map to the image's size; None if they give none.
        flip: whether its authors average its map with that of the mirrored image.
        protocols: beginning of the names of the protocols that reproduce its paper's figures.
        paper: authors, venue and year.
    """

    name: str
    place: str
    source: str
    builder: str
    licence: str
    licence_code: str
    representation: Representation
    ambiguity: Ambiguity
    paper: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    checksum: str = ""
    input_rule: InputResize | None = None
    output_rule: OutputResize | None = None
    flip: bool = False
    protocols: str = ""

    @property
    def restricted(self) -> bool:
        """Whether the licence of the weights is not known to allow commercial use."""
        return self.licence not in _FREE

    @property
    def terms(self) -> str:
        """Licence in a sentence."""
        said = "forbids commercial use" if self.licence in _FORBIDS else "is to be read before use"
        return f"The weights of {self.name} have the licence {self.licence!r}, which {said}."


def _midas() -> list[PublishedNetwork]:
    shared: dict[str, Any] = {
        "licence": "MIT",
        "licence_code": "MIT",
        "representation": Representation.DISPARITY,
        "ambiguity": Ambiguity.SHIFT_SCALE,
        "output_rule": OutputResize(mode="bicubic"),
    }
    first = {**shared, "source": "midas", "protocols": "midas_10", "paper": "Ranftl et al., TPAMI 2020"}
    large, small = InputResize(384, "upper_bound"), InputResize(256, "upper_bound")
    found = [
        PublishedNetwork("midas_v21", f"{_MIDAS}/v2_1/midas_v21_384.pt", builder="midas_resnext101", input_rule=large, **first),
        PublishedNetwork(
            "midas_v21_small", f"{_MIDAS}/v2_1/midas_v21_small_256.pt", builder="midas_small", input_rule=small, **first
        ),
        PublishedNetwork(
            "midas_v2",
            f"{_MIDAS}/v2/model-f46da743.pt",
            builder="midas_resnext101",
            input_rule=large,
            checksum="sha256:f46da743",
            **first,
        ),
    ]
    third = {**shared, "source": "", "builder": "", "protocols": "midas_11"}
    third["paper"] = "Ranftl et al., ICCV 2021; Birkl et al., 2023"
    for name, hub, rule in (
        ("dpt_large", "dpt-large", InputResize(384, "minimal")),
        ("dpt_hybrid", "dpt-hybrid-midas", InputResize(384, "minimal")),
        ("dpt_beit_large_512", "dpt-beit-large-512", InputResize(512, "minimal")),
        ("dpt_swin2_large_384", "dpt-swinv2-large-384", InputResize((384, 384), "stretch")),  # its windows take no other
        ("dpt_swin2_tiny_256", "dpt-swinv2-tiny-256", InputResize((256, 256), "stretch")),
    ):
        found.append(PublishedNetwork(name, f"transformers:Intel/{hub}", input_rule=rule, **third))
    return found


def _gp2() -> list[PublishedNetwork]:
    builders: dict[str, tuple[str, str, dict[str, Any]]] = {"mobilenetv2": ("mn", "lrn_mobilenetv2", {})}
    for size in ("lite0", *(f"b{k}" for k in range(6))):
        builders[size] = (size, f"lrn_efficientnet_{size}", {"released_taps": True})
    return [
        PublishedNetwork(
            f"gp2_{name}",
            f"{_GP2}/{file}_lrn4.pth",
            "gp2",
            builder,
            "?",
            "?",
            Representation.LOG_DISPARITY,
            Ambiguity.SCALE,
            "Romanov et al., 2020",
            arguments,
            input_rule=InputResize(384, "lower_bound", interpolation="bilinear"),
            output_rule=OutputResize(),
            protocols="gp2_uts",
        )
        for name, (file, builder, arguments) in builders.items()
    ]


_MD5 = {
    "mono_640x192": "a964b8356e08a02d009609d9e3928f7c",
    "stereo_640x192": "3dfb76bcff0786e4ec07ac00f658dd07",
    "mono_stereo_640x192": "c024d69012485ed05d7eaa9617a96b81",
    "mono_no_pt_640x192": "9c2f071e35027c895a4728358ffc913a",
    "stereo_no_pt_640x192": "41ec2de112905f85541ac33a854742d1",
    "mono_stereo_no_pt_640x192": "46c3b824f541d143a45c37df65fbab0a",
    "mono_1024x320": "0ab0766efdfeea89a0d9ea8ba90e1e63",
    "stereo_1024x320": "afc2f2126d70cf3fdf26b550898b501a",
    "mono_stereo_1024x320": "cdc5fc9b23513c07d5b19235d9ef08f7",
    "mono_resnet50_640x192": "",
    "mono_resnet50_no_pt_640x192": "",
    "mono_odom_640x192": "",
    "mono_stereo_odom_640x192": "",
}
"""Monodepth2's files; an empty string where the authors give no checksum."""


def _monodepth2() -> list[PublishedNetwork]:
    found = []
    for name, md5 in _MD5.items():
        width, height = map(int, name.rpartition("_")[2].split("x"))
        stereo = "stereo" in name
        found.append(
            PublishedNetwork(
                f"monodepth2_{name}",
                f"{_MONODEPTH2}/{name.replace('mono_stereo', 'mono%2Bstereo')}.zip",
                "monodepth2",
                "monodepth2_resnet50" if "resnet50" in name else "monodepth2_resnet18",
                "non-commercial",
                "non-commercial",
                Representation.DISPARITY,
                Ambiguity.METRIC if stereo else Ambiguity.SCALE,
                "Godard et al., ICCV 2019",
                # a stereo baseline of 0.54 m is 0.1 in training, so that metres are 5.4 times as many
                {"min_depth": 0.54, "max_depth": 540.0} if stereo else {},
                checksum=f"md5:{md5}" if md5 else "",
                input_rule=InputResize((height, width), "stretch", interpolation="lanczos"),
                output_rule=OutputResize(),
                protocols="monodepth2_",
            )
        )
    return found


def _depth_anything() -> list[PublishedNetwork]:
    found, sizes = [], (("small", "vits", "Small"), ("base", "vitb", "Base"), ("large", "vitl", "Large"))
    rule = InputResize(518, "lower_bound", 14)
    relative: dict[str, Any] = {"representation": Representation.DISPARITY, "ambiguity": Ambiguity.SHIFT_SCALE}
    metric: dict[str, Any] = {"representation": Representation.DEPTH, "ambiguity": Ambiguity.METRIC}
    space = "https://huggingface.co/spaces/LiheYoung/Depth-Anything/resolve/main"
    first: dict[str, Any] = {"licence": "Apache-2.0", "licence_code": "Apache-2.0", "paper": "Yang et al., CVPR 2024"}
    first["output_rule"] = OutputResize()
    second: dict[str, Any] = {"source": "depth_anything", "licence_code": "Apache-2.0", "paper": "Yang et al., NeurIPS 2024"}
    second |= {"input_rule": rule, "output_rule": OutputResize(align_corners=True)}
    for size, vit, hub in sizes:
        builder, licence = f"dpt_dinov2_{size}", "Apache-2.0" if size == "small" else "CC BY-NC 4.0"
        found.append(
            PublishedNetwork(
                f"depth_anything_v1_{size}",
                f"{space}/checkpoints/depth_anything_{vit}14.pth",
                "depth_anything",
                builder,
                arguments={"hooks": "v1"},
                input_rule=rule,
                protocols="depth_anything_",
                **first,
                **relative,
            )
        )
        found.append(
            PublishedNetwork(
                f"depth_anything_v2_{size}",
                f"hub:depth-anything/Depth-Anything-V2-{hub}/depth_anything_v2_{vit}.pth",
                builder=builder,
                licence=licence,
                arguments={"hooks": "v2"},
                protocols="depth_anything_v2_",
                **second,
                **relative,
            )
        )
        for data, written, reach in (("hypersim", "Hypersim", 20.0), ("vkitti", "VKITTI", 80.0)):
            found.append(
                PublishedNetwork(
                    f"depth_anything_v2_metric_{data}_{size}",
                    f"hub:depth-anything/Depth-Anything-V2-Metric-{written}-{hub}/depth_anything_v2_metric_{data}_{vit}.pth",
                    builder=builder,
                    licence=licence,
                    arguments={"hooks": "v2", "max_depth": reach},
                    protocols="depth_anything_v2_",
                    **second,
                    **metric,
                )
            )
    evaluated = {**first, "output_rule": OutputResize(align_corners=True), "flip": True}
    for scene in ("indoor", "outdoor"):  # of one configuration, that without bounds, as their commands evaluate both
        found.append(
            PublishedNetwork(
                f"depth_anything_v1_metric_{scene}",
                f"{space}/checkpoints_metric_depth/depth_anything_metric_depth_{scene}.pt",
                "zoedepth",
                "zoedepth",
                arguments={"base": "dpt_dinov2_large"},
                input_rule=InputResize((392, 518), "stretch", 14, "bilinear", align_corners=True),
                protocols="zoedepth_",
                **evaluated,
                **metric,
            )
        )
    return found


def _folders() -> list[PublishedNetwork]:
    depth = Representation.DEPTH
    none: dict[str, Any] = {"source": "", "builder": ""}
    found = [
        PublishedNetwork(
            f"zoedepth_{name}",
            f"transformers:Intel/zoedepth-{hub}",
            licence="MIT",
            licence_code="MIT",
            representation=depth,
            ambiguity=Ambiguity.METRIC,
            paper="Bhat et al., 2023",
            input_rule=InputResize(side, "minimal", interpolation="bilinear", align_corners=True, padding=3.0),
            output_rule=OutputResize(mode="bicubic"),
            flip=True,
            protocols="zoedepth_",
            **none,
        )
        for name, hub, side in (("n", "nyu", (384, 512)), ("k", "kitti", (384, 768)), ("nk", "nyu-kitti", (384, 512)))
    ]
    first, second = "Ke et al., CVPR 2024", "Martin Garcia et al., WACV 2025"
    once = {"steps": 1, "noise": "zeros"}
    for name, place, licence, paper, sampling in (
        ("marigold_v1_1", "prs-eth/marigold-depth-v1-1", "RAIL++-M", "Ke et al., 2025", {"steps": 4}),
        ("marigold_v1_0", "prs-eth/marigold-depth-v1-0", "Apache-2.0", first, {"steps": 50, "members": 10}),
        ("marigold_e2e_ft", "GonzaloMG/marigold-e2e-ft-depth", "?", second, once),
        ("stable_diffusion_e2e_ft", "GonzaloMG/stable-diffusion-e2e-ft-depth", "?", second, once),
    ):
        found.append(
            PublishedNetwork(
                name,
                f"diffusers:{place}",
                licence=licence,
                licence_code="?" if sampling is once else "Apache-2.0",
                representation=depth,
                ambiguity=Ambiguity.SHIFT_SCALE,
                paper=paper,
                arguments=sampling,
                protocols="marigold_",
                **none,
            )
        )
    return found


PUBLISHED: Mapping[str, PublishedNetwork] = MappingProxyType(
    {entry.name: entry for entry in (*_midas(), *_gp2(), *_monodepth2(), *_depth_anything(), *_folders())}
)
"""Facts of every published network that ``from_pretrained`` knows by name."""


_NOT_HERE = {
    "levit": "MiDaS 3.1's LeViT runs in its authors' code alone. ",
    "next_vit": "MiDaS 3.1's Next-ViT runs in its authors' code alone. ",
    "giant": "The giant network of Depth Anything V2 was not published. ",
    "vitg": "The giant network of Depth Anything V2 was not published. ",
}


def near(name: str) -> str:
    """Return a sentence with the published names that are nearest to one, or why it is not here; empty if none is near."""
    plain = name.lower().replace("-", "_")
    if why := next((why for part, why in _NOT_HERE.items() if part in plain), ""):
        return why
    found = ", ".join(difflib.get_close_matches(name, PUBLISHED, 3, 0.4))
    return f"Near it: {found}. " if found else ""
