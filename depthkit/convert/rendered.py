"""Rendered scenes in the catalogue: exact depth without a folder to read."""

from depthkit.convert.records.dataset import Dataset
from depthkit.synthetic import SyntheticScenes
from depthkit.types import Ambiguity, LabelKind, Representation

DATASETS = (
    Dataset(
        name="synthetic",
        read=SyntheticScenes,
        layout="nothing; give - as the folder",
        kind=LabelKind(Ambiguity.METRIC, Representation.DEPTH),
        unit="exact depth [m]",
        invalid="none",
        sky="depth infinity",
        camera="exact; pixel centres at integers",
        source="depthkit",
        splits="another seed is other scenes",
        test="tests/synthetic/test_scenes.py",
        real=True,
        rendered=True,
    ),
)
