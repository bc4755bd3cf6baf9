"""LSPO on a small word game: a language model learns to mix strategies that it can only say in words.

    python -m experiments.latent_game --workdir=runs/latent_game [--repetitions=3] [--iterations=50]

Two prompts, each of a matrix game with three strategies; every strategy is said in four ways. The model is first taught
to say them with a bias (70 % of what it says is one strategy). Then, over and over (Xu et al., 2025, arXiv 2502.04686):

1. candidates are sampled, their embeddings (trigrams of letters) sorted into three latents by k-means;
2. the game between the latents, whose payoffs are those of the candidates played against each other, is solved by
   regret matching;
3. pairs of candidates of different latents, preferred being what the solution says more often than the model does,
   train the model by DPO, whose reference is the model of the iteration before, and by the likelihood of the preferred.

The value of a latent is log solution - log share among the candidates. The paper's rule was not found; by payoff
against the solution all latents are alike (that is what makes it one), and by payoff against the model it would run in
circles. When the model says what the solution says, no pair has a margin and nothing more is learned.

WORKDIR receives metrics.jsonl (a line for each seed, iteration and game), table.md and figure.png. Exploitability is of
the model: the probability of a strategy is the sum over its four phrases, exact, and normalised.

Measured on 2026-11-22, jax 0.10.2, three seeds, 88 CPU-seconds in all, exploitability as mean ± deviation: at the gate
0.562 ± 0.099 at the start, 0.061 ± 0.023 over the last ten iterations, where the solution of the latents has 0.014; at
the ford 1.868 ± 0.214, 0.068 ± 0.026 and 0.017. The strategies end at (0.25, 0.48, 0.26) and (0.19, 0.23, 0.57), off
by less than the margin allows. Of what the model says 86 % are moves, at the start 93 %; the curves are
docs/latent_game.png. Tried on seed 0 with DPO alone: nothing was a move any more after 15 to 30 iterations (learning
rates 1e-4 and 3e-5).
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app, flags

import alignment.losses
from alignment import games, objective, statistics
from alignment.data import collating, rows, tokenizers
from alignment.models import decoder
from alignment.training import state, step
from experiments import command, sampling
from experiments.from_config import say

SEEDS = flags.DEFINE_integer("repetitions", 3, "Runs, each with first parameters and samples of its own.")
ITERATIONS = flags.DEFINE_integer("iterations", 50, "Of LSPO, after the supervised start.")

# By prompt what the row's strategy earns against the column's. Solutions: (1, 2, 1) / 4 and (1, 1, 3) / 5.
GAMES = {
    "At the gate: ": np.array([[0, -1, 2], [1, 0, -1], [-2, 1, 0]], np.float32),
    "At the ford: ": np.array([[0, -3, 1], [3, 0, -1], [-1, 1, 0]], np.float32),
}
PHRASES = (
    ("attack", "we attack", "attack now", "attack them"),
    ("defend", "we defend", "defend now", "defend here"),
    ("retreat", "we retreat", "retreat now", "retreat home"),
)
STRATEGY = {phrase: k for k, phrases in enumerate(PHRASES) for phrase in phrases}
BIAS = (0.7, 0.2, 0.1)  # of what is taught first, in both games
_LENGTHS = (16, 14)
_SIZES = {"hidden_size": 48, "intermediate_size": 96, "num_layers": 2, "num_heads": 4, "num_kv_heads": 2}
_CANDIDATES, _PAIRS, _UPDATES = 256, 64, 4  # of each game and iteration; pairs in a step, steps
_MARGIN = 0.25  # of log-probs; a share of 1/4 among 256 candidates is known to a tenth
# Without the likelihood of the preferred, DPO takes probability from all that is a move, until none is said.
_OBJECTIVE = {"dpo": {"beta": 0.1}, "sft": {"weight": 1.0, "side": "chosen", "reduction": "token_mean"}}
_RATES = {"sft": 1e-3, "lspo": 1e-5}


class Player(NamedTuple):
    """The model, and what trains and scores it, compiled once."""

    model: Any
    tokenizer: Any
    optimizers: dict[str, Any]  # of the supervised start and of LSPO
    steps: dict[str, Any]
    score: Any


def make_player() -> Player:
    tokenizer = tokenizers.ByteTokenizer()
    model = decoder.build(decoder.DecoderConfig(vocab_size=tokenizer.vocab_size, **_SIZES))
    optimizers = {stage: optax.adam(rate, b2=0.95) for stage, rate in _RATES.items()}

    def trained_by(stage, spec, sides, frozen):
        terms = objective.bind(spec, alignment.losses, "objective", sides, ())
        losses = step.make_losses(model, frozen, terms, (), sides)
        return jax.jit(step.make_step(losses, terms, (), sides, optimizers[stage]))

    steps = {
        "sft": trained_by("sft", {"sft": {}}, ("",), {}),
        "lspo": trained_by("lspo", _OBJECTIVE, ("chosen", "rejected"), {"reference": model}),
    }
    needs = statistics.needs_of(["policy_token_logps"])
    score = jax.jit(lambda params, batch: statistics.compute(needs, model, params, {}, batch)["policy_token_logps"])
    return Player(model, tokenizer, optimizers, steps, score)


def batch_of(player: Player, examples: Sequence[tuple[str, ...]]) -> collating.Batch:
    """Rows of (prompt, text, text, ...), as many texts in each."""
    tokenizer = player.tokenizer
    tokenized = [
        rows.Tokenized(
            i, np.asarray(rows.encode_prompt(prompt, tokenizer), np.int32),
            tuple(np.asarray([*tokenizer.encode(text), tokenizer.eos_id], np.int32) for text in texts),
        )
        for i, (prompt, *texts) in enumerate(examples)
    ]  # fmt: skip
    return collating.collate_trees(tokenized, *_LENGTHS, len(examples[0]) - 1, pad_id=tokenizer.pad_id)


def strategies(player: Player, params) -> np.ndarray:
    """Exact probabilities [games, 3] of the strategies, summed over their phrases; the rest is no move of the game."""
    batch = batch_of(player, [(prompt, *STRATEGY) for prompt in GAMES])
    logps = np.asarray(player.score(params, batch), np.float64).sum(axis=-1)
    return np.exp(logps).reshape(len(GAMES), len(PHRASES), -1).sum(axis=-1)


def candidates(player: Player, params, key: jax.Array) -> dict[str, list[str]]:
    """Sampled utterances by prompt, without those that are no move."""
    prompts = [prompt for prompt in GAMES for _ in range(_CANDIDATES)]
    drawn = sampling.complete(
        player.model, params, player.tokenizer, [rows.encode_prompt(p, player.tokenizer) for p in prompts], key,
        prompt_length=_LENGTHS[0], completion_length=_LENGTHS[1], temperature=1.0,
    )  # fmt: skip
    out: dict[str, list[str]] = {prompt: [] for prompt in GAMES}
    for prompt, x in zip(prompts, drawn, strict=True):
        if x.finished and x.text in STRATEGY:
            out[prompt].append(x.text)
    return out


def trigrams(text: str) -> list[str]:
    return [text[i : i + 3] for i in range(len(text) - 2)]


def embeddings(phrases: Sequence[str]) -> np.ndarray:
    """Counts of the trigrams of letters, of length 1: f32[N, D]. Any encoder of texts could stand here."""
    places = {gram: d for d, gram in enumerate(sorted({gram for phrase in STRATEGY for gram in trigrams(phrase)}))}
    out = np.zeros((len(phrases), len(places)), np.float32)
    for n, phrase in enumerate(phrases):
        np.add.at(out[n], [places[gram] for gram in trigrams(phrase)], 1)
    return out / np.linalg.norm(out, axis=-1, keepdims=True)


# Compiled once: called as they are they would be compiled at every call.
_cluster = jax.jit(lambda points: games.lloyd(points, games.farthest_points(points, count=len(PHRASES))).assignments)
_solve = jax.jit(functools.partial(games.regret_matching, steps=2000))


def pairs_of(payoffs: np.ndarray, texts: Sequence[str], latents: np.ndarray) -> tuple[list[tuple[str, str]], float]:
    """(preferred, other) for all candidates of one game, and how far the solution of its latents can be exploited."""
    present, local = np.unique(latents, return_inverse=True)
    played = np.array([STRATEGY[text] for text in texts])  # the game answers to what is said, not to its latent
    of_latents = games.latent_payoffs(payoffs[played][:, played], local, local, count=len(present))
    solved = _solve(of_latents)
    solution = np.asarray(solved.rows[-1] + solved.columns[-1]) / 2  # the same game from both sides
    shares = np.bincount(local) / len(local)
    values = np.log(np.maximum(solution, 1e-3)) - np.log(shares)
    preferred = np.asarray(games.latent_pairs(local, jnp.asarray(values, jnp.float32), margin=_MARGIN))
    of_strategies = np.bincount(played, weights=(solution / np.bincount(local))[local], minlength=len(PHRASES))
    pairs = [(texts[i], texts[j]) for i, j in np.argwhere(preferred)]
    return pairs, float(games.exploitability(payoffs, *2 * [jnp.asarray(of_strategies, jnp.float32)]))


def iterate(
    player: Player, params, key: jax.Array, rng: np.random.Generator
) -> tuple[Any, dict[str, dict[str, float]]]:
    """One iteration: the parameters after it, and by prompt what is said of it."""
    said = candidates(player, params, key)
    if missing := [prompt for prompt, texts in said.items() if not texts]:
        raise command.RunStopped(f"{missing[0]!r}: none of {_CANDIDATES} candidates is a move of the game")
    # Filled up from the front, so that all iterations are of one shape.
    full = {prompt: [texts[i % len(texts)] for i in range(_CANDIDATES)] for prompt, texts in said.items()}
    latents = np.asarray(_cluster(embeddings([text for texts in full.values() for text in texts])))
    logged, examples = {}, []
    for (prompt, texts), own in zip(full.items(), np.split(latents, len(full)), strict=True):
        pairs, solved = pairs_of(GAMES[prompt], texts, own)
        logged[prompt] = {"candidates": len(said[prompt]), "pairs": len(pairs), "solution_exploitability": solved}
        if pairs:  # as many of each game, if it has any
            examples += [(prompt, *pairs[i]) for i in rng.integers(len(pairs), size=_PAIRS * _UPDATES)]
    if not examples:
        return params, logged
    train_state = state.create(params, player.optimizers["lspo"], {}, jax.random.key(0))
    reference = {"reference": jax.tree.map(jnp.copy, params)}
    order = rng.permutation(len(examples))
    for part in np.split(order, len(order) // _PAIRS):
        train_state, _ = player.steps["lspo"](train_state, reference, batch_of(player, [examples[i] for i in part]))
    return train_state.params, logged


def taught(player: Player, key: jax.Array, rng: np.random.Generator, steps: int) -> Any:
    """Parameters after supervised fine-tuning on biased demonstrations."""
    train_state = state.create(player.model.init(key), player.optimizers["sft"], {}, jax.random.key(0))
    for _ in range(steps):
        examples = [
            (rng.choice(list(GAMES)), rng.choice(PHRASES[rng.choice(len(PHRASES), p=BIAS)])) for _ in range(_PAIRS)
        ]
        train_state, _ = player.steps["sft"](train_state, {}, batch_of(player, examples))
    return train_state.params


def run(workdir: Path, seeds: int = 3, iterations: int = 50, teaching: int = 300) -> list[dict[str, Any]]:
    """All seeds; returns what stands in metrics.jsonl."""
    for name, value in (("repetitions", seeds), ("iterations", iterations)):
        if value < 1:
            raise ValueError(f"--{name}: must be at least 1, got {value}")
    command.check_writable(workdir)
    player, lines = make_player(), []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        params = taught(player, jax.random.key(seed), rng, teaching)
        for at in range(iterations + 1):
            found = strategies(player, params)
            of_iteration: dict[str, dict[str, float]] = {}
            if at < iterations:
                params, of_iteration = iterate(player, params, jax.random.fold_in(jax.random.key(seed), at), rng)
            for (prompt, payoffs), probabilities in zip(GAMES.items(), found, strict=True):
                mix = probabilities / probabilities.sum()
                lines.append(
                    {
                        "seed": seed, "iteration": at, "game": prompt,
                        "exploitability": float(games.exploitability(payoffs, *2 * [jnp.asarray(mix, jnp.float32)])),
                        "strategies": mix.tolist(), "moves": float(probabilities.sum()),
                        **of_iteration.get(prompt, {}),
                    }
                )  # fmt: skip
        say(table([x for x in lines if x["seed"] == seed]))
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    (workdir / "table.md").write_text(table(lines))
    draw(lines, workdir / "figure.png")
    return lines


def table(lines: Sequence[dict[str, Any]]) -> str:
    """Markdown: exploitability at the start and of the last ten iterations, mean ± deviation over the seeds."""

    def cell(of_seeds: Sequence[float]) -> str:
        deviation = f" ± {np.std(of_seeds, ddof=1):.3f}" if len(of_seeds) > 1 else ""
        return f"{np.mean(of_seeds):.3f}{deviation}"

    seeds, last = sorted({x["seed"] for x in lines}), max(x["iteration"] for x in lines)
    out = ["| game | start | last ten | solution of the latents | strategies at the end | moves |", "|---" * 6 + "|"]
    for prompt in GAMES:
        here = [[x for x in lines if (x["seed"], x["game"]) == (seed, prompt)] for seed in seeds]
        late = [[x for x in own if x["iteration"] > max(last - 10, 0)] for own in here]
        solved = [[x["solution_exploitability"] for x in own if "solution_exploitability" in x][-10:] for own in here]
        mix = np.mean([x["strategies"] for own in late for x in own], axis=0)
        cells = [
            repr(prompt), cell([own[0]["exploitability"] for own in here]),
            cell([np.mean([x["exploitability"] for x in own]) for own in late]), cell([np.mean(x) for x in solved]),
            ", ".join(f"{p:.2f}" for p in mix), f"{np.mean([x['moves'] for own in late for x in own]):.3f}",
        ]  # fmt: skip
        out.append("| " + " | ".join(cells) + " |")
    return "\n".join(out) + "\n"


def draw(lines: Sequence[dict[str, Any]], path: Path) -> None:
    """Exploitability over the iterations, a panel for each game, a line for each seed; saved as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.5 * len(GAMES), 3.6), layout="constrained")
    axes = figure.subplots(1, len(GAMES), sharey=True)
    for axis, prompt in zip(axes, GAMES, strict=True):
        for seed in sorted({x["seed"] for x in lines}):
            own = [x for x in lines if (x["seed"], x["game"]) == (seed, prompt)]
            axis.plot([x["iteration"] for x in own], [x["exploitability"] for x in own], label=f"model, seed {seed}")
            solved = [x for x in own if "solution_exploitability" in x]
            axis.plot(
                [x["iteration"] for x in solved], [x["solution_exploitability"] for x in solved], color="grey",
                linewidth=0.8, linestyle="--", label="solution of the latents" if seed == 0 else None,
            )  # fmt: skip
        axis.set_title(prompt.strip(" :"), fontsize=10)
        axis.set_xlabel("iteration of LSPO")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("exploitability")
    axes[0].legend(fontsize=8)
    figure.savefig(path, dpi=110)


def main(_) -> None:
    with command.as_command():
        run(Path(command.WORKDIR.value), SEEDS.value, ITERATIONS.value)


if __name__ == "__main__":
    flags.mark_flags_as_required(["workdir"])
    app.run(main)
