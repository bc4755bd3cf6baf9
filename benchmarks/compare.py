"""The table of training speed, ours and the peers' in one run, written to docs/speed.md with the date and versions.

    python -m benchmarks.compare [--rows=dpo,sft,vocabulary,sampling,grpo,growth,start] [--page=docs/speed.md]
        [--tunix_python=VENV/bin/python]

Vocabulary 8192, width 256, 4 layers, 4 query and 2 key/value heads, SwiGLU 704, context 1024, float32, two threads and
a process of its own for each side, random weights that all sides read from one file. The workers
(benchmarks/train_step.py) run in turn, round by round. Their losses of the first steps are compared before their times:
who does other work is not compared. Ratios are of medians over all rounds; peak memory is that of the process. TRL
comes with the extra `parity`; Tunix needs an environment of its own with `pip install google-tunix` (it wants another
jax), and is left out without `--tunix_python`. On a busy machine take ratios only. Sampling, GRPO, growth and start-up
are modules of their own (benchmarks/sampling.py ...), whose output goes onto the page as it is.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from absl import app, flags

from benchmarks import side_by_side

ROWS = {
    "dpo": "DPO step, {rows} pairs x ({prompt} prompt + {completion} completion), reference in the step",
    "sft": "SFT step, {rows} x {length} packed",
    "vocabulary": "DPO step at vocabulary {vocabulary:,}",
}
# What the issue wants of each ratio of ours to a peer: (tokens/s at least, peak memory at most).
WANTED = {
    "dpo": {"trl": (2.0, None), "tunix": (1.5, None)},
    "sft": {"trl": (1.5, None)},
    "vocabulary": {"trl": (None, 0.4), "tunix": (None, 0.4), "full_logits": (1 / 1.15, 0.4)},
}
MODULES = {"sampling": "sampling", "grpo": "grpo_iteration", "growth": "growth", "start": "start_up"}
_ROWS = flags.DEFINE_list("rows", [*ROWS, *MODULES], "what to measure")
_ROUNDS = flags.DEFINE_integer("rounds", 3, "processes per side")
_STEPS = flags.DEFINE_integer("steps", 4, "timed steps in each process, after two to warm up")
_SCALE = flags.DEFINE_integer("divide", 1, "divide rows, lengths and the large vocabulary by this, to try the command")
_TUNIX = flags.DEFINE_string("tunix_python", "", "the Python of an environment with google-tunix; empty: leave it out")
_PAGE = flags.DEFINE_string("page", "", "write the page of results here")


def sizes(row: str) -> dict[str, int]:
    by = _SCALE.value
    vocabulary = 131072 // by if row == "vocabulary" else side_by_side.VOCABULARY
    return {"rows": max(8 // by, 2), "prompt": 128 // by, "completion": 128 // by, "length": 512 // by,
            "vocabulary": vocabulary}  # fmt: skip


def write_files(files: Path, row: str) -> int:
    """Weights, reference and tokens of a row; returns the tokens of a step, counted as the peers process them."""
    import jax
    import numpy as np

    from alignment.models import decoder, hugging_face

    size = sizes(row)
    (files / "words").mkdir()
    side_by_side.write_files(files / "words", 1, 1)  # of which TRL reads the tokenizer
    config = decoder.DecoderConfig(**side_by_side.SHAPE | {"vocab_size": size["vocabulary"]})
    init = jax.jit(decoder.build(config).init)
    ids = {"bos_token_id": None, "eos_token_id": side_by_side.EOS, "pad_token_id": side_by_side.PAD}
    start, other = (jax.device_get(init(jax.random.key(seed))) for seed in (0, 1))
    # A reference that differs, so that the loss says whether both sides score alike.
    reference = jax.tree.map(lambda a, b: a + 0.1 * (b - a), start, other)
    for name, params in (("model", start), ("reference", reference)):
        hugging_face.save(files / name, config, params, extra_config=ids)
    rng, steps = np.random.default_rng(0), 2 + _STEPS.value
    shapes = {"row": size["length"]} if row == "sft" else {
        "prompt": size["prompt"], "chosen": size["completion"], "rejected": size["completion"]
    }  # fmt: skip
    tokens = {k: rng.integers(2, size["vocabulary"], (steps, size["rows"], n)).tolist() for k, n in shapes.items()}
    (files / "tokens.json").write_text(json.dumps(tokens))
    return size["rows"] * (size["length"] if row == "sft" else 2 * (size["prompt"] + size["completion"]))


def check_losses(reports: dict[str, list[dict]]) -> str:
    """How far apart the losses of the first two steps are; SystemExit if sides do not do the same work."""
    first = {side: runs[0]["losses"][:2] for side, runs in reports.items()}
    apart = max(abs(a - b) for losses in first.values() for a, b in zip(losses, first["ours"], strict=True))
    if apart > 1e-3 * max(map(abs, first["ours"])):
        raise SystemExit(f"the sides do not do the same work; losses of the first two steps: {first}")
    return f"losses of the first two steps agree within {apart:.0e} ({', '.join(f'{x:.4f}' for x in first['ours'])})"


def compare(row: str) -> list[str]:
    """Lines of the page for one row of the table."""
    pythons = {"ours": "", "trl": ""}
    if _TUNIX.value and row != "sft":
        pythons["tunix"] = _TUNIX.value
    if row == "vocabulary":
        pythons["full_logits"] = ""
    title = ROWS[row].format(**sizes(row))
    print(title, flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        tokens = write_files(Path(scratch), row)
        of_work = [f"--work={'sft' if row == 'sft' else 'dpo'}", f"--files={scratch}", f"--steps={_STEPS.value}"]
        reports = side_by_side.alternate("benchmarks.train_step", pythons, _ROUNDS.value, *of_work)
    agreement = check_losses(reports)
    lines = [f"## {title}", "", f"{agreement[0].upper()}{agreement[1:]}.", ""]
    lines += side_by_side.table(reports, tokens, WANTED[row])
    shares = [r["flop"] / statistics.median(r["seconds"]) / r["matmul"] for r in reports["ours"]]
    rates = [r["matmul"] / 1e9 for r in reports["ours"]]
    lines += ["", f"Ours reaches {statistics.median(shares):.0%} of the machine's float32 matmul rate, measured in the "
              f"same processes ({min(rates):.0f} to {max(rates):.0f} GFLOP/s); wanted: at least 50 %. Counted is what "
              "a step has to compute, nothing twice.", ""]  # fmt: skip
    return lines


def module_lines(row: str) -> list[str]:
    """What `python -m benchmarks.MODULE` prints: markdown."""
    command = [sys.executable, "-m", f"benchmarks.{MODULES[row]}", f"--divide={_SCALE.value}"]
    command += [f"--rounds={_ROUNDS.value}"] if row in ("sampling", "grpo") else []
    command += [f"--tunix_python={_TUNIX.value}"] if row == "sampling" else []
    printed = side_by_side.output_of(command)
    print(printed, flush=True)
    return [*printed.splitlines(), ""]


def versions() -> str:
    names = ("jax", "jaxlib", "optax", "torch", "transformers", "trl")
    found = [f"{n} {importlib.metadata.version(n)}" for n in names if _installed(n)]
    if _TUNIX.value:
        code = (
            "from importlib.metadata import version as v; print('google-tunix', v('google-tunix'), 'on jax', v('jax'))"
        )
        found.append(subprocess.run([_TUNIX.value, "-c", code], capture_output=True, text=True).stdout.strip())
    return f"Python {platform.python_version()}, {', '.join(found)}"


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def main(_) -> None:
    if unknown := set(_ROWS.value) - {*ROWS, *MODULES}:
        sys.exit(f"error: --rows={sorted(unknown)[0]}: not one of {', '.join((*ROWS, *MODULES))}")
    load = os.getloadavg()[0]
    lines = ["# Speed", "", f"Printed by `python -m benchmarks.compare` on {datetime.date.today()}: {versions()}; "
             f"{processor()}, {side_by_side.THREADS} threads; load average {load:.1f} when it began."
             + (" The machine was busy: ratios only." if load > side_by_side.THREADS else ""), ""]  # fmt: skip
    if not _TUNIX.value:
        lines += ["Tunix was left out: no `--tunix_python` was given.", ""]
    for row in _ROWS.value:
        lines += compare(row) if row in ROWS else module_lines(row)
    text = "\n".join(lines).rstrip() + "\n"
    print("\n" + text)
    if _PAGE.value:
        Path(_PAGE.value).write_text(text)


if __name__ == "__main__":
    app.run(main)
