"""Reranking lists with a finished run: the order is that of the trained log-probs, and what is wrong is named."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny_runs

from alignment import statistics
from alignment.data import collating, formats, rows, tokenizers
from alignment.data.fields import Message
from alignment.models import decoder
from alignment.training import mesh
from configs import first_ranknet
from experiments import finetune, from_config, make_data, rerank

BYTES = tokenizers.ByteTokenizer()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(WORKDIR, its evaluation file) of configs/first_ranknet.py, three steps of a tiny model."""
    directory = tmp_path_factory.mktemp("first")
    files = [str(directory / f"{name}.jsonl") for name in ("train", "eval")]
    make_data.run(["first_ranknet", f"--output={files[0]}", f"--eval={files[1]}", "--size=24"])
    config = tiny_runs.shrink(first_ranknet.get_config())
    config.data.source, config.data.eval_source = files
    with pytest.MonkeyPatch.context() as patch:
        tiny_runs.one_device(patch)
        finetune.run(config, directory / "run")
    return directory / "run", files[1]


def written(path, records):
    path.write_text("".join(json.dumps(r) + "\n" for r in records))
    return str(path)


def test_the_order_is_that_of_the_first_tokens_that_training_sees(trained, tmp_path):
    workdir, evaluation = trained
    lists = [json.loads(line) for line in Path(evaluation).read_text(encoding="utf-8").splitlines()]
    asked = []
    for record in lists:
        query, *candidates = record["prompt"].split()
        asked.append({"prompt": query, "candidates": [c.split("=")[1] for c in candidates], "id": len(asked)})
    output = tmp_path / "out" / "reranked.jsonl"
    lines = rerank.run(written(tmp_path / "lists.jsonl", asked), str(workdir), str(output), window=4, stride=2)
    assert lines == [json.loads(line) for line in output.read_text().splitlines()] and len(lines) == 6

    _, _, model, params = from_config.load_run("--run", str(workdir), mesh.make_mesh({"data": 1}, jax.devices()[:1]))
    lengths = {"prompt_length": 48, "completion_length": 16}
    examples, _ = rows.tokenize(formats.from_records(lists, "lists"), BYTES, **lengths)
    batch = collating.collate_trees(examples, *lengths.values(), 4)
    needs = statistics.needs_of(["policy_responses_token_logps"])
    first = np.asarray(statistics.compute(needs, model, params, {}, batch)["policy_token_logps"])[..., 0]
    for record, question, line, logps in zip(lists, asked, lines, first, strict=True):
        by_letter = dict(zip([r[0] for r in record["responses"]], logps, strict=True))
        want = sorted(range(4), key=lambda i, s=by_letter: -s["ABCD"[i]])
        assert line == question | {"order": want, "candidates": [question["candidates"][i] for i in want]}


def test_the_prompt_of_a_window_is_the_one_that_was_trained_on_also_of_messages(monkeypatch):
    model = decoder.build(
        decoder.DecoderConfig(vocab_size=320, hidden_size=8, intermediate_size=8, num_layers=1, num_heads=2)
    )
    seen = []
    monkeypatch.setattr(rows, "encode_prompt", lambda prompt, tokenizer: seen.append(prompt) or [1, 2, 3])
    score = rerank.scorer(model, model.init(jax.random.key(0)), BYTES, 3)
    assert score("jzkr:", ["koee", "{braces}"]).shape == (2,)
    score((Message("system", "rank"), Message("user", "jzkr:")), ["koee"])
    assert seen == ["jzkr: A=koee B={braces} ", (Message("system", "rank"), Message("user", "jzkr: A=koee "))]


ONE = {"prompt": "a:", "candidates": ["b"]}
BAD = {
    "no candidates": ({"prompt": "a:"}, {}, r"lists.jsonl:1: field 'candidates' must be a list of texts, at least one"),
    "an empty list": (ONE | {"candidates": []}, {}, "field 'candidates' must be"),
    "numbers": (ONE | {"candidates": [1, 2]}, {}, "field 'candidates' must be"),
    "a stride beyond the window": (ONE, {"window": 4, "stride": 5}, "stride must be an integer in"),
    "no place for the prompt": (ONE, {"template": "{candidates}"}, "--template: must have {candidates} and {prompt}"),
    "an unknown place": (ONE, {"item": "{identifier}{text}"}, "--item: must have {candidate} and {identifier}"),
    "an open brace": (ONE, {"item": "{identifier"}, "--item: "),
    "more than letters": (ONE, {"window": 27}, "--window: 27 candidates need as many letters"),
    "beyond the context": (ONE | {"candidates": ["b" * 600]}, {}, "lists.jsonl:1: a window has 60. tokens"),
}


@pytest.mark.parametrize("what", BAD)
def test_what_cannot_be_reranked_is_named(trained, tmp_path, what):
    record, settings, words = BAD[what]
    source, output = written(tmp_path / "lists.jsonl", [record]), tmp_path / "out.jsonl"
    with pytest.raises(ValueError, match=words):
        rerank.run(source, str(trained[0]), str(output), **settings)
    assert not output.exists()


def test_the_command_refuses_in_one_line(tmp_path):
    source = written(tmp_path / "lists.jsonl", [{"prompt": "a:", "candidates": ["b"]}])
    done = subprocess.run(
        [sys.executable, "-m", "experiments.rerank", f"--run={tmp_path}", f"--input={source}",
         f"--output={tmp_path / 'out.jsonl'}"],
        cwd=tiny_runs.ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1 and done.stderr.startswith("error: --run") and done.stderr.count("\n") == 1, done.stderr
