"""Laws of the reader of image files: the order of the files, one sentence per file that cannot be read, and a step ahead."""

import threading

import numpy as np
import torch
from PIL import Image

from depthkit.inference import files
from depthkit.inference.files import ImageReader
from depthkit.resize import InputResize


def photos(folder, count):
    for i in range(count):
        Image.fromarray(np.full((32, 48, 3), i, np.uint8)).save(folder / f"{i}.png")
    return sorted(folder.iterdir())


def test_files_come_in_order_and_broken_ones_as_sentences(tmp_path):
    paths = photos(tmp_path, 5)
    paths[2].write_bytes(b"no image")
    paths[4].write_bytes(b"no image")
    groups = list(ImageReader(paths, InputResize(32), 32, 2))
    assert [[int(x.image[0, 0, 0, 0]) for x in group.images] for group in groups] == [[0, 1], [3]]
    assert [list(group.broken) for group in groups] == [[str(paths[2])], [str(paths[4])]]


def test_the_reader_resizes_as_the_predictor_does(tmp_path):
    path, rule = photos(tmp_path, 1), InputResize(64)
    image = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)
    Image.fromarray(image).save(path[0])
    (group,) = ImageReader(path, rule, 32, 1, resized=True)
    (loaded,) = group.images
    assert loaded.seen is not None
    assert torch.equal(loaded.seen, rule(torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255, 32))


def test_the_next_image_is_read_while_one_is_predicted(tmp_path, monkeypatch):
    read = threading.Event()
    own = files.read_image

    def noted(file, **options):
        if file.name == "2.png":
            read.set()
        return own(file, **options)

    monkeypatch.setattr(files, "read_image", noted)
    groups = iter(ImageReader(photos(tmp_path, 3), InputResize(32), 32, 1))
    next(groups)  # for which 1.png is read, too, as it might be of the same batch
    assert read.wait(10)
    assert int(next(groups).images[0].image[0, 0, 0, 0]) == 1
