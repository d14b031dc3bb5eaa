from pathlib import Path

import pytest
import timm
import torch
from torch.testing import assert_close

from depthkit.cli.main import main
from depthkit.models import dpt_timm, save_network


def test_the_encoder_of_a_checkpoint_is_timms_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = dpt_timm("test_vit", pretrained=False, features=16)
    save_network(model, tmp_path / "last.ckpt", ambiguity="shift_scale")
    main(["export", str(tmp_path / "last.ckpt"), str(tmp_path / "encoder.safetensors")])
    assert "encoder.safetensors" in capsys.readouterr().out
    file = {"file": str(tmp_path / "encoder.safetensors")}
    theirs = timm.create_model("test_vit", num_classes=0, pretrained=True, pretrained_cfg_overlay=file, dynamic_img_size=True)
    assert_close(theirs.state_dict(), model.encoder.backbone.state_dict(), rtol=0, atol=0)
    again = dpt_timm("test_vit", pretrained=tmp_path / "encoder.safetensors", features=16)
    assert_close(again.encoder.state_dict(), model.encoder.state_dict(), rtol=0, atol=0)


def test_another_kind_of_file_is_refused_in_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = dpt_timm("test_vit", pretrained=False, features=16)
    save_network(model, tmp_path / "last.ckpt", ambiguity="shift_scale")
    with pytest.raises(SystemExit):
        main(["export", str(tmp_path / "last.ckpt"), str(tmp_path / "encoder.pth")])
    assert "expected a path that ends in .pt2, .onnx or .safetensors; got encoder.pth" in capsys.readouterr().err
    torch.save({}, tmp_path / "none.ckpt")
    with pytest.raises(SystemExit):
        main(["export", str(tmp_path / "none.ckpt"), str(tmp_path / "encoder.safetensors")])
    assert "expected a checkpoint of `depthkit fit`" in capsys.readouterr().err


@pytest.mark.slow
def test_the_network_of_a_checkpoint_is_a_program(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = dpt_timm("test_vit", pretrained=False, features=16).eval()
    save_network(model, tmp_path / "last.ckpt", ambiguity="shift_scale")
    with pytest.raises(SystemExit):
        main(["export", str(tmp_path / "last.ckpt"), str(tmp_path / "net.pt2")])
    assert "Give --size" in capsys.readouterr().err
    main(["export", str(tmp_path / "last.ckpt"), str(tmp_path / "net.pt2"), "--size", "[32, 64]"])
    image = torch.rand(1, 3, 32, 64)
    with torch.no_grad():
        assert_close(torch.export.load(tmp_path / "net.pt2").module()(image), model(image), rtol=1e-3, atol=1e-4)
