"""How fast are synthetic scenes drawn? Images per second and core, against the same renderer without its two ideas.

Rivals in the same run: every solid crossed with every ray (no culling), and one ray at a time (no arrays), the latter on a
small image and scaled to the same number of pixels. Times are processor time, so that other work on the machine matters
little; set OMP_NUM_THREADS=1 to keep each process on one core.
"""

import argparse
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from statistics import median
from time import perf_counter, process_time

import numpy as np
from _command import parsed

from depthkit.synthetic import SyntheticScenes, render
from depthkit.synthetic.shading import trace


def seconds(function: Callable[[int], object], items: range) -> list[float]:
    """Processor time of each call."""
    times = []
    for i in items:
        start = process_time()
        function(i)
        times.append(process_time() - start)
    return times


def one_ray_at_a_time(data: SyntheticScenes, index: int, size: tuple[int, int]) -> None:
    """The picture without smoothed edges, pixel by pixel."""
    scene = data.scene(index)
    pose, k = scene.path.world_from_camera(0), scene.intrinsics(size)
    for row, column in np.ndindex(size):
        ray = np.array([(column - k[0, 2]) / k[0, 0], (row - k[1, 2]) / k[1, 1], 1], np.float32)
        trace(scene, scene.solids, pose, ray[:, None, None], 1 / k[0, 0], cull=False)


def draw(job: tuple[int, int, tuple[int, int]]) -> float:
    """One sample in a worker; its processor time."""
    count, index, size = job
    start = process_time()
    SyntheticScenes(count, size=size)[index]
    return process_time() - start


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=40, help="pictures of each kind (default: 40)")
    parser.add_argument("--size", type=int, nargs=2, default=(192, 256), metavar=("HEIGHT", "WIDTH"), help="default: 192 256")
    parser.add_argument("--processes", type=int, default=2, help="workers of the run that is timed by the clock (default: 2)")
    arguments = parsed(parser, images=2, size=(24, 32))
    size, count = tuple(arguments.size), arguments.images
    few, small = max(count // 10, 2), (6, 8)

    print(f"| {size[0]} x {size[1]} | s / image | images / s and core | unculled / ours | ray by ray / ours |")
    print("|---|--:|--:|--:|--:|")
    for kind in ("room", "street"):
        data = SyntheticScenes(count, kind=kind, size=size)
        data.view(0)  # the noise pyramid
        ours = seconds(data.view, range(count))
        unculled = seconds(lambda i, data=data: render(data.scene(i), size, cull=False), range(few))
        pixels = size[0] * size[1] / (small[0] * small[1])
        by_ray = seconds(lambda i, data=data: one_ray_at_a_time(data, i, small), range(2))
        culling, arrays = sum(unculled) / sum(ours[:few]), sum(by_ray) * pixels / sum(ours[:2])
        print(f"| {kind} | {median(ours):.3f} | {1 / np.mean(ours):.1f} | {culling:.1f} | {arrays:.0f} |")

    jobs = [(2 * count, i, size) for i in range(2 * count)]
    with ProcessPoolExecutor(arguments.processes, mp_context=get_context("spawn")) as workers:
        list(workers.map(draw, jobs[: 4 * arguments.processes]))  # imports
        start = perf_counter()
        busy = sum(workers.map(draw, jobs, chunksize=4)) / arguments.processes
        clock = perf_counter() - start
    scale = 2000 / len(jobs)
    print(
        f"\n2,000 mixed samples by {arguments.processes} processes: {scale * busy:.0f} s of processor time each, "
        f"{scale * clock:.0f} s by the clock."
    )


if __name__ == "__main__":
    main()
