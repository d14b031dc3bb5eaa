"""DIML's indoor RGB-D set (Cho et al. 2021), by Kinect v2.

Under the root lie ``train`` and ``test``, each with ``HR`` (1344 x 756) and ``LR`` (512 x 288), and in them a folder per kind
of room with ``color/NAME_c.png`` and ``depth_filled/NAME_depth_filled.png``. This is how the published sample of 1,609 and 503
images is packed. How all 220,000 are packed could not be found out: other folders are refused.
"""

from pathlib import Path

from depthkit.convert.records.dataset import Dataset
from depthkit.convert.records.files import folders_with, read_png16
from depthkit.convert.records.record import Annotation, Record, Records, check_folder, paired, wrong_layout
from depthkit.errors import RecipeError
from depthkit.shards import DepthFormat, Reject
from depthkit.types import Ambiguity, LabelKind, Representation

MILLIMETRE = 0.001
RESOLUTIONS = ("HR", "LR")


def diml_indoor(root: str | Path, split: str, *, resolution: str = "HR") -> Records:
    """Read the images of a split, by room.

    Args:
        root: folder of ``train`` and ``test``.
        split: one of them.
        resolution: ``HR`` or ``LR``.

    Raises:
        DepthKitError: the folder is not laid out like this.
        RecipeError: there is no such resolution.
    """
    root = Path(root)
    if resolution not in RESOLUTIONS:
        raise RecipeError(f"expected resolution among {', '.join(RESOLUTIONS)}; got {resolution}. Choose one of them.")
    check_folder(root, "DIML's train and test")
    top = f"{split}/{resolution}"
    places = folders_with(root / top, "color")
    if not places:
        raise wrong_layout(f"{top}/ROOM/color and depth_filled", root)
    found: list[Record] = []
    rejects: list[Reject] = []
    for place in places:
        here, alone = paired(root, f"{top}/{place}/color", f"{top}/{place}/depth_filled", _depth_name, place)
        found += here
        rejects += alone
    return Records(root, tuple(found), _KIND, tuple(rejects), _read_depth)


def _depth_name(stem: str) -> str | None:
    return f"{stem.removesuffix('_c')}_depth_filled.png" if stem.endswith("_c") else None


def _read_depth(root: Path, frame: Record, size: tuple[int, int]) -> Annotation:
    assert frame.label
    codes = read_png16(root / frame.label)
    return Annotation(codes * MILLIMETRE, (codes > 0) & (codes <= 65500))


_KIND = LabelKind(Ambiguity.METRIC, Representation.DEPTH)
DATASETS = (
    Dataset(
        name="diml_indoor",
        read=diml_indoor,
        layout="train|test/HR|LR/ROOM/ with color/ and depth_filled/",
        kind=_KIND,
        unit="depth in millimetres, holes filled by its authors",
        invalid="0, and above 65500",
        sky="indoors",
        camera="not in the archive",
        source="Cho et al. 2021, the published sample; 220K in full as counted by Ranftl et al. 2022",
        licence="research only, as its page states",
        published={"train": 1609, "test": 503},
        total=220_000,
        splits="the authors'",
        test="tests/convert/test_diml_indoor.py",
        depth_format=DepthFormat.PNG_LINEAR16,
    ),
)
