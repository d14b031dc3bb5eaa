"""Which images train, which stop the training, which judge it: by scene, else by blocks of the sequence."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from depthkit.errors import RecipeError
from depthkit.types import scene_of

NEAR = 4
"""Bits of a signature, of 64, in which the signatures of near duplicates may differ."""
_ROWS = 1024  # signatures compared at a time
_GAP_FROM = 6  # images in a sequence from which one is left out between two blocks


@dataclass(frozen=True)
class Division:
    """Positions of the samples of each use.

    Attributes:
        train: learnt from.
        val: decide when training stops, and which of its weights are taken.
        test: decide between these and the start.
        by: ``scenes``, ``blocks``, or the splits of shards.
        left_out: neither: neighbours of a block's border, and images that show what a held-out one shows.
    """

    train: tuple[int, ...]
    val: tuple[int, ...]
    test: tuple[int, ...]
    by: str
    left_out: int


def divided(keys: Sequence[str], signatures: np.ndarray, share: float, *, judging: Sequence[int] = ()) -> Division:
    """Divide samples so that nothing that is held out has been seen in training.

    Whole scenes are held out, from the last one on; of a single scene, or where one holds nearly everything, the end of the
    sequence. Of what is left a part of the same share is held out to stop the training.

    Args:
        keys: names of the samples, in the order of the sequence.
        signatures: bool ``(N, 64)``, see ``survey.signature``.
        share: of the images that judge.
        judging: positions of those that judge, where that is known; otherwise they are chosen.

    Raises:
        RecipeError: too few images, or all alike.
    """
    if not 0 < share < 1:
        raise RecipeError(f"expected hold_out between 0 and 1; got {share:g}.")
    scenes = [scene_of(key) for key in keys]
    rest, test, by = [n for n in range(len(keys)) if n not in set(judging)], list(judging), "test split"
    if not judging:
        rest, test, by = _held_out(rest, scenes, share)
    train, val, _ = _held_out(rest, scenes, share)
    if min(map(len, (train, val, test))) == 0:
        raise RecipeError(
            f"expected images to learn from and others to judge by; got {len(keys)} of {len(set(scenes))} scene"
            f"{'s' * (len(set(scenes)) > 1)}, of which nothing can be held out. Give at least 3 images, best of several scenes."
        )
    val = _unlike(val, test, signatures)
    kept = _unlike(train, [*val, *test], signatures)
    if not kept or not val:
        raise RecipeError(
            f"expected images that differ; nearly all of the {len(keys)} show what those held out show, so nothing could be "
            "told from them. Give images of other places, or of a camera that moves."
        )
    return Division(tuple(kept), tuple(val), tuple(test), by, len(keys) - len(kept) - len(val) - len(test))


def _held_out(positions: Sequence[int], scenes: Sequence[str], share: float) -> tuple[list[int], list[int], str]:
    """Divide positions in two: what stays, and what is held out, no scene on both sides unless there is one alone."""
    wanted = max(1, round(share * len(positions)))
    sizes: dict[str, int] = {}
    for position in positions:
        sizes[scenes[position]] = sizes.get(scenes[position], 0) + 1
    held, names = 0, set[str]()
    for name, size in reversed(sizes.items()):
        if held < wanted and held + size <= max(len(positions) // 2, 1) and len(names) + 1 < len(sizes):
            held, names = held + size, names | {name}
    if names:
        return [p for p in positions if scenes[p] not in names], [p for p in positions if scenes[p] in names], "scenes"
    border = len(positions) - wanted
    gap = 1 if len(positions) >= _GAP_FROM else 0
    return list(positions[: max(border - gap, 0)]), list(positions[border:]), "blocks"


def _unlike(positions: Sequence[int], others: Sequence[int], signatures: np.ndarray) -> list[int]:
    """Keep the positions whose signature is near to none of the others'."""
    alike = near(signatures[list(positions)], signatures[list(others)]) if positions and others else np.zeros(0, bool)
    return [p for p, seen in zip(positions, alike, strict=True) if not seen]


def near(signatures: np.ndarray, others: np.ndarray, *, earlier: bool = False) -> np.ndarray:
    """Tell which signatures are near to one of others.

    Args:
        signatures: bool ``(N, 64)``.
        others: bool ``(M, 64)``.
        earlier: of the two being the same, compare with those before it only.

    Returns:
        bool ``(N,)``.
    """
    ours, theirs = (np.where(x, 1, -1).astype(np.float32) for x in (signatures, others))
    found = []
    for first in range(0, len(ours), _ROWS):
        agreeing = ours[first : first + _ROWS] @ theirs.T  # bits that agree less those that differ, exact
        if earlier:
            agreeing[np.arange(len(theirs)) >= np.arange(first, first + len(agreeing))[:, None]] = -np.inf
        found.append(agreeing.max(1) >= ours.shape[1] - 2 * NEAR)
    return np.concatenate(found)
