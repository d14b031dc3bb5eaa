"""What the published package ``monodepth2`` evaluates from given seeds, saved for a test to compare with.

It runs in a process of its own, as ``python monodepth2_evaluation_oracle.py PACKAGE_FOLDER OUTPUT_FILE``: see
``monodepth2_oracle.py``. The two programs of the package also import data sets that it does not ship, and packages that it
does not declare; only their functions of arrays are called here, so empty modules stand in for what is missing.
"""

import importlib.util
import sys
from types import ModuleType

import cv2
import numpy as np
import torch


def stand_in(name: str, *attributes: str) -> None:
    module = ModuleType(name)
    for attribute in attributes:
        setattr(module, attribute, None)
    sys.modules[name] = module


def pose(rng: np.random.Generator) -> np.ndarray:
    """A motion that turns by about a fifth of a turn."""
    matrix = np.eye(4)
    matrix[:3, :3] = cv2.Rodrigues(rng.normal(size=3))[0]
    matrix[:3, 3] = rng.normal(size=3)
    return matrix


def odometry(evaluate_pose, rng: np.random.Generator) -> dict:
    """Every snippet of a sequence, as the program goes through it."""
    pred, target = (np.stack([pose(rng) for _ in range(11)]) for _ in range(2))
    errors = [
        evaluate_pose.compute_ate(
            np.array(evaluate_pose.dump_xyz(target[i : i + 4])), np.array(evaluate_pose.dump_xyz(pred[i : i + 4]))
        )
        for i in range(11)
    ]
    return {"pred": torch.tensor(pred), "target": torch.tensor(target), "errors": torch.tensor(errors, dtype=torch.float64)}


def kitti(evaluate_depth, rng: np.random.Generator) -> dict:
    """The steps of the program around its function of errors, for both splits and both scalings."""
    found = []
    for _ in range(3):
        disparity = rng.uniform(0.02, 0.5, (96, 320)).astype(np.float32)
        depth = np.exp(rng.uniform(np.log(0.5), np.log(120), (375, 1242))).astype(np.float32)
        depth[rng.random(depth.shape) > 0.1] = 0
        pred = 1 / cv2.resize(disparity, (1242, 375))
        numbers = {"disparity": torch.tensor(disparity), "depth": torch.tensor(depth)}
        for split in ("eigen", "improved"):
            mask = depth > 0
            if split == "eigen":
                inside = np.zeros_like(mask)
                inside[153:371, 44:1197] = True
                mask = (depth > 1e-3) & (depth < 80) & inside
            p, g = pred[mask].astype(np.float64), depth[mask].astype(np.float64)
            numbers[f"{split}_scale"] = float(np.median(g) / np.median(p))
            for name, scaled in (("", p * numbers[f"{split}_scale"]), ("_metric", p)):
                errors = evaluate_depth.compute_errors(g, np.clip(scaled, 1e-3, 80))
                numbers[split + name] = torch.tensor([float(x) for x in errors], dtype=torch.float64)
        found.append(numbers)
    return {"images": found}


def flip(evaluate_depth, rng: np.random.Generator) -> dict:
    seen, mirrored = rng.random((2, 2, 24, 80))
    both = evaluate_depth.batch_post_process_disparity(seen, mirrored[:, :, ::-1])
    return {"seen": torch.tensor(seen), "mirrored": torch.tensor(mirrored), "averaged": torch.tensor(both)}


if __name__ == "__main__":
    folder, output = sys.argv[1:]
    sys.path.insert(0, folder)
    stand_in("datasets", "KITTIOdomDataset", "KITTIRAWDataset", "KITTIDepthDataset")
    if importlib.util.find_spec("six") is None:
        stand_in("six")
        stand_in("six.moves", "urllib")
    import evaluate_depth
    import evaluate_pose

    rng = np.random.default_rng(0)
    parts = {"odometry": odometry(evaluate_pose, rng), "kitti": kitti(evaluate_depth, rng), "flip": flip(evaluate_depth, rng)}
    torch.save(parts, output)
