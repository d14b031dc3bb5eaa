"""WSVD (Wang et al. 2019): stereo videos of the web, of which their authors publish the names.

Under the root lie the videos as they were fetched, ``ID.mp4`` (or webm, mkv), ``ID`` being the name in the published list, one
in each line. Labels are made as those of films, see ``stereo_movie``. The authors' clips are listed in pickles, which are not
read: frames are sampled from the whole video, and those that are not good enough are left out.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from depthkit.convert import stereo_movie
from depthkit.convert.records.chain import Chain, chained, films_in
from depthkit.convert.records.dataset import Dataset
from depthkit.convert.records.files import read_bytes
from depthkit.convert.records.optical_flow import Raft
from depthkit.convert.records.record import check_folder, held_out, wrong_layout
from depthkit.convert.records.stereo_labels import KIND, Flow, Rules
from depthkit.shards import Reject


def wsvd(
    root: str | Path,
    split: str,
    *,
    split_file: str | Path | None = None,
    holdout: float = 0.05,
    layout: str = "auto",
    rate: float = 1.0,
    trim: float = 0.1,
    height: int | None = None,
    rules: Rules | str = "midas",
    flow: Flow | None = None,
    weights: str | Path | None = None,
) -> Chain:
    """Read the frames of all videos of a split, by video and time.

    A listed video that is not there, or is no stereo film, is among ``rejects``.

    Args:
        root: folder of the videos.
        split: ``train`` or ``val``.
        split_file: list of the videos' names; all that are there by default.
        holdout: share of the videos that are for validation; see ``held_out``.
        layout: where both eyes' pictures lie in a frame; auto finds out.
        rate: samples per second.
        trim: share of each video to leave out at its begin, and at its end.
        height: reduce the pictures to this height before flow is computed [px].
        rules: gp2 or midas: which pairs are good enough; in Python also ``Rules``.
        flow: optical flow from picture to picture; RAFT by default.
        weights: file of RAFT's weights, as torchvision publishes them.

    Raises:
        DepthKitError: there are no videos, or PyAV is not installed.
        CheckpointError: there are no weights for the flow.
        RecipeError: an option is out of its range.
    """
    root = Path(root)
    check_folder(root, "WSVD's videos, such as ID.mp4,")
    files = {Path(name).stem: name for name in films_in(root)}
    wanted = sorted(files) if split_file is None else read_bytes(Path(split_file)).decode("utf-8", "replace").split()
    if not files.keys() & set(wanted):
        raise wrong_layout(f"{wanted[0] if wanted else 'ID'}.mp4 and other videos", root)
    flow = flow or Raft(Path(weights) if weights else None).ready()
    how: dict[str, Any] = {"layout": layout, "rate": rate, "trim": trim, "height": height, "rules": rules, "flow": flow}
    listed = [name for name in wanted if held_out(name, holdout) == (split == "val")]
    found = [files[name] for name in listed if name in files]
    chain = chained(root, found, lambda file: stereo_movie.stereo_movie(file, **how), KIND)
    lost = [Reject(name, "there is no video of this name") for name in listed if name not in files]
    return replace(chain, rejects=(*lost, *chain.rejects))


DATASETS = (
    Dataset(
        name="wsvd",
        read=wsvd,
        layout="ID.mp4 and other stereo videos in one folder",
        kind=KIND,
        unit="disparity [px] of the left picture by optical flow, of unknown scale and offset",
        invalid="where flow there and back disagree, and black bars",
        sky="not marked",
        camera="unknown",
        source="Wang et al. 2019; 1.5M frames as counted by Ranftl et al. 2022",
        licence="that of each video",
        published={"train": None, "val": None},
        total=1_500_000,
        splits="the authors' lists of clips are pickles; by video, 5 % for validation",
        test="tests/convert/test_wsvd.py",
    ),
)
