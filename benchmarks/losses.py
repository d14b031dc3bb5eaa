"""How much faster the batched losses are than a loop over images, and how much dearer all pairs are than pixels.

Forward and backward, against implementations as one would write them down: boolean indexing per image, ``torch.median``,
``torch.sort``, all N^2 pairs. Both sides take turns in one process, their values and gradients are compared, and the best
of the repeats counts, by the clock and in CPU time, which a busy machine distorts less. Prints Markdown tables.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial

import torch
from _command import parsed
from torch import Tensor
from torch.nn.functional import interpolate
from torch.testing import assert_close

from depthkit.alignment import align_pair
from depthkit.losses.functional import (
    gradient_matching_loss,
    pairwise_l1_si_loss,
    pairwise_l1_ssi_loss,
    pointwise_loss,
    ssi_loss,
)

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
ROBUST, SQUARES = {"align": "median", "trim": 0.2}, {"align": "least_squares", "penalty": "l2"}


def by_median(pred: Tensor, target: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """One image, normalised by the median and the mean absolute deviation of its valid pixels."""
    aligned = []
    for x in (pred, target):
        shift = x[valid].median()
        aligned.append((x - shift) / (x[valid] - shift).abs().mean())
    return aligned[0], aligned[1]


def by_least_squares(pred: Tensor, target: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """One image, the prediction moved onto the label."""
    p, t = pred[valid], target[valid]
    scale = ((p - p.mean()) * (t - t.mean())).mean() / ((p - p.mean()) ** 2).mean()
    return scale * (pred - p.mean()) + t.mean(), target


def loop_ssi(p: Tensor, t: Tensor, v: Tensor, *, penalty: str = "l1", trim: float = 0.0) -> Tensor:
    """``ssi_loss`` of one aligned image."""
    residual = (p[v] - t[v]).abs() if penalty == "l1" else (p[v] - t[v]) ** 2
    count = len(residual)
    if trim:
        residual = residual.sort().values[: int((1 - trim) * count)]
    return residual.sum() / (2 * count)


def loop_gradient(p: Tensor, t: Tensor, v: Tensor) -> Tensor:
    """``gradient_matching_loss`` of one aligned image."""
    total = torch.zeros(())
    for k in range(4):
        r, m = (p - t)[..., :: 2**k, :: 2**k], v[..., :: 2**k, :: 2**k]
        across, down = (r[..., 1:] - r[..., :-1]).abs(), (r[..., 1:, :] - r[..., :-1, :]).abs()
        total = total + (across[m[..., 1:] & m[..., :-1]].sum() + down[m[..., 1:, :] & m[..., :-1, :]].sum()) / m.sum()
    return total


def both_terms(pred: Tensor, target: Tensor, valid: Tensor, *, options: dict, shared: bool) -> Tensor:
    """MiDaS's loss; ``shared`` aligns once for both terms."""
    if shared:
        pair = align_pair(pred, target, valid, align=options["align"])
        return ssi_loss(*pair, **(options | {"align": None})) + 0.5 * gradient_matching_loss(*pair)
    gradient = gradient_matching_loss(pred, target, valid, align=options["align"])
    return ssi_loss(pred, target, valid, **options) + 0.5 * gradient


def loop_both_terms(pred: Tensor, target: Tensor, valid: Tensor, *, options: dict, shared: bool) -> Tensor:
    """MiDaS's loss, image by image."""
    fit, options = (
        (by_median if options["align"] == "median" else by_least_squares),
        {k: v for k, v in options.items() if k != "align"},
    )
    values = []
    for p, t, v in zip(pred, target, valid, strict=True):
        aligned = fit(p, t, v)
        gradient = loop_gradient(*(aligned if shared else fit(p, t, v)), v)
        values.append(loop_ssi(*aligned, v, **options) + 0.5 * gradient)
    return torch.stack(values)


def all_pairs(pred: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Pairwise SI plus SSI by their definition, image by image."""
    values = []
    for p, t, v in zip(pred, target, valid, strict=True):
        p, t = p[v], t[v]
        d, e = p.exp(), t.exp()
        values.append(sum((r[:, None] - r[None, :]).abs().mean() for r in (p - t, d / d.std() - e / e.std())))
    return torch.stack(values)


def si_and_ssi(pred: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """GP2's loss on log-disparity."""
    return pairwise_l1_si_loss(pred, target, valid) + pairwise_l1_ssi_loss(pred.exp(), target.exp(), valid)


def random_maps(batch: int, size: int, mask: str) -> tuple[Tensor, Tensor, Tensor]:
    """Maps and a mask of about 70 %, of single pixels or of regions, with an odd count as the loop's median wants it."""
    target = torch.rand(batch, 1, size, size, dtype=torch.double) + 0.5  # of tied medians either may have the gradient
    pred = target * (0.8 + 0.4 * torch.rand_like(target))
    coarse = size if mask == "pixels" else max(2, size // 16)
    valid = interpolate(torch.randn(batch, 1, coarse, coarse), (size, size), mode="bilinear") > -0.4
    for image in valid:
        image[0, 0, 0] ^= image.sum() % 2 == 0
    return pred, target, valid


def step(loss: Loss, pair: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Forward and backward of the sum; the values and the gradient."""
    pred = pair[0].clone().requires_grad_()
    value = loss(pred, *pair[1:])
    return value.detach(), torch.autograd.grad(value.sum(), pred)[0]


def best_times(losses: dict[str, Loss], pair: tuple[Tensor, Tensor, Tensor], repeat: int) -> dict[str, tuple[float, float]]:
    """Wall and CPU seconds of the fastest forward and backward of each in float32, taking turns."""
    pair = (pair[0].float(), pair[1].float(), pair[2])
    times = {name: (float("inf"), float("inf")) for name in losses}
    for _ in range(repeat + 1):
        for name, loss in losses.items():
            wall, cpu = time.perf_counter(), time.process_time()
            step(loss, pair)
            spent = time.perf_counter() - wall, time.process_time() - cpu
            times[name] = min(times[name][0], spent[0]), min(times[name][1], spent[1])
    return times


def table(title: str, losses: dict[str, Loss], pair: tuple[Tensor, Tensor, Tensor], repeat: int) -> None:
    """One Markdown table; the first loss is the rival that the others are compared with."""
    times = best_times(losses, pair, repeat)
    rival = next(iter(times.values()))
    print(f"\n**{title}**, {tuple(pair[0].shape)}, {pair[2].float().mean():.0%} valid\n")
    print("| | wall [ms] | CPU [ms] | rival / this, wall | CPU |\n|---|--:|--:|--:|--:|")
    for name, (wall, cpu) in times.items():
        print(f"| {name} | {wall * 1e3:.1f} | {cpu * 1e3:.1f} | {rival[0] / wall:.2f} | {rival[1] / cpu:.2f} |")


def compare(name: str, loss: Loss, rival: Loss, pair: tuple[Tensor, Tensor, Tensor]) -> None:
    """Both give the same values and gradients in float64, or the comparison means nothing."""
    assert_close(step(loss, pair), step(rival, pair), msg=lambda m: f"{name} differs from its rival: {m}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=10, help="timed rounds, of which the best counts (default %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch (default %(default)s)")
    parser.add_argument("--batch", type=int, default=8, help="images of the MiDaS losses (default %(default)s)")
    parser.add_argument("--pair-batch", type=int, default=32, help="images of the pairwise losses (default %(default)s)")
    parser.add_argument("--size", type=int, default=384, help="height and width [px] (default %(default)s)")
    arguments = parsed(parser, repeat=1, batch=1, pair_batch=1, size=32)
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, {arguments.threads} threads")
    for mask in ("regions", "pixels"):
        pair = random_maps(arguments.batch, arguments.size, mask)
        for title, options in {"median, l1, trim 0.2": ROBUST, "least squares, l2": SQUARES}.items():
            for shared in (False, True):
                ours, rival = (partial(f, options=options, shared=shared) for f in (both_terms, loop_both_terms))
                compare(title, ours, rival, pair)
                how = "aligned once for both terms" if shared else "each term aligns"
                table(f"{title}, {how}, mask of {mask}", {"loop over images": rival, "depthkit": ours}, pair, arguments.repeat)
    pair = random_maps(arguments.pair_batch, arguments.size, "regions")
    table("All pairs against pixels", {"pointwise l1": pointwise_loss, "pairwise SI + SSI": si_and_ssi}, pair, arguments.repeat)
    pair = random_maps(2, 56, "regions")
    compare("pairwise SI + SSI", si_and_ssi, all_pairs, pair)
    table("All pairs, by definition and sorted", {"O(N^2)": all_pairs, "pairwise SI + SSI": si_and_ssi}, pair, arguments.repeat)


if __name__ == "__main__":
    main()
