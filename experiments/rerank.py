"""Reranks lists of candidates with a finished run, by the logits of one token (FIRST, arXiv 2406.15657).

    python -m experiments.rerank --run=DIR --input=lists.jsonl --output=reranked.jsonl [--window=20 --stride=10]

`--run` is a WORKDIR (of configs/first_ranknet.py) or a Hugging Face directory. A line of the input is {"prompt": a text
or messages, "candidates": [texts]} in a first order; all else in it is kept. A line of the output has the candidates
best first, and in `order` where each stood (0 is the first). Windows run from the end of a list to its beginning.

A window is put before the model as `--template`, in which {prompt} is the prompt (of messages: the last one's text) and
{candidates} its candidates, each as `--item` with a letter for {identifier}. Both must be what the run was trained on,
and `--window` no more candidates than it has seen at once; the letters must be single tokens.
"""

from __future__ import annotations

import argparse
import dataclasses
import string
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

from alignment.data import fields, formats, rows
from alignment.decoding import reranking
from alignment.models.decoder import Model
from alignment.training import mesh, rollouts
from experiments import from_config
from experiments.from_config import say
from experiments.make_data import write

TEMPLATE, ITEM = "{prompt}{candidates} ", " {identifier}={candidate}"
_STEP = 32  # prompts are padded to a multiple of it, so that few shapes compile


def check_texts(template: str, item: str) -> None:
    """ValueError for a text without its places, or with others."""
    for flag, text, places in (("template", template, {"prompt", "candidates"}),
                               ("item", item, {"identifier", "candidate"})):  # fmt: skip
        try:
            found = {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}
        except ValueError as error:
            raise ValueError(f"--{flag}: {error}") from None
        if found != places:
            raise ValueError(f"--{flag}: must have {{{'} and {'.join(sorted(places))}}}, got {text!r}")


def scorer(
    model: Model, params: Any, tokenizer, window: int, template: str = TEMPLATE, item: str = ITEM
) -> reranking.Score:
    """(prompt, candidates) to the logits of their letters after the prompt that lists them."""
    letters = string.ascii_uppercase[:window]
    encoded = [tokenizer.encode(letter) for letter in letters]
    if window > len(letters) or not all(len(ids) == 1 for ids in encoded) or len({ids[0] for ids in encoded}) < window:
        raise ValueError(f"--window: {window} candidates need as many letters that are single tokens of their own")
    identifiers = np.array([ids[0] for ids in encoded], np.int32)

    def score(prompt: fields.Prompt, candidates) -> np.ndarray:
        listed = "".join(item.format(identifier=x, candidate=c) for x, c in zip(letters, candidates, strict=False))
        if isinstance(prompt, str):
            asked: fields.Prompt = template.format(prompt=prompt, candidates=listed)
        else:
            text = template.format(prompt=prompt[-1].content, candidates=listed)
            asked = (*prompt[:-1], dataclasses.replace(prompt[-1], content=text))
        ids = rows.encode_prompt(asked, tokenizer)
        if len(ids) > model.config.max_position_embeddings:
            raise ValueError(
                f"a window has {len(ids)} tokens and the model a context of {model.config.max_position_embeddings}; "
                "lower --window"
            )
        inputs = rollouts.pad_prompts([ids], -(-len(ids) // _STEP) * _STEP, tokenizer.pad_id)
        return np.asarray(reranking.identifier_logits(model, params, *inputs, identifiers))[0, : len(candidates)]

    return score


def run(source: str, run_directory: str, output: str, *, window: int = 20, stride: int = 10, template: str = TEMPLATE,
        item: str = ITEM) -> list[dict[str, Any]]:  # fmt: skip
    """Reranks every list; returns what it writes."""
    reranking.count_windows(1, window=window, stride=stride)
    check_texts(template, item)
    queries = formats.read(source, "prompts")
    for query in queries:
        candidates = query.record.get("candidates")
        if not isinstance(candidates, list) or not candidates or not all(isinstance(c, str) for c in candidates):
            raise formats.DataError(f"{query.where}: field 'candidates' must be a list of texts, at least one")
    device_mesh = mesh.make_mesh({"data": 1}, jax.devices()[:1])
    _, tokenizer, model, params = from_config.load_run("--run", run_directory, device_mesh)
    score, lines, passes = scorer(model, params, tokenizer, window, template, item), [], 0
    for query in queries:
        candidates = query.record["candidates"]
        try:
            order = reranking.rerank(score, query.prompt, candidates, window=window, stride=stride)
        except ValueError as error:
            raise ValueError(f"{query.where}: {error}") from None
        passes += reranking.count_windows(len(candidates), window=window, stride=stride)
        prompt = query.prompt if isinstance(query.prompt, str) else [dataclasses.asdict(m) for m in query.prompt]
        ordered = {"candidates": [candidates[i] for i in order], "order": order}
        lines.append({"prompt": prompt, **query.record, **ordered})
    write(output, lines)
    say(f"{len(lines)} lists, {passes} windows: {Path(output)}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(prog="experiments.rerank", description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("--run", required=True, help="WORKDIR of a finished run, or a Hugging Face directory")
    parser.add_argument("--input", required=True, help="JSONL or Parquet with prompt and candidates")
    parser.add_argument("--output", required=True, help="the JSONL to write")
    parser.add_argument("--window", type=int, default=20, help="candidates that the model sees at once")
    parser.add_argument("--stride", type=int, default=10, help="candidates from one window to the next")
    parser.add_argument("--template", default=TEMPLATE, help="what the model reads")
    parser.add_argument("--item", default=ITEM, help="how a candidate stands in it")
    args = parser.parse_args()
    try:
        run(args.input, args.run, args.output, window=args.window, stride=args.stride, template=args.template,
            item=args.item)  # fmt: skip
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
