"""Stereo photographs as people put them on the web: pairs in one file, or in ``left/`` and ``right/`` by the same name.

Labels are made as those of films, see ``stereo_labels``, as ReDWeb and WSVD were made. In one file the two pictures lie
side by side or one above the other (.jps, .pns, or as any picture), or behind each other (.mpo, as stereo cameras save them).
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import UnidentifiedImageError

from depthkit.checks import check_choice
from depthkit.convert.records.dataset import Dataset
from depthkit.convert.records.files import names_in, read_bytes
from depthkit.convert.records.optical_flow import Raft
from depthkit.convert.records.record import Records, check_folder, key_of, part, read_picture, wrong_layout
from depthkit.convert.records.sky import Sky
from depthkit.convert.records.stereo_labels import KIND, Flow, Rules, StereoLabels, preset, stereo_frame
from depthkit.convert.records.stereo_layout import Eyes, Layout, arrange, found_layout
from depthkit.errors import DepthKitError, LabelError, ShapeError
from depthkit.images import SUFFIXES, opened
from depthkit.shards import Reject
from depthkit.types import Views

_BEHIND = ".mpo"
_STEREO = (*SUFFIXES, ".jps", ".pns", _BEHIND)
_LOOKED_AT = 16  # pictures from which the layout is known


def stereo_pairs(
    root: str | Path,
    split: str | None = None,
    *,
    holdout: float = 0.0,
    layout: Layout | str = Layout.AUTO,
    eyes: Eyes | str = Eyes.LEFT_RIGHT,
    squeezed: bool = False,
    height: int | None = None,
    rules: Rules | str = "gp2",
    flow: Flow | None = None,
    weights: str | Path | None = None,
    sky: Sky | None = None,
    views: Views | str = Views.SINGLE,
) -> Records:
    """Read the stereo pairs of a folder, by name.

    Indexing computes the label, and raises ``LabelError`` for a pair that is not good enough.

    Args:
        root: folder of pictures that hold both, or with ``left/`` and ``right/``.
        split: None for all pairs, ``train`` or ``test`` for those before or in the held-out end.
        holdout: fraction of the pairs, at the end, that are for testing.
        layout: where the two pictures of one file lie; auto judges by some of the files, and takes it to be the same in all.
        eyes: whose picture comes first in a file. With the wrong one near and far are turned around.
        squeezed: whether each picture of one file has half of its width or height. No aspect tells: photographs are upright,
            too.
        height: reduce the pictures to this height before flow is computed [px].
        rules: gp2 or midas: which pairs are good enough; in Python also ``Rules``.
        flow: optical flow from picture to picture; RAFT by default.
        weights: file of RAFT's weights, as torchvision publishes them.
        sky: where the sky is, if it is to have the least disparity.
        views: single, or stereo to store the right picture, too.

    Raises:
        DepthKitError: there are no pairs in the folder.
        CheckpointError: there are no weights for the flow.
    """
    root, layout, eyes = Path(root), check_choice("layout", layout, Layout), check_choice("eyes", eyes, Eyes)
    check_folder(root, "stereo pictures, or left/ and right/")
    apart = (root / "left").is_dir() and (root / "right").is_dir()
    names = [name for name in names_in(root / "left" if apart else root) if name.lower().endswith(_STEREO)]
    if not names:
        raise wrong_layout("stereo pictures, or left/ and right/ with pictures,", root)
    partners = {os.path.splitext(name)[0]: name for name in names_in(root / "right")} if apart else {}
    place = key_of(root.resolve().name)
    keys = {name: f"{place}/{key_of(os.path.splitext(name)[0])}" for name in names}
    paired = [name for name in names if not apart or os.path.splitext(name)[0] in partners]
    rejects = tuple(Reject(keys[name], "there is no right picture") for name in names if name not in set(paired))
    beside = [name for name in paired if not (apart or name.lower().endswith(_BEHIND))]
    if layout == Layout.AUTO and beside:
        some = _readable(root, beside[:: -(-len(beside) // _LOOKED_AT)])
        layout = found_layout(some, str(root)) if some else layout
    pictures = Pairs(partners, layout, eyes, squeezed, height)
    here = paired[part(len(paired), split, holdout)]
    found = tuple(stereo_frame(keys[name], f"left/{name}" if apart else name, views) for name in here)
    labels = StereoLabels(pictures.pair, flow or Raft(Path(weights) if weights else None).ready(), preset(rules), sky)
    return Records(root, found, KIND, rejects, reader=labels, picture=labels.picture)


@dataclass(frozen=True)
class Pairs:
    """Reads pairs; see ``stereo_pairs``.

    Attributes:
        partners: names in ``right/`` by those in ``left/`` without their ending; empty if both pictures are in one file.
        layout: where the two pictures of one file lie.
        eyes: whose comes first there.
        squeezed: whether each has half of its width or height.
        height: to reduce pictures to [px].
    """

    partners: dict[str, str]
    layout: Layout
    eyes: Eyes
    squeezed: bool
    height: int | None

    def pair(self, root: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the left and right picture, uint8 RGB ``(H, W, 3)``.

        Raises:
            DepthKitError: the file does not read, or holds no pair.
        """
        if not self.partners and not name.lower().endswith(_BEHIND):
            whole = read_picture(root, name)
            return arrange(
                [whole], str(root / name), layout=self.layout, eyes=self.eyes, squeezed=self.squeezed, height=self.height
            )(whole)
        if self.partners:
            stem = os.path.splitext(name.removeprefix("left/"))[0]
            both = [read_picture(root, name), read_picture(root, f"right/{self.partners[stem]}")]
        else:
            both = _behind(root / name)
            both = both[::-1] if self.eyes == Eyes.RIGHT_LEFT else both
        if both[0].shape != both[1].shape:
            raise ShapeError(
                f"{root / name}: expected two pictures of one size; got {both[0].shape[:2]} and {both[1].shape[:2]} (height, "
                "width). Leave the pair out."
            )
        whole = np.concatenate(both, 1)
        return arrange([whole], str(root / name), layout=Layout.SIDE_BY_SIDE, squeezed=False, height=self.height)(whole)


def _behind(file: Path) -> list[np.ndarray]:
    """Read both pictures of an .mpo file."""
    try:
        with opened(read_bytes(file), str(file), error=DepthKitError) as image:
            count, found = getattr(image, "n_frames", 1), []
            for n in range(min(count, 2)):
                image.seek(n)
                found.append(np.array(image.convert("RGB")))
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise DepthKitError(f"{file}: expected a whole picture; it does not decode ({error}). Get it again.") from error
    if count != 2:
        raise LabelError(f"{file}: expected two pictures; it holds {count}. Leave it out.")
    return found


def _readable(root: Path, names: list[str]) -> list[np.ndarray]:
    found = []
    for name in names:
        try:
            found.append(read_picture(root, name))
        except DepthKitError:  # told when the sample is made
            continue
    return found


DATASETS = (
    Dataset(
        name="stereo_pairs",
        read=stereo_pairs,
        layout="pictures that hold both eyes' (.jps, .mpo, .jpg, .png), or left/ and right/ with pictures of the same names",
        kind=KIND,
        unit="disparity [px] of the left picture by optical flow, of unknown scale and offset",
        invalid="where flow there and back disagree, and black bars",
        sky="the least disparity of its picture, if a segmentation model is given",
        camera="unknown",
        source="made as ReDWeb (Xian et al. 2018) and WSVD (Wang et al. 2019) were",
        licence="that of the photographs",
        splits="the end of the folder is held out",
        test="tests/convert/test_stereo_pairs.py",
        real=True,
    ),
)
