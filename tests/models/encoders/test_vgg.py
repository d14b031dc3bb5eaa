"""The first layer of VGG16."""

import pytest
import timm
import torch
from torch.testing import assert_close

from depthkit.models import vgg16_relu1_1


@pytest.mark.slow
def test_it_is_the_first_layer_of_the_whole_network(tmp_path):
    whole = timm.create_model("vgg11.tv_in1k", num_classes=2)  # smaller, with the same first layer
    first = vgg16_relu1_1(pretrained=False)
    first.conv.load_state_dict(whole.features[0].state_dict())
    image = torch.rand(1, 3, 8, 9)
    mean, std = (torch.tensor(x).view(1, 3, 1, 1) for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    assert_close(first(image), whole.features[:2]((image - mean) / std))
    assert first(image).shape == (1, 64, 8, 9)
