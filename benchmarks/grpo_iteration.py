"""Seconds per GRPO iteration of `experiments.reinforce` and of TRL's GRPOTrainer: rollouts, rewards, one update.

    python -m benchmarks.grpo_iteration [--rounds=2 --iterations=5 --divide=1]

Prints markdown. 8 prompts x 8 completions, 64 + 64 tokens, vocabulary 8192, width 256, 4 layers, 4 query and 2
key/value heads, SwiGLU 704, float32, the same random weights; a reward that reads the text and costs nothing; clipped
ratios with a token mean, no reference model, AdamW with the gradient clipped at 1, one step per iteration. Both sides
run as a user runs them: the script here, the trainer there (gradient checkpointing, its default, off: it would only
cost time). First the loss and the gradient norm of TRL's first batch are compared with those of the script on the same
completions. Needs the extra `parity`.
"""

from __future__ import annotations

import itertools
import json
import sys
import tempfile
import time
from pathlib import Path

from absl import app, flags

from benchmarks import even_words, side_by_side

_SIDE = flags.DEFINE_enum("side", "", ["", "ours", "trl", "agreement"], "which worker to be; none: drive both")
_FILES = flags.DEFINE_string("files", "", "for workers: the directory of weights and prompts")
_ROUNDS = flags.DEFINE_integer("rounds", 2, "processes per side")
_ITERATIONS = flags.DEFINE_integer("iterations", 5, "timed iterations in each process, after one to warm up")
_DIVIDE = flags.DEFINE_integer("divide", 1, "divide prompts, group and lengths by this, to try the command")

LEARNING_RATE = 1e-6


def groups() -> int:
    """How many prompts, and how many completions of each."""
    return max(8 // _DIVIDE.value, 2)


def length() -> int:
    """Tokens of a prompt, and of a completion."""
    return 64 // _DIVIDE.value


# ---------------------------------------------------------------------------------------------------------------- ours


def config_of(files: Path, iterations: int):
    from configs import online

    config = online.base()
    config.model.hugging_face = str(files / "model")
    config.data.update(
        {"source": str(files / "prompts.jsonl"), "prompt_length": length(), "completion_length": length()}
    )
    config.rollout.prompts, config.rollout.group_size = groups(), groups()
    config.rewards = {"even": {"function": "benchmarks.even_words:reward"}}
    config.advantages = {"grpo_advantages": {"eps": 1e-4}}
    config.objective = {"ppo": {"weight": 1.0, "reduction": "token_mean"}}
    config.optimizer.update({"learning_rate": LEARNING_RATE, "schedule": "constant", "warmup_steps": 0, "b2": 0.999})
    config.training.iterations = config.training.eval_every = config.checkpoints.every = iterations
    config.checkpoints.export_hugging_face = False
    return config


def run_of(config) -> list[dict]:
    """The lines of metrics.jsonl of a run, one per iteration."""
    from alignment.training import logging
    from experiments import reinforce

    with tempfile.TemporaryDirectory() as workdir:
        reinforce.run(config, Path(workdir))
        rows = logging.read_metrics(Path(workdir) / "metrics.jsonl")
    return [row for row in rows if row["split"] == "train"]


def ours(files: Path) -> None:
    rows = run_of(config_of(files, 1 + _ITERATIONS.value))
    seconds = [row["rollout_seconds"] + row["update_seconds"] for row in rows]
    sampling = sum(row["rollout_seconds"] for row in rows[1:]) / len(rows[1:])
    side_by_side.report("ours", seconds[1:], warm_up=seconds[0], sampling=sampling)


def agreement(files: Path) -> None:
    config = config_of(files, 1)
    config.data.source = str(files / "recorded.jsonl")
    config.rollout.engine = "benchmarks.even_words:recorded_engine"
    config.rollout.top_p = 0.999  # which the engine does not look at: log-probs are then taken anew, as TRL does
    row = run_of(config)[0]
    side_by_side.report("agreement", [], loss=row["loss"], grad_norm=row["grad_norm"], reward=row["reward"])


# ----------------------------------------------------------------------------------------------------------------- trl


def trl(files: Path) -> None:
    import datasets
    import torch
    import transformers
    import trl

    torch.set_num_threads(side_by_side.THREADS)
    lines = [json.loads(line) for line in (files / "prompts.jsonl").read_text().splitlines()]
    steps, ends = 1 + _ITERATIONS.value, []

    class Clock(transformers.TrainerCallback):
        def on_step_end(self, *_, **__):
            ends.append(time.perf_counter())

    settings = trl.GRPOConfig(
        output_dir=str(files / "trl"), use_cpu=True, bf16=False, gradient_checkpointing=False, report_to=[],
        save_strategy="no", logging_steps=1, disable_tqdm=True, max_steps=steps, learning_rate=LEARNING_RATE,
        lr_scheduler_type="constant", per_device_train_batch_size=groups() * groups(),
        num_generations=groups(), max_completion_length=length(), loss_type="dapo", beta=0.0,
        temperature=1.0, seed=0, disable_dropout=True,
        shuffle_dataset=False,  # shuffled, two groups of a batch may have the same prompt; the script's never do
    )  # fmt: skip
    model = transformers.AutoModelForCausalLM.from_pretrained(files / "model", dtype=torch.float32)
    trainer = trl.GRPOTrainer(
        model,
        lambda completions, **_: [even_words.reward(None, c, None) for c in completions],
        settings,
        train_dataset=datasets.Dataset.from_list(lines * steps),
        processing_class=transformers.AutoTokenizer.from_pretrained(files / "model", padding_side="left"),
        callbacks=[Clock()],
    )
    generate, recorded = trainer._generate, []

    def recording(prompts):
        out = generate(prompts)
        if not recorded:
            recorded.extend(zip(prompts, out[0], out[1], strict=True))
        return out

    trainer._generate = recording
    began = time.perf_counter()
    trainer.train()
    drawn: dict[tuple, list] = {}
    for _, prompt, completion in recorded:
        drawn.setdefault(tuple(map(int, prompt)), []).append([int(i) for i in completion])
    (files / "recorded.json").write_text(json.dumps([[list(p), c] for p, c in drawn.items()]))
    texts = dict.fromkeys(text for text, *_ in recorded)
    (files / "recorded.jsonl").write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts))
    first = trainer.state.log_history[0]
    seconds = [b - a for a, b in itertools.pairwise(ends)]
    side_by_side.report(
        "trl",
        seconds,
        warm_up=ends[0] - began,
        loss=first["loss"],
        grad_norm=first["grad_norm"],
        reward=first["reward"],
    )


def main(_) -> None:
    if _SIDE.value:
        {"ours": ours, "trl": trl, "agreement": agreement}[_SIDE.value](Path(_FILES.value))
        return
    module = "benchmarks.grpo_iteration"
    print(f"## GRPO iteration, {groups()} prompts x {groups()} completions, {length()} + {length()} tokens\n")
    with tempfile.TemporaryDirectory() as scratch:
        side_by_side.write_files(Path(scratch), groups(), length())
        given = [f"--iterations={_ITERATIONS.value}", f"--divide={_DIVIDE.value}", f"--files={scratch}"]
        reports = side_by_side.alternate(module, {"ours": "", "trl": ""}, _ROUNDS.value, *given)
        same = side_by_side.run_worker(module, "agreement", *given)
    theirs = reports["trl"][-1]
    both = ", ".join(
        f"{name} {theirs[name]:.6f} there, {same[name]:.6f} here" for name in ("loss", "grad_norm", "reward")
    )
    print(f"TRL's first batch: {both}.")
    # TRL rounds what it logs to 4 digits or so; a loss of about 0 is the mean of advantages that cancel.
    if (
        abs(same["grad_norm"] - theirs["grad_norm"]) > 1e-3 * theirs["grad_norm"]
        or abs(same["loss"] - theirs["loss"]) > 1e-3
    ):
        raise SystemExit("the two sides do not compute the same update")
    print("", *side_by_side.table(reports, groups() * groups() * length(), {"trl": (3.0, None)}), sep="\n")


if __name__ == "__main__":
    if any(argument.startswith("--side=") and argument != "--side=" for argument in sys.argv):
        side_by_side.start_worker()
    app.run(main)
