"""The recipes of `experiments.make_data` that make demonstrations: each from a file, or else from the corpus.

What a model says in a paper is a function here, given as package.module:function; without --input everything is that of
`alignment.data.recipes.on_corpus`.
"""

from __future__ import annotations

import argparse
import json
import pkgutil
from collections.abc import Callable
from typing import Any

import numpy as np

from alignment.data import formats
from alignment.data.recipes import (
    chain_of_hindsight as hindsight,
)
from alignment.data.recipes import crlft as openchat
from alignment.data.recipes import feedback_pretraining as phf
from alignment.data.recipes import fence as factuality
from alignment.data.recipes import ilf as feedback
from alignment.data.recipes import multilingual_ift as multilingual
from alignment.data.recipes import on_corpus
from alignment.data.recipes import raft as best_samples
from alignment.data.recipes import stat as skills

Made = tuple[list[dict[str, Any]], dict[str, int]]


def _function(args: argparse.Namespace, name: str) -> Callable:
    """What --NAME=package.module:function names."""
    value = getattr(args, name)
    if not value:
        raise ValueError(f"--{name}: package.module:function is needed with --input")
    try:
        return pkgutil.resolve_name(value)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"--{name}={value}: {error}") from None


def _read(args: argparse.Namespace, *needed: str) -> list[dict[str, Any]]:
    out = []
    for where, record in formats.read_records(args.input):
        if not isinstance(record, dict):
            raise formats.DataError(f"{where}: a record must be an object of fields")
        if missing := [field for field in needed if record.get(field) is None]:
            raise formats.DataError(f"{where}: field {missing[0]!r} is missing; needed: {', '.join(needed)}")
        out.append(record)
    return out


def _of_corpus(args: argparse.Namespace) -> Made:
    return on_corpus.records(args.recipe, args.size, args.seed, "train")


def chain_of_hindsight(args: argparse.Namespace) -> Made:
    """Pairs as texts of kind segments, good and bad answers after markers that say which is which."""
    if not args.input:
        return _of_corpus(args)
    return hindsight.records(
        _read(args, "prompt", "chosen", "rejected"), formats=args.formats.split(","), good=args.good, bad=args.bad
    )


def crlft(args: argparse.Namespace) -> Made:
    """{prompt, completion, source} as demonstrations that name their source in the prompt and weigh as it does."""
    return openchat.records(_read(args, "prompt", "completion", "source")) if args.input else _of_corpus(args)


def phf_conditional(args: argparse.Namespace) -> Made:
    """{prompt, segments, scores} with a control token before each segment."""
    if not args.input:
        return _of_corpus(args)
    return phf.conditional_records(
        _read(args, "prompt", "segments", "scores"), np.random.default_rng(args.seed),
        threshold=args.threshold, drop_fraction=args.drop_fraction,
    )  # fmt: skip


def phf_filtering(args: argparse.Namespace) -> Made:
    """{prompt, segments, scores} whose mean score is low enough."""
    if not args.input:
        return _of_corpus(args)
    return phf.filtered_records(_read(args, "prompt", "segments", "scores"), threshold=args.threshold)


def phf_scored(args: argparse.Namespace) -> Made:
    """{prompt, segments, scores} as texts of kind segments with rewards."""
    return phf.scored_records(_read(args, "prompt", "segments", "scores")) if args.input else _of_corpus(args)


def raft(args: argparse.Namespace) -> Made:
    """The best of {prompt, responses, rewards}: of each prompt, or with --share of all."""
    if not args.input:
        return _of_corpus(args)
    candidates = _read(args, "prompt", "responses", "rewards")
    if args.share:
        return best_samples.best_of_all(candidates, share=args.share)
    return best_samples.best_of_each(candidates, k=args.k or None)


def ilf(args: argparse.Namespace) -> Made:
    """Of {prompt, draft, feedback, refinements} the refinement that --score likes best."""
    if not args.input:
        return _of_corpus(args)
    return feedback.records(_read(args, "prompt", "draft", "feedback", "refinements"), _function(args, "score"))


def stat(args: argparse.Namespace) -> Made:
    """{prompt, completion, skills} drawn for the skills that --profiles (lists of skills, one a line) miss."""
    if not args.input:
        return _of_corpus(args)
    if not args.profiles:
        raise ValueError("--profiles: a JSONL file with a list of missing skills a line is needed with --input")
    profiles = []
    for where, profile in formats.read_records(args.profiles):
        if not isinstance(profile, list) or not all(isinstance(skill, str) for skill in profile):
            raise formats.DataError(f"{where}: must be a list of skills, each text, got {json.dumps(profile)}")
        profiles.append(profile)
    questions = _read(args, "prompt", "completion", "skills")
    return skills.select(questions, profiles, np.random.default_rng(args.seed), draws=args.draws)


def multilingual_ift(args: argparse.Namespace) -> Made:
    """{text} of another language, each with an instruction that it answers."""
    if not args.input:
        return _of_corpus(args)
    functions = {name: _function(args, name) for name in ("translate", "instruct", "translate_back", "score")}
    passages = [record["text"] for record in _read(args, "text")]
    return multilingual.records(passages, threshold=args.threshold, **functions)


def fence(args: argparse.Namespace) -> Made:
    """{prompt, answers: lists of claims} and their revisions, the best supported ones; pairs go to --pairs."""
    if args.input:
        functions = [_function(args, name) for name in ("critic", "knows", "rewrite", "join")]
        asked = _read(args, "prompt", "answers")
        demonstrations, pairs, counts = factuality.records(asked, *functions, k=args.k, rounds=args.rounds)
    else:
        demonstrations, pairs, counts = on_corpus.revised(args.size, args.seed, "train")
    args.write(args.pairs, pairs)
    return demonstrations, counts


def add(recipe: Callable, write: Callable) -> None:
    """Adds every recipe to the parser of `experiments.make_data`, by its own function that does so."""

    def function_option(own: argparse.ArgumentParser, *names: str) -> None:
        for name in names:
            own.add_argument(f"--{name}", default="", help="package.module:function")

    own = recipe(chain_of_hindsight, scores=False, size=1024)
    own.add_argument("--formats", default=",".join(hindsight.FORMATS))
    own.add_argument("--good", default=hindsight.GOOD)
    own.add_argument("--bad", default=hindsight.BAD)
    recipe(crlft, scores=False, size=4096)
    own = recipe(phf_conditional, scores=False, size=4096)
    own.add_argument("--threshold", type=float, default=5.6e-4)
    own.add_argument("--drop_fraction", type=float, default=0.01)
    recipe(phf_filtering, scores=False, size=4096).add_argument("--threshold", type=float, default=7.8e-4)
    recipe(phf_scored, scores=False, size=4096)
    own = recipe(raft, scores=False, size=4096)
    own.add_argument("--k", type=int, default=0, help="of the first k responses; 0: of all")
    own.add_argument("--share", type=float, default=0.0, help="the best share of all responses; 0: the best of each")
    function_option(recipe(ilf, scores=False, size=4096), "score")
    own = recipe(stat, scores=False, size=4096)
    own.add_argument("--profiles", default="", help="missing skills of each difficult validation question")
    own.add_argument("--draws", type=int, default=5, help="questions for every missing skill")
    own = recipe(multilingual_ift, scores=False, size=4096)
    own.add_argument("--threshold", type=float, default=-np.inf)
    function_option(own, "translate", "instruct", "translate_back", "score")
    own = recipe(fence, scores=False, size=1024)
    own.set_defaults(write=write)
    own.add_argument("--pairs", required=True, help="the JSONL file for pairs")
    own.add_argument("--k", type=int, default=3)
    own.add_argument("--rounds", type=int, default=3, help="of revision")
    function_option(own, "critic", "knows", "rewrite", "join")
