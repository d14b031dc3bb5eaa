"""Where the results of image files go: one naming for every command."""

import os
from collections.abc import Sequence
from pathlib import Path

from depthkit.errors import RecipeError
from depthkit.images import image_files

COLOUR = ".colour.png"
"""What the name of a coloured picture ends in."""


class OutputNames:
    """Names of the results of image files.

    ``photos/a/x.jpg`` of the folder ``photos`` has its results in ``out/a/x.jpg`` and an ending: two images never share a name,
    whatever their formats. Of several sources, what is below the folder that they have in common is kept. A link has the name
    that it bears, not that of the file it leads to.

    Args:
        sources: image files, and folders that are searched for them.
        out: folder of the results.
        endings: of the results that each image has.

    Raises:
        ShapeError: there is no image.
        RecipeError: a result would overwrite an image, or another result.

    Attributes:
        files: the images, each once.
    """

    def __init__(self, sources: Sequence[str | Path], out: str | Path, endings: Sequence[str]) -> None:
        self.files = image_files(sources)
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
        """Name the result of one of the files that has this ending."""
        place = self._out / _absolute(file).relative_to(self._root)
        return place.with_name(place.name + ending)


def _absolute(path: str | Path) -> Path:
    return Path(os.path.abspath(path))  # `resolve` would follow links
