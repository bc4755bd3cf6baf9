"""What starting costs: importing the kernels alone, the time to the first step, and that with a warm compilation cache.

    python -m benchmarks.start_up

Prints markdown. Each figure is the median of three fresh processes; the files are in the page cache by then.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time

from absl import app, flags

from benchmarks import side_by_side

_DIVIDE = flags.DEFINE_integer("divide", 1, "for the driver; starting has no size")
REPEATS = 3


def seconds_of(code: str, **environment: str) -> float:
    """Wall time of a fresh Python that runs `code`, less that of one that runs nothing."""
    return run([sys.executable, "-c", code], **environment) - run([sys.executable, "-c", "pass"], **environment)


def run(command: list[str], **environment: str) -> float:
    began = time.perf_counter()
    side_by_side.output_of(command, **environment)
    return time.perf_counter() - began


def median(function) -> float:
    return statistics.median(function() for _ in range(REPEATS))


def main(_) -> None:
    print("## Start-up\n\n| what | seconds |\n|---|---|")
    seconds_of("import alignment.losses")
    for module in ("alignment.losses", "alignment.policy_gradients", "experiments.finetune"):
        print(f"| `import {module}` | {median(lambda m=module: seconds_of(f'import {m}')):.2f} |", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        cache = {"JAX_COMPILATION_CACHE_DIR": f"{scratch}/cache", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
                 "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}  # fmt: skip
        for what in ("an empty", "a warm"):
            command = [
                sys.executable, "-m", "experiments.finetune", "--config=configs/sft.py",
                f"--workdir={scratch}/{what[-5:]}",
                "--config.training.steps=1", "--config.training.eval_every=1", "--config.checkpoints.every=1",
                "--config.gold.samples=0",
            ]  # fmt: skip
            print(
                f"| `experiments.finetune` with one SFT step, {what} compilation cache | {run(command, **cache):.1f} |"
            )


if __name__ == "__main__":
    app.run(main)
