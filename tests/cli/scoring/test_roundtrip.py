import pytest

pytest.importorskip("diffusers")

import torch

from depthkit.cli.main import main
from depthkit.models import LogDepth, latent_diffusion_tiny, midas_timm


def checkpoint(model, path):
    facts = {"model": model.config, "ambiguity": "metric", "size": [64, 96]}
    torch.save({"state_dict": {f"model.{k}": v for k, v in model.state_dict().items()}, "depthkit": facts}, path)
    return str(path)


def test_the_round_trip_of_each_folder_is_printed(scenes, tmp_path, capsys):
    file = checkpoint(latent_diffusion_tiny(codec=LogDepth(0.5, 20), vae_channels=(8, 8)), tmp_path / "last.ckpt")
    main(["roundtrip", file, str(scenes)])
    printed = capsys.readouterr().out
    for words in ("LogDepth(d_min=0.5, d_max=20.0, fill='far'): 6 scored, 0 left out", "abs_rel", "clipped", "VAE alone"):
        assert words in printed


def test_a_model_without_a_vae_is_refused(scenes, tmp_path, capsys):
    file = checkpoint(midas_timm("mobilenetv2_035", features=8, pretrained=False), tmp_path / "last.ckpt")
    with pytest.raises(SystemExit):
        main(["roundtrip", file, str(scenes)])
    assert "expected a latent diffusion model as" in capsys.readouterr().err
