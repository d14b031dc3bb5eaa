import pytest

from depthkit.errors import ShapeError
from depthkit.evaluation import EIGEN_KITTI, EIGEN_NYU, FULL, GARG
from depthkit.evaluation.crops import KB_CROP


@pytest.mark.parametrize(
    ("crop", "size", "box"),
    [
        (GARG, (375, 1242), (153, 371, 44, 1197)),  # monodepth2's pixel numbers
        (EIGEN_KITTI, (375, 1242), (124, 342, 44, 1197)),
        (EIGEN_NYU, (480, 640), (45, 471, 41, 601)),
        (
            KB_CROP,
            (376, 1241),
            (24, 376, 12, 1228),
        ),  # at the bottom; of an odd number of columns left out one more on the right
        (FULL, (7, 5), (0, 7, 0, 5)),
    ],
)
def test_crops_have_their_authors_numbers(crop, size, box):
    assert crop.box(*size) == box
    top, bottom, left, right = box
    mask = crop.mask(*size)
    assert mask.sum() == (bottom - top) * (right - left)
    assert mask[top:bottom, left:right].all()


def test_a_crop_in_pixels_refuses_another_image_size():
    with pytest.raises(ShapeError, match=r"expected a label of 480x640 .* for the crop 'eigen_nyu'.* got 240x320"):
        EIGEN_NYU.box(240, 320)
