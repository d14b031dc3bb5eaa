"""How long ``import depthkit.metrics`` takes beside the library it stands on, ``import torchmetrics``.

Each import runs in a fresh interpreter; the two alternate so that a busy machine slows both. Measured inside the
interpreter, so its own start-up is not counted.
"""

import argparse
import statistics
import subprocess
import sys

from _command import parsed

PROGRAM = "import time; start = time.perf_counter(); import {module}; print(time.perf_counter() - start)"
MODULES = ("torchmetrics", "depthkit.metrics")


def seconds(module: str) -> float:
    """Time of one import in a fresh interpreter [s]."""
    done = subprocess.run([sys.executable, "-c", PROGRAM.format(module=module)], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=9, help="fresh interpreters per module (7 or more for a figure to quote)")
    repeat = parsed(parser, repeat=1).repeat
    for module in MODULES:
        seconds(module)  # byte-compile and fill the file cache
    times: dict[str, list[float]] = {module: [] for module in MODULES}
    for _ in range(repeat):
        for module in MODULES:
            times[module].append(seconds(module))
    print("| import | median [s] | min [s] | max [s] |\n|---|--:|--:|--:|\n", end="")
    for module, each in times.items():
        print(f"| `{module}` | {statistics.median(each):.3f} | {min(each):.3f} | {max(each):.3f} |")
    rival, ours = (statistics.median(times[module]) for module in MODULES)
    print(f"\nratio of medians: {ours / rival:.3f} (limit 1.2), {repeat} fresh interpreters each, alternating")


if __name__ == "__main__":
    main()
