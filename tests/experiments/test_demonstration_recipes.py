"""The command line of the recipes for demonstrations: from the corpus, and from files with evaluators by name."""

import json

import pytest

from alignment.data import formats
from alignment.data.recipes import on_corpus
from experiments import demonstration_recipes, make_data

# Without those that `make_data pit` makes, and those that only a config reads.
OTHERS = {"fence_pairs", "meta_tuning", "answered_prompts", "pit_gaps", "pit_improvements", "pit_tasks"}
COMMANDS = sorted(set(on_corpus.RECIPES) - OTHERS)


def jsonl(path, *records):
    path.write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
    return path


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def more_words(record, texts):
    return [len(text.split()) for text in texts]


def length(instruction, text):
    return len(text)


def echo(text):
    return f"say {text}"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_recipe_runs_on_the_corpus(name, tmp_path):
    assert hasattr(demonstration_recipes, name)
    pairs = [f"--pairs={tmp_path / 'pairs.jsonl'}"] if name == "fence" else []
    counts = make_data.run([name, "--size=30", f"--output={tmp_path / 'out.jsonl'}", *pairs])
    kind = "segments" if name in ("chain_of_hindsight", "phf_scored") else "completion"
    assert formats.read(tmp_path / "out.jsonl", kind) and counts
    if pairs:
        assert len(formats.read(tmp_path / "pairs.jsonl", "pairs")) == counts["pairs"]


def test_raft_takes_the_best_of_a_file(tmp_path):
    found = jsonl(tmp_path / "c.jsonl", {"prompt": "p", "responses": ["a", "b", "c"], "rewards": [0.0, 2.0, 3.0]})
    for flags, expected in (([], ["c"]), (["--k=2"], ["b"]), (["--share=0.7"], ["b", "c"])):
        make_data.run(["raft", f"--input={found}", f"--output={tmp_path / 'o.jsonl'}", *flags])
        assert [r["completion"] for r in lines(tmp_path / "o.jsonl")] == expected


def test_evaluators_are_named_and_their_absence_is_said(tmp_path):
    draft = {"prompt": "p", "draft": "d", "feedback": "f", "refinements": ["one", "two words"]}
    command = ["ilf", f"--input={jsonl(tmp_path / 'd.jsonl', draft)}", f"--output={tmp_path / 'o.jsonl'}"]
    with pytest.raises(ValueError, match=r"--score: package.module:function is needed"):
        make_data.run(command)
    with pytest.raises(ValueError, match=r"--score=nowhere:f: No module"):
        make_data.run([*command, "--score=nowhere:f"])
    make_data.run([*command, f"--score={__name__}:more_words"])
    assert lines(tmp_path / "o.jsonl") == [{"prompt": "p", "completion": "two words"}]


def test_native_texts_get_instructions(tmp_path):
    texts = jsonl(tmp_path / "t.jsonl", {"text": "Guten Tag"}, {"text": "Nein"})
    functions = {"translate": "builtins:str", "translate_back": "builtins:str", "instruct": f"{__name__}:echo",
                 "score": f"{__name__}:length"}  # fmt: skip
    flags = [f"--{name}={value}" for name, value in functions.items()]
    counts = make_data.run(
        ["multilingual_ift", f"--input={texts}", f"--output={tmp_path / 'o.jsonl'}", "--threshold=5", *flags]
    )
    assert lines(tmp_path / "o.jsonl") == [{"prompt": "say Guten Tag", "completion": "Guten Tag"}]
    assert counts["dropped_by_score"] == 1


def test_missing_skills_are_read_from_a_file(tmp_path):
    questions = jsonl(tmp_path / "q.jsonl", *({"prompt": s, "completion": "c", "skills": [s]} for s in "ab"))
    command = ["stat", f"--input={questions}", f"--output={tmp_path / 'o.jsonl'}", "--draws=4"]
    with pytest.raises(ValueError, match="--profiles: a JSONL file"):
        make_data.run(command)
    make_data.run([*command, f"--profiles={jsonl(tmp_path / 'p.jsonl', ['b'], [])}"])
    assert [r["prompt"] for r in lines(tmp_path / "o.jsonl")] == ["b"] * 4
    with pytest.raises(formats.DataError, match=r"p.jsonl:1: must be a list of skills"):
        make_data.run([*command, f"--profiles={jsonl(tmp_path / 'p.jsonl', 'b')}"])


def test_a_file_without_a_needed_field_names_line_and_field(tmp_path):
    path = jsonl(tmp_path / "s.jsonl", {"prompt": "p", "segments": ["a"]})
    with pytest.raises(formats.DataError, match=r"s.jsonl:1: field 'scores' is missing"):
        make_data.run(["phf_filtering", f"--input={path}", f"--output={tmp_path / 'o.jsonl'}"])
