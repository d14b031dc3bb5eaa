"""``import depthkit.metrics`` stays light, so that a script that only scores depth maps may use it."""

import subprocess
import sys

HEAVY = ("lightning", "pytorch_lightning", "timm", "webdataset", "albumentations", "diffusers", "cv2", "kornia")


def test_importing_the_metrics_imports_nothing_heavy():
    program = f"import sys, depthkit.metrics; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
