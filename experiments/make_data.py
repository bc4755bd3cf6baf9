"""Makes preference data offline: samples and scores candidates, and turns them into pairs by a recipe.

    python -m experiments.make_data candidates --policy=runs/dpo/before --samples=64 --output=candidates.jsonl
    python -m experiments.make_data statistical_rejection_sampling --input=candidates.jsonl --output=rso.jsonl
    python -m experiments.make_data reward_augmented_dpo --output=augmented.jsonl
    python -m experiments.make_data mixed_preference_optimization --gamma=1 --output=easy.jsonl --prompts=hard.jsonl
    python -m experiments.make_data context_conditioned_bt --output=contexts.jsonl
    python -m experiments.make_data tree_preference_data --output=trees.jsonl
    python -m experiments.make_data itool_preference --policy=runs/dpo/before --output=itool.jsonl
    python -m experiments.make_data raft --input=candidates.jsonl --output=raft.jsonl
    python -m experiments.make_data seq_kd --policy=runs/big --samples=16 --output=seq_kd.jsonl
    python -m experiments.make_data first_ranknet --output=first.jsonl --eval=first_eval.jsonl
    python -m experiments.make_data algorithm_distillation --output=ucb.jsonl

and more recipes for demonstrations, see `experiments.demonstration_recipes`.

The result is JSONL that `experiments.finetune` reads with --config.data.source=FILE; add
--config.data.eval_source=corpus to evaluate on the corpus. Without --input the prompts and pairs are those of the
generated corpus. Policies and reward models are WORKDIRs of finished runs or Hugging Face directories. Without
--reward_model, texts are scored by the corpus' true reward, which knows the corpus' prompts only. Everything kept and
dropped is counted and printed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from alignment import statistics
from alignment.data import collating, corpus, formats, rows
from alignment.data.recipes import algorithm_distillation as explorers
from alignment.data.recipes import context_conditioned_bt as contexts
from alignment.data.recipes import first_ranknet as reranking
from alignment.data.recipes import itool_preference as itool
from alignment.data.recipes import mixed_preference_optimization as mpo
from alignment.data.recipes import pit as improving
from alignment.data.recipes import reward_augmented_dpo as augmented
from alignment.data.recipes import statistical_rejection_sampling as rso
from alignment.data.recipes import tree_preference_data as trees
from alignment.games import bandit_text
from alignment.models import heads
from alignment.training import checkpoints, mesh
from experiments import demonstration_recipes, from_config, sampling

Score = Callable[[Sequence[tuple[Any, str]]], list[float]]
_ROWS = 64  # sampled or scored at a time


def read(path: str, needed: Sequence[str]) -> list[dict[str, Any]]:
    """The records of a file, each with the fields that a recipe needs; DataError with file and line otherwise."""
    out = []
    for where, record in formats.read_records(path):
        if not isinstance(record, dict):
            raise formats.DataError(f"{where}: a record must be an object of fields")
        if missing := [field for field in needed if record.get(field) is None]:
            raise formats.DataError(f"{where}: field {missing[0]!r} is missing; needed: {', '.join(needed)}")
        out.append(record)
    if not out:
        raise formats.DataError(f"{path}: empty")
    return out


def write(path: str, records: Iterable[dict[str, Any]]) -> None:
    temporary = Path(path + ".tmp")
    temporary.parent.mkdir(parents=True, exist_ok=True)
    temporary.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records), encoding="utf-8")
    temporary.replace(path)


def as_prompt(value: Any) -> formats.Prompt:
    return value if isinstance(value, str) else tuple(formats.Message(m["role"], m["content"]) for m in value)


class Model:
    """A model of a directory with what it takes to sample from it and to score by it."""

    def __init__(self, key: str, directory: str):
        device_mesh = mesh.make_mesh({"data": 1}, jax.devices()[:1])
        self.config, self.tokenizer, self.model, self.params = from_config.load_run(key, directory, device_mesh)
        self.lengths = {k: self.config.data[k] for k in ("prompt_length", "completion_length")}
        self.score_batch = jax.jit(self._score_batch)

    def prompt_ids(self, prompt: Any) -> list[int]:
        return rows.encode_prompt(as_prompt(prompt), self.tokenizer)

    def _score_batch(self, params, batch):
        hidden, completions = statistics.completion_hidden(self.model, params, batch)
        if self.model.config.reward_heads:
            return heads.rewards(params, hidden, batch["last_index"])[:, 0, 0]
        logps = statistics.token_statistics(
            ("token_logps",), completions, self.model.head(params), batch["targets"], batch["mask"],
            logit_softcap=self.model.config.logit_softcap,
        )["token_logps"]  # fmt: skip
        return itool.itool_difficulty(logps[:, 0], batch["mask"][:, 0])

    def of_each(self, texts: Sequence[tuple[Any, str]]) -> list[float]:
        """Of each (prompt, completion): the reward of a model with a reward head, the perplexity under one without."""
        examples = [formats.Completion(as_prompt(p), text, where=f"text {i}") for i, (p, text) in enumerate(texts, 1)]
        tokenised, report = rows.tokenize(examples, self.tokenizer, **self.lengths, too_long="truncate")
        if report.truncated_prompts or report.truncated_completions:
            print(f"scored cut to the model's lengths: {report}")
        out: list[float] = []
        for first in range(0, len(tokenised), _ROWS):
            part = tokenised[first : first + _ROWS]
            batch = collating.collate_trees(part, **self.lengths, sides=1, pad_id=self.tokenizer.pad_id)
            scores = self.score_batch(self.params, collating.pad_batch(batch, _ROWS))
            out += np.asarray(scores, np.float64)[: len(part)].tolist()
        return out


def scorer(directory: str) -> Score:
    """The corpus' true reward, or that of a reward model."""
    if not directory:
        return lambda texts: [corpus.gold_reward(prompt, text) for prompt, text in texts]
    model = Model("--reward_model", directory)
    if not model.model.config.reward_heads:
        raise ValueError(f"--reward_model: {directory} has no reward head")
    return model.of_each


def scored_pairs(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Pairs with `chosen_score` and `rejected_score`: of the file if it has them, else of the scorer."""
    if args.input:
        pairs = read(args.input, ("prompt", "chosen", "rejected"))
        formats.read(args.input, "pairs")  # whatever is wrong with a record stops here
    else:
        pairs = corpus.generate("pairs", args.size, args.seed)
    if not all("chosen_score" in pair and "rejected_score" in pair for pair in pairs):
        if any(not isinstance(pair[side], str) for pair in pairs for side in ("chosen", "rejected")):
            raise ValueError("--input: pairs of messages must bring their own chosen_score and rejected_score")
        score = scorer(args.reward_model)
        for side in ("chosen", "rejected"):
            for pair, value in zip(pairs, score([(p["prompt"], p[side]) for p in pairs]), strict=True):
                pair[f"{side}_score"] = value
    return pairs


# --- recipes: arguments -> (records, counts) -------------------------------------------------------------------------


def usable_samples(args: argparse.Namespace) -> tuple[list[tuple[Any, str]], dict[str, int]]:
    """(prompt, text) of a policy's samples; blank and unfinished ones are left out, and counted."""
    policy = Model("--policy", args.policy)
    prompts = [r["prompt"] for r in read(args.input, ("prompt",))] if args.input else corpus.prompts()
    unique = {json.dumps(p): p for p in prompts}
    repeated = [p for p in unique.values() for _ in range(args.samples)]
    drawn = sampling.complete(
        policy.model, policy.params, policy.tokenizer, [policy.prompt_ids(p) for p in repeated],
        jax.random.key(args.seed), **policy.lengths, temperature=args.temperature, batch_size=_ROWS,
    )  # fmt: skip
    good = [(p, d.text) for p, d in zip(repeated, drawn, strict=True) if d.finished and d.text.strip()]
    counts = {
        "prompts": len(unique),
        "prompts_without_a_usable_sample": len(unique) - len({json.dumps(p) for p, _ in good}),
        "samples": len(drawn),
        "dropped_unfinished": sum(not d.finished for d in drawn),
        "dropped_blank": sum(d.finished and not d.text.strip() for d in drawn),
        "kept": len(good),
    }
    return good, counts


def candidates(args: argparse.Namespace) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """{prompt, responses, rewards} by sampling a policy; blank, unfinished and overlong samples are left out."""
    score = scorer(args.reward_model)
    good, counts = usable_samples(args)
    by_prompt: dict[str, dict[str, Any]] = {}
    for (prompt, text), reward in zip(good, score(good) if good else [], strict=True):
        record = by_prompt.setdefault(json.dumps(prompt), {"prompt": prompt, "responses": [], "rewards": []})
        record["responses"].append(text)
        record["rewards"].append(reward)
    return list(by_prompt.values()), counts


def seq_kd(args: argparse.Namespace) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """{prompt, completion} by sampling a teacher, every sample a demonstration."""
    good, counts = usable_samples(args)
    return [{"prompt": prompt, "completion": text} for prompt, text in good], counts


def first_ranknet(args: argparse.Namespace) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Lists of candidates to rerank by a single token; as many lists for evaluation as a quarter go to another file."""
    rng = np.random.default_rng(args.seed)
    lists = [reranking.reranking_list(rng, args.candidates) for _ in range(args.size + args.size // 4)]
    write(args.eval, lists[args.size :])
    return lists[: args.size], {"lists": args.size, "evaluation_lists": len(lists) - args.size}


def statistical_rejection_sampling(args: argparse.Namespace) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Pairs from {prompt, responses, rewards}."""
    records = read(args.input, ("prompt", "responses", "rewards"))
    return rso.records(records, np.random.default_rng(args.seed), k=args.k, beta=args.beta, pairing=args.pairing)


def reward_augmented_dpo(args: argparse.Namespace) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Two pairs from each, whose prompts ask for a score from 1 to 10 on one scale for all."""
    pairs = scored_pairs(args)
    low, high = (f(p[f"{s}_score"] for p in pairs for s in ("chosen", "rejected")) for f in (min, max))
    for pair in pairs:
        for side in ("chosen", "rejected"):
            pair[f"{side}_score"] = augmented.to_scale(pair[f"{side}_score"], low, high)
    print(f"scores from {low:.3f} to {high:.3f} became goals from 1 to 10")
    form = {"short": augmented.short_prompt, "system": augmented.system_prompt}[args.prompt]
    return augmented.records(pairs, form)


def mixed_preference_optimization(args: argparse.Namespace) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """The easy pairs; the prompts of the difficult ones go to a file of their own."""
    easy, prompts, counts = mpo.records(scored_pairs(args), gamma=args.gamma)
    write(args.prompts, prompts)
    return easy, counts


def itool_preference(args: argparse.Namespace) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Pairs from a tree search on the demonstrations that the policy finds hardest."""
    policy, score = Model("--policy", args.policy), scorer(args.reward_model)
    if policy.model.config.reward_heads:
        raise ValueError(f"--policy: {args.policy} is a reward model")
    if args.input:
        demonstrations = read(args.input, ("prompt", "completion"))
        formats.read(args.input, "completion")
    else:
        demonstrations = corpus.generate("completion", args.size, args.seed)
    # Of several demonstrations of a prompt the first stands for it.
    first = {json.dumps(d["prompt"]): d for d in reversed(demonstrations)}
    texts = [(d["prompt"], d["completion"]) for d in first.values()]
    hard = itool.hardest(policy.of_each(texts), args.share)
    limits = {name: getattr(args, name) for name in ("value_threshold", "overlap_limit", "accept_value")}
    out: list[dict[str, Any]] = []
    counts = {"demonstrations": len(demonstrations), "prompts": len(texts), "hard_prompts": len(hard)}
    for number, index in enumerate(hard):
        prompt, truth = texts[index]
        expand = _expansion(policy, prompt, jax.random.fold_in(jax.random.key(args.seed), number), args)
        tree = itool.search(
            expand,
            lambda text, prompt=prompt: score([(prompt, text)])[0] if text.strip() else 0.0,
            lambda step, truth=truth: itool.itool_fast_reward(step, truth),
            num_actions=args.num_actions, depth=args.depth, mcts_iters=args.mcts_iters, exploration=args.exploration,
        )  # fmt: skip
        found, told = itool.pairs(prompt, tree, **limits)
        out += found
        for name, count in told.items():
            counts[name] = counts.get(name, 0) + count
    return out, counts


def context_conditioned_bt(args: argparse.Namespace) -> tuple[list[dict], dict[str, int]]:
    """Every pair under two contexts that rank it in opposite ways."""
    pairs = read(args.input, ("prompt", "chosen", "rejected")) if args.input else corpus_pairs(args)
    return contexts.context_records(pairs, (args.for_it, args.against), reverse=args.reverse, without=args.without)


def pit(args: argparse.Namespace) -> tuple[list[dict], dict[str, int]]:
    """Of every pair the four ordered ones of its answers, the better one as what improves the worse, or the task of
    improving the worse; with --what=samples the tasks of improving the responses of --input=candidates.jsonl."""
    if args.what == "samples":
        if not args.input:
            raise ValueError("--input: --what=samples needs the {prompt, responses} of `make_data candidates`")
        found = read(args.input, ("prompt", "responses"))
        tasks = improving.pit_tasks_of_samples(found)
        return tasks, {"prompts_read": len(found), "samples": len(tasks)}
    pairs = read(args.input, ("prompt", "chosen", "rejected")) if args.input else corpus_pairs(args)
    kinds = {
        "gaps": improving.pit_gap_lists, "improvements": improving.pit_improvements, "tasks": improving.pit_tasks
    }  # fmt: skip
    made = kinds[args.what](pairs)
    return made, {"pairs_read": len(pairs), args.what: len(made)}


def corpus_pairs(args: argparse.Namespace) -> list[dict[str, Any]]:
    return corpus.generate("pairs", args.size, args.seed)


def tree_preference_data(args: argparse.Namespace) -> tuple[list[dict], dict[str, int]]:
    """Comparisons between the nodes of a tree of answers to every prompt, partial answers among them."""
    rng = np.random.default_rng(args.seed)
    grown = [
        trees.grow(prompt, lambda p, text: trees.corpus_segment(p, text, rng), depth=3, branching=args.branching)
        for prompt in corpus.prompts("train")
    ]
    return trees.tree_records(grown, trees.corpus_partial_reward, rng, pairs=args.pairs)


def algorithm_distillation(args: argparse.Namespace) -> tuple[list[dict], dict[str, int]]:
    """The choices of UCB on Bernoulli bandits: the history told as a prompt, the name of its arm as the completion."""
    return explorers.records(
        jax.random.key(args.seed), bandits_number=args.bandits, arms=args.arms, horizon=args.horizon, gap=args.gap,
        alpha=args.alpha, scene=args.scene, history=args.history, story=args.story, rename=not args.keep_names,
    )  # fmt: skip


def _expansion(policy: Model, prompt: Any, rng: jax.Array, args: argparse.Namespace):
    """Steps so far -> sampled continuations cut into steps, each with the tokens and the probability of its own."""
    ids, room = policy.prompt_ids(prompt), policy.lengths["completion_length"]
    calls = 0

    def expand(path: list[itool.Step]) -> list[list[itool.Step]]:
        nonlocal calls
        calls += 1
        so_far = [token for step in path for token in step.tokens]
        drawn = sampling.complete(
            policy.model, policy.params, policy.tokenizer, [[*ids, *so_far]] * args.num_actions,
            jax.random.fold_in(rng, calls), prompt_length=policy.lengths["prompt_length"] + room,
            completion_length=room, temperature=args.temperature,
        )  # fmt: skip
        out = []
        for sample in drawn:
            texts = itool.cut(sample.text, args.pattern, args.step_limit, args.depth - len(path))
            ends = sample.finished and len(so_far) + len(sample.tokens) < room
            out.append(_steps(policy.tokenizer, texts, sample, ends))
        return [steps for steps in out if steps]

    return expand


def _steps(tokenizer, texts: list[str], sample: sampling.Drawn, ends: bool) -> list[itool.Step]:
    """The pieces of a text with the tokens that spell them; a token across a border belongs to the earlier piece."""
    borders = np.cumsum([len(text) for text in texts])
    reached = [len(tokenizer.decode(sample.tokens[:i])) for i in range(len(sample.tokens))]
    owner = np.searchsorted(borders, reached, side="right").clip(max=len(texts) - 1)
    steps = []
    for i, text in enumerate(texts):
        last = i == len(texts) - 1
        own = np.flatnonzero(owner == i)
        logps = [sample.logps[j] for j in own] + sample.logps[len(sample.tokens) :] * last
        prior = float(np.exp(np.mean(logps))) if logps else 1.0
        steps.append(itool.Step(text, prior, last and ends, tuple(sample.tokens[j] for j in own)))
    return steps


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="experiments.make_data", description=__doc__.split("\n")[0], allow_abbrev=False)
    recipes = top.add_subparsers(dest="recipe", required=True)

    def recipe(function: Callable, *, policy=False, scores=True, reads=True, source: str | None = "", size=0):
        own = recipes.add_parser(function.__name__, help=function.__doc__.split("\n")[0], allow_abbrev=False)
        own.set_defaults(function=function)
        own.add_argument("--output", required=True, help="the JSONL file to write")
        own.add_argument("--seed", type=int, default=0)
        if reads:
            own.add_argument("--input", required=source is None, default="", help="JSONL or Parquet; else the corpus")
        if scores:
            own.add_argument("--reward_model", default="", help="a run of a reward model; else the corpus' true reward")
        if policy:
            own.add_argument("--policy", required=True, help="WORKDIR of a finished run or Hugging Face directory")
            own.add_argument("--temperature", type=float, default=1.0)
        if size:
            own.add_argument("--size", type=int, default=size, help="records of the corpus, without --input")
        return own

    own = recipe(candidates, policy=True)
    own.add_argument("--samples", type=int, default=64, help="per prompt")
    own = recipe(seq_kd, policy=True, scores=False)
    own.add_argument("--samples", type=int, default=16, help="per prompt")
    own = recipe(first_ranknet, scores=False, reads=False)
    own.add_argument("--size", type=int, default=4096, help="lists to train on")
    own.add_argument("--candidates", type=int, default=4, help="per list, 2 to 5")
    own.add_argument("--eval", required=True, help="the JSONL file for lists to evaluate on")
    own = recipe(statistical_rejection_sampling, scores=False, source=None)
    own.add_argument("--k", type=int, default=8, help="candidates to accept")
    own.add_argument("--beta", type=float, default=0.5)
    own.add_argument("--pairing", choices=list(rso.PAIRINGS), default="first_round")
    own = recipe(reward_augmented_dpo, size=4096)
    own.add_argument("--prompt", choices=["short", "system"], default="short", help="how the prompt says the goal")
    own = recipe(mixed_preference_optimization, size=4096)
    own.add_argument("--gamma", type=float, required=True, help="pairs with a larger gap of reward are easy")
    own.add_argument("--prompts", required=True, help="the JSONL file for the prompts of difficult pairs")
    own = recipe(context_conditioned_bt, scores=False, size=2048)
    own.add_argument("--for_it", default="Praise! ", help="put before the prompt where the label stands")
    own.add_argument("--against", default="Blame! ", help="put before it where the label is turned round")
    own.add_argument("--reverse", action="store_true", help="swap the two contexts, to test whether they are heeded")
    own.add_argument("--without", action="store_true", help="leave them out and the labels as they are")
    own = recipe(pit, scores=False, size=2048)
    kinds = ["gaps", "improvements", "tasks", "samples"]
    own.add_argument("--what", choices=kinds, default="gaps", help="for the reward model, for SFT, or prompts for RL")
    own = recipe(tree_preference_data, scores=False, reads=False)
    own.add_argument("--branching", type=int, default=3)
    own.add_argument("--pairs", type=int, default=64, help="comparisons drawn in each tree")
    own = recipe(algorithm_distillation, scores=False, reads=False)
    own.add_argument("--bandits", type=int, default=256, help="how many are played")
    own.add_argument("--arms", type=int, default=3)
    own.add_argument("--horizon", type=int, default=30, help="pulls of each, one record a pull")
    own.add_argument("--gap", type=float, default=0.5, help="of the best mean to the others; 0.2 is hard")
    own.add_argument("--alpha", type=float, default=0.5, help="of UCB's bonus")
    own.add_argument("--scene", choices=list(bandit_text.SCENES), default="buttons")
    own.add_argument("--history", choices=list(bandit_text.HISTORIES), default="summary", help="how it is told")
    own.add_argument("--story", action="store_true", help="tell the scene and the names of the arms first")
    own.add_argument("--keep_names", action="store_true", help="the same order of names in every bandit")
    own = recipe(itool_preference, policy=True, size=512)
    own.set_defaults(temperature=1.5)
    own.add_argument("--share", type=float, default=0.5, help="of the prompts, the hardest")
    own.add_argument("--num_actions", type=int, default=3)
    own.add_argument("--depth", type=int, default=3)
    own.add_argument("--mcts_iters", type=int, default=5)
    own.add_argument("--exploration", type=float, default=1.0)
    own.add_argument("--step_limit", type=int, default=2, help="pieces per step")
    own.add_argument("--pattern", default=r"(?<= )", help="where a text is cut in pieces; words")
    own.add_argument("--value_threshold", type=float, default=0.5)
    own.add_argument("--overlap_limit", type=float, default=0.8)
    own.add_argument("--accept_value", type=float, default=0.0)
    demonstration_recipes.add(recipe, write)
    return top


def run(arguments: Sequence[str]) -> dict[str, int]:
    args = parser().parse_args(arguments)
    records, counts = args.function(args)
    if not records:
        raise ValueError(f"nothing is left to write: {counts}")
    write(args.output, records)
    print(f"{args.recipe}: {len(records)} records in {args.output}")
    for name, count in counts.items():
        print(f"  {name.replace('_', ' ')}: {count}")
    return counts


def main() -> None:
    try:
        run(sys.argv[1:])
    except (ValueError, OSError, checkpoints.CheckpointError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
