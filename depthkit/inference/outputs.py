"""Names of the results of image files: the one naming of every command."""

import os
from collections.abc import Sequence
from pathlib import Path

from depthkit.errors import RecipeError
from depthkit.images import image_files

COLOUR = ".colour.png"
"""What the name of a coloured picture ends in."""
CONFIDENCE = ".confidence"
"""What the name of a confidence map has before its suffix."""


class OutputNames:
    """Names of the results of image files.

    ``photos/a/x.jpg`` of the folder ``photos`` has its results in ``out/a/x.jpg`` plus an ending, so that two images never
    share a name, whatever their formats. Several sources keep their paths below the folder that they have in common. A link
    keeps its own name, not that of its target.

    Args:
        sources: image files, and folders that are searched for them.
        out: folder of the results.
        endings: of the results of each image.
        stems: results take the place of the image's own ending: ``out/a/x.png`` of ``photos/a/x.jpg``.

    Raises:
        ShapeError: there is no image.
        RecipeError: a result would overwrite an image, or another result.

    Attributes:
        files: the images, each once.
    """

    def __init__(self, sources: Sequence[str | Path], out: str | Path, endings: Sequence[str], *, stems: bool = False) -> None:
        self.stems, self.files = stems, image_files(sources)
        folders = [_absolute(source) if Path(source).is_dir() else _absolute(source).parent for source in sources]
        self._root, self._out = Path(os.path.commonpath(folders)), Path(out)
        images = {os.path.realpath(file): file for file in self.files}
        taken: dict[str, Path] = {}
        for file in self.files:
            for ending in endings:
                name = self(file, ending)
                real = os.path.realpath(name)
                other = images.get(real) or taken.setdefault(real, file)
                if real in images or other is not file:
                    raise RecipeError(
                        f"expected a result of its own for every image; {name}, the result of {file}, "
                        f"{'is one of the images' if real in images else f'would be that of {other}, too'}. "
                        "Choose another folder for the results."
                    )

    def __call__(self, file: str | Path, ending: str) -> Path:
        """Name the result of a file with this ending."""
        place = self._out / _absolute(file).relative_to(self._root)
        return place.with_name((place.stem if self.stems else place.name) + ending)


def _absolute(path: str | Path) -> Path:
    return Path(os.path.abspath(path))  # `resolve` would follow links
