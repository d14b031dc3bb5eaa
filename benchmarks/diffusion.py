"""Metric depth by latent diffusion from scratch, without alignment: logarithm against line, several steps against one.

A small VAE learns to reconstruct rendered images and depth maps first. Then, on a mixture of rooms (within 10 m) and streets
(read within 80 m), one UNet per row and seed from random weights, same VAE, same order of the scenes:

    log          depth on a logarithmic scale from 0.5 to 80 m (MetricGold eq. 3); predicts in 1, 4 or 10 steps, or as the
                 median of 5 members
    linear       the same on a linear scale (eq. 2)
    log longer   the first row's weights after as many further steps as the next
    end to end   the first row's weights fine-tuned as a single step from zeros, log depth of pixels compared (second stage)

Scored on unseen scenes in metres, beside the VAE alone (true depth encoded and decoded, the floor), the untrained UNet, and
predictors that do not see the image: one depth everywhere and one per image row, the training scenes' medians over both kinds
or, as if someone said which kind a scene is, of that kind.

    python benchmarks/diffusion.py                          # everything; what is finished is kept
    python benchmarks/diffusion.py --scenes 40 --steps 20 --second 10 --vae-steps 20 --seeds 0 --out /tmp/quick   # a look
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _command import installed, parsed, temporary_folder
from lightning.pytorch import Trainer, seed_everything
from torch import Tensor

from depthkit.data import DepthDataModule, OneDatasetPerBatch, ShardIndex, ShardSource
from depthkit.data.transforms import HorizontalFlip
from depthkit.metrics.functional import abs_rel, delta_accuracy, mae
from depthkit.models import DepthCodec, LatentDiffusionDepth, LinearDepth, LogDepth, Sampling, latent_diffusion_tiny
from depthkit.paradigms import DiffusionModule, EndToEndDiffusionModule, ExponentialDecay, VAEDecoderModule
from depthkit.shards import write_shards
from depthkit.synthetic import SceneKind, SyntheticScenes

SIZE = (32, 48)
BATCH, VAE_BATCH = 8, 16
KINDS: tuple[SceneKind, ...] = ("room", "street")
NEAR, FAR = 10.0, 80.0
CODECS: dict[str, DepthCodec] = {"log": LogDepth(0.5, FAR), "linear": LinearDepth(0.5, FAR)}
FIRST, SECOND = ("log", "linear"), ("log longer", "end to end")
SAMPLINGS = {
    "1 step": Sampling(),
    "4 steps": Sampling(steps=4),
    "10 steps": Sampling(steps=10),
    "1 step, 5 members": Sampling(members=5),
}
ONE = {"1 step": Sampling()}
QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
HOW = {"log": SAMPLINGS, "linear": ONE, "log longer": ONE, "end to end": {"1 step": Sampling(noise="zeros")}}
Truth = dict[str, Tensor]


def prepare(out: Path, count: int, unseen: int, jobs: int) -> None:
    """Render what is missing: shards to train on, and unseen scenes."""
    for kind in KINDS:
        root = out / "shards" / kind
        if not ((root / "index.json").exists() and ShardIndex.load(root).splits["train"].complete):
            drawn = SyntheticScenes(count, size=SIZE, kind=kind)
            write_shards(drawn, root, split="train", dataset=kind, workers=jobs, progress=True, resume=root.exists())
        file = out / f"unseen-{kind}.pt"
        if not file.exists():
            samples = list(SyntheticScenes(unseen, size=SIZE, kind=kind, seed=1))
            image = torch.from_numpy(np.stack([sample.image for sample in samples])).movedim(-1, 1).float() / 255
            depth = torch.from_numpy(np.stack([sample.label for sample in samples]))[:, None].float()
            torch.save({"image": image, "depth": depth}, file)


def data(out: Path, seed: int, steps: int, batch: int = BATCH) -> DepthDataModule:
    """Batches of rooms and of streets in turn."""
    sources = [ShardSource(str(out / "shards" / kind)) for kind in KINDS]
    mixing = OneDatasetPerBatch([0.5, 0.5])
    options: dict[str, Any] = {"size": SIZE, "batch_size": batch, "transform": HorizontalFlip()}
    return DepthDataModule(sources, mixing=mixing, seed=seed, epoch_size=steps * batch, **options)


def network(codec: DepthCodec, seed: int) -> LatentDiffusionDepth:
    """Untrained; a latent cell has 4 pixels along a side."""
    seed_everything(seed, verbose=False)
    return latent_diffusion_tiny(codec=codec, unet_channels=(32, 64, 96), vae_channels=(16, 32, 48))


def train_vae(out: Path, steps: int) -> None:
    """Learn to reconstruct images and depth maps on both scales, in equal parts, and set the latents' scale to deviation 1."""
    vae = network(CODECS["log"], 100).vae.requires_grad_(True)
    optimizer = torch.optim.Adam(vae.parameters(), lr=1e-3)
    scheduler = ExponentialDecay(50, final=0.05)(optimizer, steps)
    began, losses = time.process_time(), []
    for step, batch in enumerate(data(out, 100, steps, VAE_BATCH).train_dataloader()):
        valid = batch.valid & batch.target.isfinite()
        maps = [codec.encode(batch.target, valid).expand(-1, 3, -1, -1) for codec in CODECS.values()]
        x = torch.stack([2 * batch.image - 1, *maps])[(torch.arange(len(batch)) + step) % 3, torch.arange(len(batch))]
        latent = vae.encode(x).latent_dist
        loss = (vae.decode(latent.sample()).sample - x).abs().mean() + 1e-6 * latent.kl().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        losses.append(float(loss))
        if step % 50 == 49:
            print(f"VAE, step {step + 1}: {np.mean(losses[-50:]):.4f}", flush=True)
    with torch.no_grad():
        deviation = float(vae.encode(x).latent_dist.mode().std())
    seconds = time.process_time() - began
    torch.save({"state": vae.state_dict(), "scaling_factor": 1 / deviation, "seconds": seconds}, out / "vae.pt")


def model(row: str, seed: int, out: Path) -> LatentDiffusionDepth:
    """A row's network with the trained VAE and an untrained UNet."""
    net, kept = network(CODECS["linear" if row == "linear" else "log"], seed), torch.load(out / "vae.pt", weights_only=True)
    net.vae.load_state_dict(kept["state"])
    net.vae.register_to_config(scaling_factor=kept["scaling_factor"])
    return net


def module(row: str, seed: int, out: Path) -> DiffusionModule:
    """A row's training; that of the second stage starts from the first one's weights."""
    second = row in SECOND
    settings: dict[str, Any] = {
        "optimizer": partial(torch.optim.Adam, lr=3e-4 if second else 1e-3),
        "schedule": ExponentialDecay(30 if second else 100, final=0.05),
        "protocols": "synthetic_metric",
    }
    kind = EndToEndDiffusionModule if row == "end to end" else DiffusionModule
    built = kind(model(row, seed, out), **settings)
    if second:
        built.model.load_state_dict(torch.load(weights_file(out, "log", seed), weights_only=True)["state"])
    return built


def train(row: str, seed: int, out: Path, steps: int) -> None:
    """Train one row's network and keep its weights and processor time."""
    learner = module(row, seed, out)
    began = time.process_time()
    Trainer(max_epochs=1, accelerator="cpu", gradient_clip_val=1.0, **QUIET).fit(learner, datamodule=data(out, seed, steps))
    target = weights_file(out, row, seed)
    target.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state": learner.model.state_dict(), "seconds": time.process_time() - began}, target)


def weights_file(out: Path, row: str, seed: int) -> Path:
    """Where a finished row lies."""
    return out / "weights" / f"{row.replace(' ', '-')}-{seed}.pt"


def scores(predict: Callable[[Tensor, SceneKind], Tensor], unseen: dict[SceneKind, Truth]) -> dict[str, float]:
    """Means over images of AbsRel by kind and by distance, of the error in metres by distance, and of delta over all."""
    found: dict[str, list[Tensor]] = {}
    for kind, truth in unseen.items():
        depth, inside = truth["depth"], truth["depth"] <= FAR
        with torch.no_grad():
            images = truth["image"].split(10)
            prediction = torch.cat([predict(image, kind).expand(-1, 1, *SIZE) for image in images]).clamp(1e-3, FAR)
        near, far = inside & (depth < NEAR), inside & (depth >= NEAR)
        for name, value in {
            kind: abs_rel(prediction, depth, inside),
            "all": abs_rel(prediction, depth, inside),
            "delta1": delta_accuracy(prediction, depth, inside, threshold=1.25),
            "near": abs_rel(prediction, depth, near),
            "far": abs_rel(prediction, depth, far),
            "near_metres": mae(prediction, depth, near),
            "far_metres": mae(prediction, depth, far),
        }.items():
            found.setdefault(name, []).append(value)
    return {name: float(torch.cat(values).nanmean()) for name, values in found.items()}


def blind(count: int) -> Iterator[tuple[str, Callable[[Tensor, SceneKind], Tensor]]]:
    """The best that can be said without seeing the image, by medians over the training scenes."""
    known = {}
    for kind in KINDS:
        depth = np.stack([sample.label for sample in SyntheticScenes(count, size=SIZE, kind=kind)])
        known[kind] = np.where(depth <= FAR, depth, np.nan)
    both = np.concatenate(list(known.values()))
    one = torch.tensor(np.nanmedian(both)).float().view(1, 1, 1, 1)
    yield "one depth everywhere", lambda image, _: one.expand(len(image), -1, -1, -1)
    rows = torch.from_numpy(np.nanmedian(both, (0, 2))).float().view(1, 1, -1, 1)
    yield "one depth per row", lambda image, _: rows.expand(len(image), -1, -1, SIZE[1])
    each = {kind: torch.from_numpy(_filled(np.nanmedian(d, (0, 2)))).float().view(1, 1, -1, 1) for kind, d in known.items()}
    yield "one depth per row, the kind known", lambda image, kind: each[kind].expand(len(image), -1, -1, SIZE[1])


def _filled(rows: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(rows), FAR, rows)  # sky in every scene


def taught_decoder(row: str, out: Path, steps: int) -> LatentDiffusionDepth:
    """A row's network whose VAE has learned to decode depth maps on the row's scale."""
    learner = VAEDecoderModule(
        model(row, 0, out),
        optimizer=partial(torch.optim.Adam, lr=5e-4),
        schedule=ExponentialDecay(10, final=0.1),
        protocols="synthetic_metric",
    )
    Trainer(max_epochs=1, accelerator="cpu", gradient_clip_val=1.0, **QUIET).fit(learner, datamodule=data(out, 7, steps))
    return learner.model.eval()


def everything(out: Path, seeds: list[int], decoder_steps: int, seen: int) -> dict[str, list[dict[str, float]]]:
    """Rows of the table, a dictionary per seed."""
    unseen: dict[SceneKind, Truth] = {kind: torch.load(out / f"unseen-{kind}.pt", weights_only=True) for kind in KINDS}
    found = {name: [scores(predict, unseen)] for name, predict in blind(seen)}
    for row in FIRST:
        found[f"VAE alone, {row}"] = [round_trip(model(row, 0, out).eval(), unseen)]
        found[f"VAE alone, {row}, decoder fine-tuned"] = [round_trip(taught_decoder(row, out, decoder_steps), unseen)]
    for row in FIRST:
        found[f"{row}, untrained"] = [scores(_of(model(row, seed, out).eval()), unseen) for seed in seeds]
    for row in (*FIRST, *SECOND):
        done = [seed for seed in seeds if weights_file(out, row, seed).exists()]
        for name, sampling in HOW[row].items():
            for seed in done:
                kept = torch.load(weights_file(out, row, seed), weights_only=True)
                net = model(row, seed, out).eval()
                net.load_state_dict(kept["state"])
                net.sampling = sampling
                began = time.process_time()
                result = scores(_of(net), unseen)
                cost = (time.process_time() - began) / sum(len(truth["depth"]) for truth in unseen.values())
                result.update(minutes=kept["seconds"] / 60, milliseconds=1000 * cost)
                found.setdefault(f"{row}, {name}", []).append(result)
    return found


def _of(net: LatentDiffusionDepth) -> Callable[[Tensor, SceneKind], Tensor]:
    return lambda image, _: net(image)


@torch.no_grad()
def round_trip(net: LatentDiffusionDepth, unseen: dict[SceneKind, Truth]) -> dict[str, float]:
    """The score of true depth, encoded and decoded."""
    depth = {kind: iter(truth["depth"].split(10)) for kind, truth in unseen.items()}

    def decoded(_: Tensor, kind: SceneKind) -> Tensor:
        label = next(depth[kind])
        return net.codec.decode(net.decode_latent(net.encode_depth(label, label.isfinite())))

    return scores(decoded, unseen)


def table(found: dict[str, list[dict[str, float]]]) -> str:
    """Mean and standard deviation over seeds, in Markdown."""
    columns = {
        "all": ("AbsRel [%]", 100),
        "room": ("rooms", 100),
        "street": ("streets", 100),
        "near": ("nearer than 10 m", 100),
        "far": ("farther", 100),
        "near_metres": ("error near [m]", 1),
        "far_metres": ("far [m]", 1),
        "delta1": ("delta < 1.25 [%]", 100),
        "minutes": ("training [min]", 1),
        "milliseconds": ("ms / image", 1),
    }
    lines = ["| | " + " | ".join(head for head, _ in columns.values()) + " |", "|---|" + "--:|" * len(columns)]
    for row, seeds in found.items():
        cells = []
        for name, (_, unit) in columns.items():
            values = unit * np.array([seed.get(name, np.nan) for seed in seeds])
            spread = f" ± {values.std(ddof=1):.{1 if unit == 100 else 2}f}" if len(values) > 1 and name[:2] != "mi" else ""
            value = f"{values.mean():.{1 if unit == 100 or name[:2] == 'mi' else 2}f}"
            cells.append("" if np.isnan(values).all() else value + spread)
        lines.append(f"| {row} | {' | '.join(cells)} |")
    return "\n".join(lines)


def picture(out: Path, seed: int, file: Path) -> None:
    """Unseen images, true depth, and what the rows make of them, in one colour scale per line."""
    import matplotlib.pyplot as plt

    rows = [row for row in (*FIRST, *SECOND) if weights_file(out, row, seed).exists()]
    nets = []
    for row in rows:
        net = model(row, seed, out).eval()
        net.load_state_dict(torch.load(weights_file(out, row, seed), weights_only=True)["state"])
        net.sampling = HOW[row]["1 step"]
        nets.append(net)
    titles = ("image", "true depth", *rows)
    figure, axes = plt.subplots(6, len(titles), figsize=(2 * len(titles), 8.5), layout="constrained")
    for part, kind in zip((axes[:3], axes[3:]), KINDS, strict=True):
        truth = torch.load(out / f"unseen-{kind}.pt", weights_only=True)
        for line, image, depth in zip(part, truth["image"], truth["depth"], strict=False):
            line[0].imshow(image.permute(1, 2, 0))
            with torch.no_grad():
                maps = [depth[0].clamp(max=FAR), *(net(image[None])[0, 0] for net in nets)]
            low, high = np.log(np.quantile(maps[0], [0.02, 0.98]))
            for axis, found in zip(line[1:], maps, strict=True):
                axis.imshow(found.log(), cmap="magma_r", vmin=low, vmax=high)
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title)
    for axis in axes.flat:
        axis.axis("off")
    figure.savefig(file, dpi=100)


def main() -> None:
    """Render, train what is not trained, score, and write table, picture and numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/diffusion"), help="folder; what is finished is kept")
    parser.add_argument("--scenes", type=int, default=1000, help="training scenes of each kind")
    parser.add_argument("--unseen", type=int, default=50, help="scenes of each kind to score, at least 3")
    parser.add_argument("--vae-steps", type=int, default=700, help=f"optimizer steps of {VAE_BATCH} maps for the VAE")
    parser.add_argument("--steps", type=int, default=1100, help=f"optimizer steps of {BATCH} images for each UNet")
    parser.add_argument("--second", type=int, default=250, help="further steps for the last two rows")
    parser.add_argument("--decoder-steps", type=int, default=120, help="steps of fine-tuning the VAE's decoder, for its row")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=1, help="processes that render")
    parser.add_argument("--score-only", action="store_true", help="score what is trained")
    options = parsed(
        parser, out=temporary_folder(), scenes=8, unseen=3, vae_steps=1, steps=1, second=1, decoder_steps=1, seeds=[0]
    )
    if not installed("diffusers", "nothing can be measured"):
        return
    if not options.score_only:
        torch.set_num_threads(1)
        prepare(options.out, options.scenes, options.unseen, options.jobs)
        if not (options.out / "vae.pt").exists():
            train_vae(options.out, options.vae_steps)
        for seed in options.seeds:
            for row in (*FIRST, *SECOND):
                if not weights_file(options.out, row, seed).exists():
                    train(row, seed, options.out, options.second if row in SECOND else options.steps)
                    print(f"trained {row}, seed {seed}", flush=True)
    found = everything(options.out, options.seeds, options.decoder_steps, min(options.scenes, 200))
    (options.out / "scores.json").write_text(json.dumps(found, indent=2))
    if installed("matplotlib", "no picture"):
        picture(options.out, options.seeds[0], options.out / "maps.png")
    print(f"\n{table(found)}")


if __name__ == "__main__":
    main()
