"""ReDWeb (Xian et al. 2018): relative disparity of stereo photos from the web.

Under the root lie ``Imgs/NAME.jpg`` and ``RDs/NAME.png``, 8 bits, where closer is darker and 255 means "no value", as Ranftl et
al. read them (maintainers' remarks in their repository, thread 16).
"""

from pathlib import Path

import numpy as np

from depthkit.convert.records.dataset import Dataset
from depthkit.convert.records.files import read_grey
from depthkit.convert.records.record import Annotation, Record, Records, check_folder, held_out, paired, wrong_layout
from depthkit.types import Ambiguity, LabelKind, Representation

NO_VALUE = 255


def redweb(root: str | Path, split: str, *, holdout: float = 0.1) -> Records:
    """Read the images of a split, by name. Disparity is in 0 to 1; closer is larger.

    Args:
        root: folder of ``Imgs`` and ``RDs``.
        split: ``train`` or ``val``.
        holdout: share of the images that are for validation; see ``held_out``.

    Raises:
        DepthKitError: the folder is not laid out like this.
    """
    root = Path(root)
    check_folder(root, "ReDWeb's Imgs and RDs")
    if not (root / "Imgs").is_dir() or not (root / "RDs").is_dir():
        raise wrong_layout("Imgs and RDs", root)
    found, rejects = paired(root, "Imgs", "RDs", "{}.png".format, "redweb")
    validating = split == "val"
    here = tuple(frame for frame in found if held_out(frame.key, holdout) == validating)
    return Records(root, here, _KIND, tuple(r for r in rejects if held_out(r.name, holdout) == validating), _read_disparity)


def _read_disparity(root: Path, frame: Record, size: tuple[int, int]) -> Annotation:
    assert frame.label
    codes = read_grey(root / frame.label)
    return Annotation(1 - codes / np.float32(NO_VALUE), codes < NO_VALUE)


_KIND = LabelKind(Ambiguity.SHIFT_SCALE, Representation.DISPARITY)
DATASETS = (
    Dataset(
        name="redweb",
        read=redweb,
        layout="Imgs/ and RDs/",
        kind=_KIND,
        unit="1 - value / 255 is relative disparity",
        invalid="255",
        sky="not marked; as labelled",
        camera="unknown",
        source="Xian et al. 2018; values as Ranftl et al. read them",
        licence="research only, as its page states",
        published={"train": None, "val": None},
        total=3600,
        splits="Ranftl et al. validate on 360 and do not say which; by image, 10 % for validation",
        test="tests/convert/test_redweb.py",
    ),
)
