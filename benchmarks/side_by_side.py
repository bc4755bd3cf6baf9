"""Runs the workers of a benchmark in turn, each in a process of its own on two threads, and compares their medians.

A benchmark module has one worker per side: `python -m benchmarks.NAME --side=SIDE --files=DIR` measures and prints one
line of JSON, `{"seconds": [...], "warm_up": s, "peak_mb": m, ...}`. Without `--side` it drives: `files` writes weights,
tokenizer and prompts that all sides read, `alternate` starts the workers one after the other, round by round, so that a
machine that gets slower gets slower for all of them, and `table` has what came of it.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

THREADS = 2
VOCABULARY, PAD, EOS = 8192, 0, 1
SHAPE = {
    "vocab_size": VOCABULARY, "hidden_size": 256, "intermediate_size": 704, "num_layers": 4, "num_heads": 4,
    "num_kv_heads": 2, "max_position_embeddings": 1024, "tie_word_embeddings": True,
    "rope_theta": 1e6,  # Tunix 0.1.7 rotates Llama's positions with it whatever its config says
}  # fmt: skip


def start_worker() -> None:
    """To be called before jax or torch is imported: both count the processors they may run on."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(THREADS)


def timed(work: Callable[[], object], repeats: int) -> list[float]:
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return seconds


def report(side: str, seconds: Sequence[float], **more) -> None:
    """The worker's one line; the peak is that of the process, start-up and compilation included."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024**2 if sys.platform == "darwin" else 1024)
    print("RESULT " + json.dumps({"side": side, "seconds": list(seconds), "peak_mb": peak, **more}), flush=True)


def output_of(command: Sequence[str], **environment: str) -> str:
    """What a command prints, run on the CPU in the root of this repository; SystemExit with its end if it fails."""
    root = str(Path(__file__).resolve().parent.parent)
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=root,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": root} | environment,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return done.stdout


def run_worker(module: str, side: str, *flags: str, python: str = "") -> dict:
    """`python`: that of another environment, for a peer that wants other versions."""
    printed = output_of([python or sys.executable, "-m", module, f"--side={side}", *flags])
    lines = [line for line in printed.splitlines() if line.startswith("RESULT ")]
    if not lines:
        raise SystemExit(f"{module} --side={side} reported nothing:\n{printed[-2000:]}")
    return json.loads(lines[-1].removeprefix("RESULT "))


def alternate(module: str, pythons: Mapping[str, str], rounds: int, *flags: str) -> dict[str, list[dict]]:
    """The reports of each side, started with its Python; every other round begins with the other end of the list."""
    reports: dict[str, list[dict]] = {side: [] for side in pythons}
    for number in range(rounds):
        for side in pythons if number % 2 == 0 else reversed(pythons):
            reports[side].append(run_worker(module, side, *flags, python=pythons[side]))
            median = statistics.median(reports[side][-1]["seconds"])
            print(f"  round {number + 1}, {side}: {median:.3f} s", file=sys.stderr, flush=True)
    return reports


def table(
    reports: dict[str, list[dict]], tokens: int, wanted: Mapping[str, tuple[float | None, float | None]]
) -> list[str]:
    """Markdown: medians over all timed repeats of all rounds; the ratios are to the first side.

    `wanted` of a side: how many times faster ours is to be, and what share of its memory ours may take.
    """
    medians = {side: statistics.median([s for r in runs for s in r["seconds"]]) for side, runs in reports.items()}
    peaks = {side: max(r["peak_mb"] for r in runs) for side, runs in reports.items()}
    ours = next(iter(medians))
    columns = "side | seconds | fastest | tokens/s | first after | peak MB | ours is faster by | ours' peak | wanted"
    lines = [f"| {columns} |", "|---" * (columns.count("|") + 1) + "|"]
    for side, runs in reports.items():
        fastest = min(s for r in runs for s in r["seconds"])
        warm_up = statistics.median(r["warm_up"] for r in runs)
        speed, memory = wanted.get(side, (None, None))
        goals = [f"at least {speed:.2f}x" for speed in [speed] if speed]
        goals += [f"at most {memory:.0%} of the memory" for memory in [memory] if memory]
        lines.append(
            f"| {side} | {medians[side]:.3f} | {fastest:.3f} | {tokens / medians[side]:,.0f} | {warm_up:.1f} s "
            f"| {peaks[side]:,.0f} | {medians[side] / medians[ours]:.2f}x | {peaks[ours] / peaks[side]:.0%} "
            f"| {', '.join(goals)} |"
        )
    load = os.getloadavg()[0]
    busy = "; the machine is busy: take ratios only" if load > THREADS + 1 else ""
    return [*lines, "", f"Load average when it ended: {load:.1f}{busy}."]


def load_tunix(directory: Path):
    """(config, mesh, model) of Tunix with the weights of a checkpoint of transformers; under Tunix' own Python."""
    import jax
    from tunix.models.llama3 import model, params

    shape = json.loads((directory / "config.json").read_text())
    config = model.ModelConfig(
        num_layers=shape["num_hidden_layers"], vocab_size=shape["vocab_size"], embed_dim=shape["hidden_size"],
        hidden_dim=shape["intermediate_size"], num_heads=shape["num_attention_heads"],
        head_dim=shape["hidden_size"] // shape["num_attention_heads"], num_kv_heads=shape["num_key_value_heads"],
        rope_theta=1_000_000, norm_eps=shape["rms_norm_eps"], weight_tying=True,
    )  # fmt: skip
    mesh = jax.make_mesh((1, 1), ("fsdp", "tp"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    with mesh:
        weights = params.create_model_from_safe_tensors(str(directory), config, mesh, dtype=jax.numpy.float32)
    return config, mesh, weights


def write_files(directory: Path, prompts: int, length: int) -> None:
    """weights and tokenizer/ as transformers keeps them, and prompts.jsonl, `length` words each.

    The tokenizer has one word per token, so that a prompt has as many tokens as words on every side.
    """
    import jax
    import numpy as np
    import tokenizers

    from alignment.models import decoder, hugging_face

    config = decoder.DecoderConfig(**SHAPE)
    params = jax.device_get(decoder.build(config).init(jax.random.key(0)))
    ids = {"bos_token_id": None, "eos_token_id": EOS, "pad_token_id": PAD}
    hugging_face.save(directory / "model", config, params, extra_config=ids)
    words = {"<pad>": PAD, "<eos>": EOS, **{f"w{i}": i for i in range(2, VOCABULARY)}}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<pad>"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(["<pad>", "<eos>"])
    tokenizer.save(str(directory / "model" / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<eos>", "pad_token": "<pad>"}
    (directory / "model" / "tokenizer_config.json").write_text(json.dumps(settings))
    drawn = np.random.default_rng(0).integers(2, VOCABULARY, (prompts, length))
    lines = (json.dumps({"prompt": " ".join(f"w{i}" for i in row)}) + "\n" for row in drawn)
    (directory / "prompts.jsonl").write_text("".join(lines))


def prompt_ids(directory: Path) -> list[list[int]]:
    lines = (directory / "prompts.jsonl").read_text().splitlines()
    return [[int(word[1:]) for word in json.loads(line)["prompt"].split()] for line in lines]
