"""Films and folders of frames as results on disk: frame by frame as files, or as one film in colours."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from depthkit.errors import DepthKitError, RecipeError
from depthkit.images import image_files, is_image_name
from depthkit.inference.cameras import Cameras
from depthkit.inference.files import Format, Results, Writer
from depthkit.inference.film.frames import RATE, Footage, Frame, is_film_name
from depthkit.inference.film.writing import FilmWriter
from depthkit.inference.outputs import OutputNames
from depthkit.inference.prediction import facts_beside
from depthkit.inference.predictor import DepthPredictor

FRAMES = ".frames"
"""What the name of the folder of a film's frames ends in."""


def films_and_photos(sources: Sequence[Path], *, as_films: bool) -> tuple[list[Path], list[Path]]:
    """Divide sources into what is predicted as films, and what image by image.

    Args:
        sources: films, images, and folders of both. Films that ``FilmWriter`` wrote are left out of folders.
        as_films: take each folder of images as the frames of a film.
    """
    films, photos = list[Path](), list[Path]()
    for source in sources:
        if not source.is_dir():
            (films if is_film_name(source) else photos).append(source)
            continue
        inside = [file for file in sorted(source.rglob("*")) if is_film_name(file) and not _left_out(file, source)]
        images = any(is_image_name(file.relative_to(source)) for file in source.rglob("*"))
        films += inside
        if as_films and images:
            films.append(source)
        elif images or not inside:
            photos.append(source)
    return films, photos


def _left_out(file: Path, source: Path) -> bool:
    hidden = any(part.startswith(".") for part in file.relative_to(source).parts)
    return hidden or not file.is_file() or facts_beside(file).is_file()


def film_targets(films: Sequence[Path], photos: Sequence[Path], out: Path, results: Results) -> dict[Path, Path]:
    """Name the result of each film: ``out/a.mov.mp4``, or the folder ``out/a.mov.frames``; of a folder ``out/a.mp4`` or it.

    Raises:
        RecipeError: a result would overwrite a source or another result, or the format is not of films or not of images.
    """
    if results.format == Format.MP4 and photos:
        raise RecipeError(f"expected films or folders of frames for format mp4; got {photos[0]}. Choose format png for images.")
    if results.format == Format.KITTI and films:
        raise RecipeError(f"expected images for format kitti; got a film, {films[0]}. Choose format png and unit 256.")
    if not films:
        return {}
    root = Path(os.path.commonpath([Path(os.path.abspath(film)).parent for film in films]))
    sources = {os.path.realpath(file) for film in films for file in (image_files([film]) if film.is_dir() else [film])}
    targets: dict[Path, Path] = {}
    for film in films:
        place = out / Path(os.path.abspath(film)).relative_to(root)
        target = out if film.is_dir() else place.with_name(place.name + FRAMES)
        if results.format == Format.MP4:
            target = place.with_name(f"{place.name}.mp4")
        taken = {os.path.realpath(x) for x in targets.values()} if results.format == Format.MP4 else set()
        if os.path.realpath(target) in sources | taken:
            raise RecipeError(
                f"expected a result of its own for every film; {target}, the result of {film}, is a source or that of "
                "another. Choose another folder for the results."
            )
        targets[film] = target
    return targets


@dataclass
class FilmRun:
    """The prediction of one film.

    Attributes:
        source: film or folder of frames.
        target: file or folder of its results.
        results: how they are written.
        stabilise: see ``DepthPredictor.video``.
        cameras: where intrinsics are looked for.
        threads: that write.
        rate: frames per second of a folder.
        written: frames whose results are there.
        total: frames there should be.
        broken: why others have none, by their names.
    """

    source: Path
    target: Path
    results: Results
    stabilise: bool = True
    cameras: Cameras = field(default_factory=Cameras)
    threads: int = 2
    rate: float = RATE
    written: int = 0
    total: int = 0
    broken: dict[str, str] = field(default_factory=dict)

    def __call__(self, predictor: DepthPredictor, stopped: Callable[[], bool]) -> None:
        """Predict frame by frame until the end, or until ``stopped``; what is broken is left out and named.

        Raises:
            PredictionError: the results cannot be written.
        """
        try:
            footage = Footage(self.source, on_error=self._refuse, rate=self.rate)
        except DepthKitError as error:
            self.total, self.broken = 1, {str(self.source): str(error)}
            return
        self.total = footage.total or 0
        film = None
        if self.results.format == Format.MP4:
            film = FilmWriter(self.target, span=self.results.span, source=self.source.name, stabilised=self.stabilise)
        writer = Writer(film or self.results, self._names(), 1 if film else self.threads, broken=self.broken)
        whole = False
        try:
            frames = footage if film is None else self._timed(footage, film)
            found = predictor.frames(frames, stabilise=self.stabilise, cameras=self.cameras, on_error=self._refuse)
            for prediction in found:
                writer.add(prediction)
                if stopped():
                    break
            else:
                whole = True
            writer.collect()
        finally:
            writer.close()
            self.written = writer.written
            if film is not None:
                self.target = film.close(whole=whole) or self.target

    def _refuse(self, name: str, error: DepthKitError) -> None:
        self.broken[name] = str(error)

    @staticmethod
    def _timed(footage: Footage, film: FilmWriter) -> Iterator[Frame]:
        for frame in footage:
            film.times[frame.name] = frame.time
            yield frame

    def _names(self) -> Callable[[str, str], Path]:
        if self.source.is_dir():
            return OutputNames([self.source], self.target, self.results.endings)
        return lambda name, ending: self.target / f"{name.rpartition('#')[2]}{ending}"
