"""Decodes prompts with one or several decoders and shows the outputs side by side.

    python -m experiments.generate --config=configs/best_of_n.py --workdir=DIR [--config.decoders.best_of_n.n=64 ...]

The config names finished runs (plain, aligned, guides, reward models) and decoders of `experiments.decoders`. WORKDIR
receives outputs.jsonl (an object with prompt, output, model, and the reward and the KL where they are known, for every
prompt and decoder; `model` is the decoder's name in the config), table.md (the same side by side, of several samples of
a prompt the first) and result.json.
"""

from __future__ import annotations

import contextlib
import json
import textwrap
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from alignment.training import mesh
from configs import common
from configs import generate as generate_config
from experiments import command, decoders, from_config, prompt_sets, reward_models, stages
from experiments.decoders import Loaded, Setting, Written
from experiments.from_config import say
from experiments.prompt_sets import Prompt

_TASK_SIZE = 128


def run(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """Decodes everything; returns what it prints at the end."""
    common.check_keys(config, generate_config.base(), free=generate_config.FREE)
    generate_config.check_numbers(config)
    columns = {name: decoders.named(f"config.decoders.{name}", dict(s)) for name, s in config.decoders.items()}
    command.check_writable(workdir)

    # --- models and prompts
    device_mesh = mesh.make_mesh(config.mesh)
    loaded = {
        name: from_config.load_run(f"config.models.{name}", directory, device_mesh)
        for name, directory in config.models.items()
    }
    _, tokenizer, _, _ = next(iter(loaded.values()))
    prompts = [p for p in load_prompts(config, tokenizer) for _ in range(config.data.samples)]
    check_tokenizers({name: other for name, (_, other, _, _) in loaded.items()}, prompts)

    # --- decode
    written, results = {}, {}
    with contextlib.ExitStack() as stack:
        reward, scorer = (open_rewards(config, section, device_mesh, stack) for section in ("rewards", "scores"))
        setting = Setting(
            {name: Loaded(model, params) for name, (_, _, model, params) in loaded.items()}, tokenizer,
            config.data.prompt_length, config.data.completion_length, jax.random.key(config.seed),
            scorer or reward or no_scores, config.reference,
        )  # fmt: skip
        for name, decode in columns.items():
            if config.timing:
                decode(setting, prompts)
            began = time.perf_counter()
            written[name] = decode(setting, prompts)
            seconds, tokens = time.perf_counter() - began, sum(w.tokens for w in written[name])
            results[name] = {"tokens": tokens, "seconds": seconds, "tokens_per_second": tokens / seconds}
            if reward:
                rewards = reward(prompts, [w.text for w in written[name]])
                written[name] = [
                    w._replace(details={"reward": float(r), **w.details})
                    for w, r in zip(written[name], rewards, strict=True)
                ]
                results[name]["mean_reward"] = float(np.mean(rewards))
            kls = [w.details["kl"] for w in written[name] if "kl" in w.details]
            if kls:
                results[name]["kl"] = float(np.mean(kls))

    # --- results
    first = prompts[:: config.data.samples], {name: column[:: config.data.samples] for name, column in written.items()}
    if jax.process_index() == 0:
        lines = [line(p, w, name) for name, column in written.items() for p, w in zip(prompts, column, strict=True)]
        replace(workdir / "outputs.jsonl", "".join(json.dumps(x, ensure_ascii=False) + "\n" for x in lines))
        replace(workdir / "table.md", markdown(*first, results))
    say(side_by_side(*first, config.table_width))
    for name, result in results.items():
        reward = f"mean reward {result['mean_reward']:.3f}, " if "mean_reward" in result else ""
        reward += f"KL {result['kl']:.3f}, " if "kl" in result else ""
        speed = f"{result['tokens_per_second']:,.0f} tokens/s" + ("" if config.timing else " (with compilation)")
        say(f"{name}: {reward}{result['tokens']} tokens in {result['seconds']:.2f} s, {speed}")
    result = {"decoders": results, "outputs": str(workdir / "outputs.jsonl"), "table": str(workdir / "table.md")}
    stages.store_result(config, workdir, result)
    say(f"  outputs       {result['outputs']}\n  table         {result['table']}")
    return result


def load_prompts(config: ConfigDict, tokenizer) -> list[Prompt]:
    """The config's prompts: the test split of what is generated, all of a file."""
    generated = config.data.source == "corpus" or bool(prompt_sets.task_of(config.data.source))
    size = config.data.prompts or _TASK_SIZE
    of_sets = ConfigDict({"seed": config.seed, "data": {**config.data.to_dict(), "eval_source": ""}})
    of_sets.data.size = of_sets.data.eval_size = size
    train, held_out = prompt_sets.load(of_sets, tokenizer)
    found = held_out if generated else train
    return found[: config.data.prompts] if config.data.prompts else found


def check_tokenizers(tokenizers: Mapping[str, Any], prompts: Sequence[Prompt]) -> None:
    """ValueError unless all models read the prompts as the same tokens and end with the same one."""
    first, (name, reference) = prompts[0], next(iter(tokenizers.items()))

    def described(tokenizer) -> tuple:
        text = first.prompt if isinstance(first.prompt, str) else first.prompt[-1]["content"]
        ends = (tokenizer.prefix_ids(False), tokenizer.eos_id, tokenizer.pad_id)
        return tokenizer.vocab_size, *ends, tokenizer.encode(text)

    for other, tokenizer in tokenizers.items():
        if described(tokenizer) != described(reference):
            raise ValueError(
                f"config.models: {name} and {other} have different tokenizers (vocabularies of {reference.vocab_size} "
                f"and {tokenizer.vocab_size} tokens); models that decode together must share one"
            )


def open_rewards(config: ConfigDict, section: str, device_mesh, stack: contextlib.ExitStack):
    """`(prompts, texts) -> [N]` of a section of rewards, as long as the stack is open; None if it is empty."""
    if not config[section]:
        return None
    functions, weights = prompt_sets.rewards(config[section], section)
    models = reward_models.bind(config[section], device_mesh, section)
    rewarder = stack.enter_context(reward_models.rewarder(functions, weights, models, config.reward_runner))

    def call(prompts: Sequence[Prompt], texts: Sequence[str]) -> np.ndarray:
        got = rewarder([p.prompt for p in prompts], list(texts), [p.record for p in prompts])
        if got.failed.any():
            say(f"config.{section}: {got.report}")
        return np.asarray(got.rewards)

    return call


def no_scores(prompts: Sequence[Prompt], texts: Sequence[str]) -> np.ndarray:
    raise ValueError("it looks for the best by config.scores, or config.rewards, and both are empty")


# --- what people read ------------------------------------------------------------------------------------------------


def replace(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def line(prompt: Prompt, written: Written, name: str) -> dict[str, Any]:
    return {"prompt": prompt.prompt, "output": written.text, "model": name, "tokens": written.tokens, **written.details}


def shown(prompt: Prompt) -> str:
    if isinstance(prompt.prompt, str):
        return prompt.prompt
    return "\n".join(f"{m['role']}: {m['content']}" for m in prompt.prompt)


def markdown(prompts: Sequence[Prompt], written: Mapping[str, Sequence[Written]], results: Mapping[str, Any]) -> str:
    """A row for each prompt, a column for each decoder, and a last row of means."""

    def cell(text: str) -> str:
        # Outputs of a model may hold anything, and are shown as the text that they are.
        for plain, escaped in (("\\", "\\\\"), ("&", "&amp;"), ("<", "&lt;"), ("|", "\\|"), ("`", "\\`")):
            text = text.replace(plain, escaped)
        return text.replace("\r", "").replace("\n", "<br>").strip()

    def output(w: Written) -> str:
        return cell(w.text) + (f" *({w.details['reward']:.2f})*" if "reward" in w.details else "")

    def summary(r: Mapping[str, float]) -> str:
        reward = f"reward {r['mean_reward']:.3f}, " if "mean_reward" in r else ""
        return f"{reward}{r['tokens_per_second']:,.0f} tokens/s"

    lines = [f"| prompt | {' | '.join(written)} |", f"|---|{'---|' * len(written)}"]
    for i, prompt in enumerate(prompts):
        lines.append(f"| {cell(shown(prompt))} | {' | '.join(output(w[i]) for w in written.values())} |")
    lines.append(f"| **mean** | {' | '.join(summary(results[name]) for name in written)} |")
    return "\n".join(lines) + "\n"


def side_by_side(prompts: Sequence[Prompt], written: Mapping[str, Sequence[Written]], width: int) -> str:
    """The same for a terminal: columns of `width` characters, texts wrapped within them."""

    def wrapped(text: str) -> list[str]:
        printable = "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)
        return [part for row in printable.split("\n") for part in textwrap.wrap(row, width) or [""]]

    def row(texts: Sequence[str]) -> list[str]:
        cells = [wrapped(t) for t in texts]
        height = max(map(len, cells))
        filled = [c + [""] * (height - len(c)) for c in cells]
        return [" | ".join(part.ljust(width) for part in parts).rstrip() for parts in zip(*filled, strict=True)]

    def output(w: Written) -> str:
        return w.text + (f"\n({w.details['reward']:.2f})" if "reward" in w.details else "")

    rule = "-+-".join(["-" * width] * (len(written) + 1))
    lines = [*row(["prompt", *written]), rule]
    for i, prompt in enumerate(prompts):
        lines += [*row([shown(prompt), *(output(w[i]) for w in written.values())]), rule]
    return "\n".join(lines)


if __name__ == "__main__":
    command.start(run)
