"""The colour jitter of Monodepth2 and of Depth Anything is torchvision's: multiplied, contrast about the mean grey."""

import torch
from torch.testing import assert_close

from depthkit.paradigms.self_supervised_video import colour_jitter


def test_views_of_a_sample_change_alike_each_about_its_own_mean() -> None:
    dark, light = torch.full((3, 8, 8), 0.2), torch.full((3, 8, 8), 0.6)
    changed = 0
    for seed in range(40):
        torch.manual_seed(seed)
        out = colour_jitter()(torch.stack([dark, light])[None])[0]
        factor = out.mean((1, 2, 3)) / torch.tensor([0.2, 0.6])
        assert_close(factor[0], factor[1], rtol=1e-3, atol=1e-3)  # contrast and saturation leave a constant grey image alone
        assert 0.79 < factor[0] < 1.21
        changed += bool((factor[0] - 1).abs() > 1e-3)
    assert 8 < changed < 32
