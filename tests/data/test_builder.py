"""JSONL -> TFDS array_record -> the same examples, without TensorFlow."""

import json
import sys

import pytest

from alignment.data import builder, formats
from alignment.data.formats import DataError

PLAIN = [
    {"prompt": f"p{i}", "chosen": f"gut {i} ä", "rejected": f"bad {i}", "margin": i / 4, "annotator_id": i % 2,
     "preference_proportion": (i + 1) / 8}  # eighths are exact in float32
    for i in range(7)
]
CHAT = [
    {
        "chosen": [{"role": "user", "content": f"p{i}"}, {"role": "assistant", "content": "yes"}],
        "rejected": [{"role": "user", "content": f"p{i}"}, {"role": "assistant", "content": "no"}],
    }
    for i in range(3)
]


def write(path, records):
    path.write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
    return path


def test_tfds_gives_the_examples_of_jsonl_in_order_and_without_tensorflow(tmp_path):
    train, test = write(tmp_path / "train.jsonl", PLAIN), write(tmp_path / "test.jsonl", PLAIN[:2])
    directory = builder.prepare({"train": train, "test": test}, tmp_path / "tfds")
    assert formats.read(directory, "pairs") == formats.read(train, "pairs")
    assert formats.read(directory, "pairs", split="test") == formats.read(test, "pairs")
    assert len(formats.read(directory, "pairs", split="train[:3]")) == 3
    by_name = formats.read("tfds:preference_pairs", "pairs", data_dir=tmp_path / "tfds")
    assert by_name == formats.read(train, "pairs")
    assert "tensorflow" not in sys.modules
    with pytest.raises(DataError, match=r"split 'nope'"):
        formats.read(directory, "pairs", split="nope")
    # TFDS by itself would return the old data, whatever the files say now.
    with pytest.raises(FileExistsError, match="already prepared"):
        builder.prepare({"train": test}, tmp_path / "tfds")
    builder.prepare({"train": test}, tmp_path / "tfds", config_name="small")
    named = formats.read("tfds:preference_pairs/small", "pairs", data_dir=tmp_path / "tfds")
    assert named == formats.read(test, "pairs")


def test_conversational_pairs_survive(tmp_path):
    train = write(tmp_path / "train.jsonl", CHAT)
    directory = builder.prepare({"train": train}, tmp_path / "tfds")
    assert formats.read(directory, "pairs") == formats.read(train, "pairs") == formats.read(directory, "chat")


@pytest.mark.parametrize("kind", ["triples", "unpaired"])
def test_other_kinds_survive_as_text_and_as_messages(tmp_path, kind):
    texts = {"triples": ("gold", "chosen", "rejected"), "unpaired": ("completion",)}[kind]
    label = {"label": False} if kind == "unpaired" else {}
    plain = [{"prompt": f"p{i}", **{t: f"{t} {i} ä" for t in texts}, **label, "weight": i / 2} for i in range(5)]
    chat = [
        {t: [{"role": "user", "content": f"p{i}"}, {"role": "assistant", "content": t}] for t in texts} | label
        for i in range(3)
    ]
    for name, records in (("plain", plain), ("chat", chat)):
        path = write(tmp_path / f"{name}.jsonl", records)
        directory = builder.prepare({"train": path}, tmp_path / name, kind=kind)
        assert formats.read(directory, kind) == formats.read(path, kind)
    with pytest.raises(ValueError, match="pairs, triples, unpaired"):
        builder.prepare({"train": path}, tmp_path / "none", kind="lists")


def test_a_field_in_only_some_records_is_an_error_with_its_line(tmp_path):
    train = write(tmp_path / "train.jsonl", [PLAIN[0], {k: v for k, v in PLAIN[1].items() if k != "margin"}])
    with pytest.raises(DataError, match=r"train\.jsonl:2: field 'margin'"):
        builder.prepare({"train": train}, tmp_path / "tfds")


def test_a_directory_or_name_that_is_not_tfds_is_a_data_error(tmp_path):
    with pytest.raises(DataError, match="not a prepared TFDS directory"):
        formats.read(tmp_path, "pairs")
    with pytest.raises(DataError, match="not a prepared TFDS data set"):
        formats.read("tfds:no_such_set", "pairs", data_dir=tmp_path)
