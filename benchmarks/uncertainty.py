"""Which uncertainty knows where a network is wrong: each kind on unseen rendered scenes, against that of the mirror image.

Networks of depth in metres, from random weights, learn rendered rooms and streets of 32x48 with the likelihood as a second
term, so that one training serves every kind; the diffusion model of ``benchmarks/diffusion.py`` learns the same scenes.
Scored is the area under the sparsification error (AUSE, 0 is the best order) of AbsRel and RMSE, also as a share of that of a
random order, and how far the share of pixels in an interval is from what the interval promises (calibration, 0 to 0.5).

    random order        the same uncertainty everywhere
    flip                of one network; of the diffusion model
    head                b of the Laplace distribution of ln depth that the network predicts
    ensemble            of the networks of all seeds; their mean is another map, scored beside
    members             of the diffusion model, from other noise; their median is another map, scored beside

    python benchmarks/uncertainty.py --out runs/uncertainty   # what is finished is kept
"""

import argparse
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import diffusion
import torch
from _command import installed, parsed, temporary_folder
from lightning.pytorch import Trainer, seed_everything
from torch import Tensor, nn

from depthkit.evaluation import PROTOCOLS, evaluate
from depthkit.models import DepthEnsemble, DepthNet, FlipUncertainty, Sampling, heteroscedastic, monodepth2_timm
from depthkit.paradigms import CosineDecay, MetricModule
from depthkit.resize import resize_space_of
from depthkit.synthetic import SyntheticScenes
from depthkit.types import Ambiguity, Sample

PROTOCOL = PROTOCOLS["synthetic_metric"]
COLUMNS = ("abs_rel", "rmse", "ause_abs_rel", "ause_rmse", "calibration_error")


class Constant(nn.Module):
    """A network whose uncertainty is the same everywhere: what a random order has."""

    gives_uncertainty, ambiguity = True, Ambiguity.METRIC

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model, self.representation, self.size_multiple = model, model.representation, model.size_multiple
        self.resize_space = resize_space_of(model)

    def with_uncertainty(self, image: Tensor, shown: Any = None) -> tuple[Tensor, Tensor]:
        """Predict, and say 0.1 everywhere."""
        found = self.model(image)
        return found, torch.full_like(found, 0.1)


def network(seed: int) -> DepthNet:
    """An untrained network of depth in metres with the part that predicts its uncertainty."""
    seed_everything(seed, verbose=False)
    return heteroscedastic(
        monodepth2_timm("mobilenetv3_small_050", pretrained=False, strides=(2, 4, 8, 16), min_depth=0.5, max_depth=80.0)
    )


def trained(out: Path, seed: int, steps: int) -> DepthNet:
    """The trained network of a seed, from its file if it is there."""
    model, file = network(seed), out / "weights" / f"metres-{seed}.pt"
    if not file.exists():
        optimizer = partial(torch.optim.AdamW, lr=2e-3, weight_decay=1e-2)
        module = MetricModule(model, uncertainty_weight=1.0, optimizer=optimizer, schedule=CosineDecay(warmup=min(50, steps)))
        run = Trainer(max_epochs=1, accelerator="cpu", gradient_clip_val=1.0, **diffusion.QUIET)
        run.fit(module, datamodule=diffusion.data(out, seed, steps))
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save(model.state_dict(), file)
    model.load_state_dict(torch.load(file, weights_only=True))
    return model.eval()


def diffusion_model(out: Path, steps: int, vae_steps: int) -> Any:
    """The trained latent diffusion model, from its file if it is there."""
    if not (out / "vae.pt").exists():
        diffusion.train_vae(out, vae_steps)
    file = diffusion.weights_file(out, "log", 0)
    if not file.exists():
        diffusion.train("log", 0, out, steps)
    model = diffusion.model("log", 0, out)
    model.load_state_dict(torch.load(file, weights_only=True)["state"])
    return model.eval()


def scores(model: Any, samples: list[Sample]) -> Mapping[str, float]:
    """Numbers of the map and of its uncertainty."""
    scored = evaluate(model, samples, PROTOCOL, ambiguity=Ambiguity.METRIC, uncertainty=True, pictures=0, progress=False)
    return {name: scored.summary[name] for name in COLUMNS}


def means(of: list[Mapping[str, float]]) -> dict[str, float]:
    """Means over seeds."""
    return {name: sum(row[name] for row in of) / len(of) for name in COLUMNS}


def table(rows: Mapping[str, Mapping[str, float]]) -> str:
    """In Markdown; a row named `random order ...` is what the rows after it are compared with."""
    head = ("", "AbsRel", "RMSE [m]", "AUSE AbsRel", "AUSE RMSE [m]", "of random", "of random (RMSE)", "calibration")
    lines, random = ["| " + " | ".join(head) + " |", "|---" + "|--:" * (len(head) - 1) + "|"], dict[str, float]()
    for name, row in rows.items():
        random = dict(row) if name.startswith("random order") else random
        shares = [row[key] / random[key] for key in ("ause_abs_rel", "ause_rmse")]
        figures = [f"{row[key]:.4f}" for key in COLUMNS[:4]] + [f"{100 * share:.0f} %" for share in shares]
        lines.append(f"| {name} | " + " | ".join([*figures, f"{row['calibration_error']:.3f}"]) + " |")
    return "\n".join(lines)


def main() -> None:
    """Render, train what is not trained, score and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/uncertainty"), help="folder; what is finished is kept")
    parser.add_argument("--scenes", type=int, default=300, help="of each kind to learn from")
    parser.add_argument("--unseen", type=int, default=40, help="of each kind to score")
    parser.add_argument("--steps", type=int, default=600, help="of every network")
    parser.add_argument("--vae-steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="two or more: they are the ensemble")
    parser.add_argument("--members", type=int, default=5, help="of the diffusion model")
    options = parsed(parser, out=temporary_folder(), scenes=8, unseen=2, steps=1, vae_steps=1, seeds=[0, 1], members=3)
    torch.set_num_threads(1)
    diffusion.prepare(options.out, options.scenes, options.unseen, jobs=0)
    samples = [x for kind in diffusion.KINDS for x in SyntheticScenes(options.unseen, size=diffusion.SIZE, kind=kind, seed=1)]
    networks = [trained(options.out, seed, options.steps) for seed in options.seeds]
    metric = Ambiguity.METRIC
    together = DepthEnsemble(networks, ambiguity=metric)
    rows = {
        "random order, network": means([scores(Constant(x), samples) for x in networks]),
        "flip": means([scores(FlipUncertainty(x, ambiguity=metric), samples) for x in networks]),
        "head": means([scores(x, samples) for x in networks]),
        "random order, ensemble": scores(Constant(together), samples),
        f"ensemble of {len(networks)}": scores(together, samples),
    }
    if installed("diffusers", "no diffusion model"):
        model = diffusion_model(options.out, options.steps, options.vae_steps)
        rows["random order, diffusion"] = scores(Constant(model), samples)
        rows["flip, diffusion"] = scores(FlipUncertainty(model, ambiguity=metric), samples)
        model.sampling = Sampling(members=options.members)
        rows["random order, members"] = scores(Constant(model), samples)
        rows[f"{options.members} members"] = scores(model, samples)
    print(f"{len(samples)} unseen scenes, {options.steps} steps, load {os.getloadavg()[0]:.1f}")
    print(table(rows))


if __name__ == "__main__":
    main()
