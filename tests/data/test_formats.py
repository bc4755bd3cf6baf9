"""Records: every source gives the same examples, every fault is named with its place."""

import json
import subprocess
import sys

import pytest

from alignment.data import formats, tokenizers
from alignment.data.formats import Completion, DataError, Message, Pair, Query, Ranking, Triple, Unpaired


def write(path, records):
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in records), encoding="utf-8")
    return path


PAIR = {"prompt": "p", "chosen": "good", "rejected": "bad"}
USER, GOOD, BAD = ({"role": r, "content": c} for r, c in (("user", "p"), ("assistant", "good"), ("assistant", "bad")))
LIST = {"prompt": "p", "responses": ["a", "b", "c"], "labels": [0.1, 0.9, 0.5]}

# (kind, the second line of the file, what the message must say besides file and line)
FAULTS = {
    "invalid_json": ("pairs", '{"prompt": "p",, }', ("invalid JSON", "column 16")),
    "not_an_object": ("pairs", '["p", "good"]', ("object", "a list")),
    "missing_prompt": ("pairs", {"chosen": "a", "rejected": "b"}, ("'prompt'", "missing")),
    "missing_side": ("pairs", {"prompt": "p", "chosen": "a"}, ("'rejected'", "missing", "prompt, chosen")),
    "null_side": ("pairs", PAIR | {"rejected": None}, ("'rejected'", "missing")),
    "wrong_type": ("completion", {"prompt": "p", "completion": 3}, ("'completion'", "text", "a number")),
    "prompt_of_wrong_type": ("completion", {"prompt": 1.5, "completion": "a"}, ("'prompt'", "text", "a number")),
    "empty_completion": ("completion", {"prompt": "p", "completion": ""}, ("'completion'", "empty")),
    "blank_side": ("pairs", PAIR | {"chosen": " \n"}, ("'chosen'", "empty")),
    "equal_sides": ("pairs", PAIR | {"rejected": "good"}, ("'chosen'", "'rejected'", "equal")),
    "margin_not_a_number": ("pairs", PAIR | {"margin": "big"}, ("'margin'", "finite number", "'big'")),
    "proportion_of_all": ("pairs", PAIR | {"preference_proportion": 1}, ("'preference_proportion'", "(0, 1)", "1.0")),
    "proportion_of_none": ("pairs", PAIR | {"preference_proportion": 0.0}, ("'preference_proportion'", "(0, 1)")),
    "proportion_not_a_number": ("pairs", PAIR | {"preference_proportion": "most"}, ("'preference_proportion'", "most")),
    "margin_nan": ("pairs", '{"prompt": "p", "chosen": "a", "rejected": "b", "margin": NaN}', ("'margin'", "nan")),
    "annotator_negative": ("pairs", PAIR | {"annotator_id": -1}, ("'annotator_id'", "-1")),
    "annotator_bool": ("pairs", PAIR | {"annotator_id": True}, ("'annotator_id'", "integer")),
    "weight_negative": ("completion", {"prompt": "p", "completion": "a", "weight": -1}, ("'weight'", "-1")),
    "labels_of_another_length": ("lists", LIST | {"labels": [1, 2]}, ("'labels'", "2 entries for 3 responses")),
    "label_nan": (
        "lists",
        '{"prompt": "p", "responses": ["a", "b"], "labels": [1, NaN]}',
        ("'labels[1]'", "finite", "nan"),
    ),
    "label_null": ("lists", LIST | {"labels": [1, None, 2]}, ("'labels[1]'", "finite")),
    "responses_not_a_list": ("lists", LIST | {"responses": "abc"}, ("'responses'", "list", "text")),
    "one_response": ("lists", LIST | {"responses": ["a"], "labels": [1]}, ("'responses'", "two or more")),
    "empty_response": ("lists", LIST | {"responses": ["a", "", "c"]}, ("'responses[1]'", "empty")),
    "messages_missing": ("chat", {"prompt": "p"}, ("'messages'", "missing")),
    "messages_empty": ("chat", {"messages": []}, ("'messages'", "non-empty", "an empty list")),
    "message_without_content": ("chat", {"messages": [USER, {"role": "assistant"}]}, ("'messages[1].content'", "text")),
    "last_message_not_assistant": ("chat", {"messages": [USER, GOOD, USER]}, ("'messages'", "'assistant'", "'user'")),
    "answer_without_prompt": ("chat", {"messages": [GOOD]}, ("'messages'", "no message before")),
    "empty_answer": ("chat", {"messages": [USER, GOOD | {"content": ""}]}, ("'messages'", "empty answer")),
    "chat_side_as_text": ("chat", PAIR, ("'chosen'", "list of messages")),
    "different_conversations": (
        "pairs",
        {"chosen": [USER, GOOD], "rejected": [USER | {"content": "q"}, BAD]},
        ("'chosen'", "'rejected'", "share"),
    ),
    "prompt_not_the_beginning": (
        "pairs",
        {"prompt": [USER], "chosen": [USER | {"content": "q"}, GOOD], "rejected": [USER, BAD]},
        ("'chosen'", "'prompt'"),
    ),
}
VERDICT = {"prompt": "p", "completion": "a", "label": True}
TRIPLE = PAIR | {"gold": "best"}
FAULTS |= {
    "verdict_missing": ("unpaired", {"prompt": "p", "completion": "a"}, ("'label'", "missing")),
    "verdict_null": ("unpaired", VERDICT | {"label": None}, ("'label'", "missing")),
    "verdict_as_text": ("unpaired", VERDICT | {"label": "false"}, ("'label'", "true or false", "'false'")),
    "verdict_graded": ("unpaired", VERDICT | {"label": 0.5}, ("'label'", "true or false", "0.5")),
    "verdict_of_minus_one": ("unpaired", VERDICT | {"label": -1}, ("'label'", "true or false", "-1")),
    "verdict_on_nothing": ("unpaired", VERDICT | {"completion": " "}, ("'completion'", "empty")),
    "verdict_without_prompt": ("unpaired", {"completion": "a", "label": 1}, ("'prompt'", "missing")),
    "verdict_on_a_number": ("unpaired", VERDICT | {"completion": 7}, ("'completion'", "text", "a number")),
    "verdict_weight": ("unpaired", VERDICT | {"weight": "x"}, ("'weight'", "finite number")),
    "gold_missing": ("triples", PAIR, ("'gold'", "missing")),
    "gold_empty": ("triples", TRIPLE | {"gold": ""}, ("'gold'", "empty")),
    "gold_of_wrong_type": ("triples", TRIPLE | {"gold": 3}, ("'gold'", "text", "a number")),
    "gold_is_rejected": ("triples", TRIPLE | {"gold": "bad"}, ("'gold'", "'rejected'", "equal")),
    "triple_of_equal_sides": ("triples", TRIPLE | {"rejected": "good"}, ("'chosen'", "'rejected'", "equal")),
    "triple_without_rejected": ("triples", {"prompt": "p", "gold": "a", "chosen": "b"}, ("'rejected'", "missing")),
    "gold_of_another_conversation": (
        "triples",
        {"gold": [USER | {"content": "q"}, GOOD], "chosen": [USER, GOOD], "rejected": [USER, BAD]},
        ("'gold'", "'chosen'", "share"),
    ),
}
RATED = {"prompt": "p", "completion": "a", "ratings": [None, 1.0]}
STEPS = {"prompt": "p", "steps": ["one", "two"], "labels": [1, 0.5], "correct": True}
SEGMENTS = {"prompt": "p", "segments": ["a", "ä"], "rewards": [-0.5, 0.0], "trained": [True, False]}
SAMPLED = PAIR | {"samples": ["x", "y"]}
FAULTS |= {
    "tie_as_text": ("pairs", PAIR | {"tie": "false"}, ("'tie'", "true or false", "'false'")),
    "ratings_missing": ("ratings", {"prompt": "p", "completion": "a"}, ("'ratings'", "missing")),
    "ratings_of_nothing": ("ratings", RATED | {"ratings": []}, ("'ratings'", "empty")),
    "rating_as_text": ("ratings", RATED | {"ratings": [1, "good"]}, ("'ratings[1]'", "finite number", "good")),
    "rating_reward": ("ratings", RATED | {"reward": "x"}, ("'reward'", "finite number")),
    "steps_as_text": ("steps", STEPS | {"steps": "one"}, ("'steps'", "list", "text")),
    "step_empty": ("steps", STEPS | {"steps": ["one", " "]}, ("'steps[1]'", "visible character")),
    "steps_and_labels": ("steps", STEPS | {"labels": [1]}, ("'labels'", "1 entries for 2 steps")),
    "step_label_out_of_range": ("steps", STEPS | {"labels": [1, 2]}, ("'labels[1]'", "[0, 1]", "2")),
    "steps_of_messages": ("steps", STEPS | {"prompt": [USER]}, ("'prompt'", "text")),
    "one_sample": ("sampled_pairs", SAMPLED | {"samples": ["x"]}, ("'samples'", "two or more")),
    "sample_empty": ("sampled_pairs", SAMPLED | {"samples": ["x", ""]}, ("'samples[1]'", "empty")),
}
FORGET = {"prompt": "p", "forget": "a", "retain_prompt": "q", "retain": "b"}
FAULTS |= {
    "no_retain": ("unlearning", {"prompt": "p", "forget": "a", "retain_prompt": "q"}, ("'retain'", "missing")),
    "empty_forget": ("unlearning", FORGET | {"forget": " "}, ("'forget'", "empty")),
    "retain_is_no_text": ("unlearning", FORGET | {"retain": 3}, ("'retain'", "text")),
    "kept_and_forgotten": ("unlearning", FORGET | {"chosen": "a"}, ("'chosen'", "'forget'", "equal")),
}


QUERY = {"prompt": "17+25=", "answer": "42"}
FAULTS |= {
    "query_without_prompt": ("prompts", {"answer": "42"}, ("'prompt'", "missing", "answer")),
    "query_of_null": ("prompts", QUERY | {"prompt": None}, ("'prompt'", "missing")),
    "query_of_wrong_type": ("prompts", QUERY | {"prompt": 17}, ("'prompt'", "text", "a number")),
    "query_of_no_messages": ("prompts", QUERY | {"prompt": []}, ("'prompt'", "text", "an empty list")),
    "query_empty": ("prompts", QUERY | {"prompt": " \n"}, ("'prompt'", "empty")),
    "query_with_an_empty_turn": ("prompts", QUERY | {"prompt": [USER | {"content": ""}]}, ("'prompt'", "empty")),
    "query_answered": ("prompts", {"prompt": [USER, GOOD]}, ("'prompt'", "'assistant'", "sampled")),
    "query_message_without_role": ("prompts", {"prompt": [{"content": "p"}]}, ("'prompt[0].role'", "text")),
}
FIRST = {
    "completion": {"prompt": "p", "completion": "a"},
    "pairs": PAIR,
    "lists": LIST,
    "chat": {"messages": [USER, GOOD]},
    "unpaired": VERDICT,
    "ratings": RATED,
    "steps": STEPS,
    "sampled_pairs": SAMPLED,
    "triples": TRIPLE,
    "unlearning": FORGET,
    "prompts": QUERY,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_one_message_with_file_line_and_field(tmp_path, fault):
    kind, line, says = FAULTS[fault]
    path = write(tmp_path / "data.jsonl", [FIRST[kind], line])
    with pytest.raises(DataError) as error:
        formats.read(path, kind)
    message = str(error.value)
    assert f"{path}:2" in message and "\n" not in message
    for part in says:
        assert part in message


def test_blank_lines_are_skipped_and_still_counted(tmp_path):
    path = write(tmp_path / "data.jsonl", [PAIR, "", "  ", "{"])
    with pytest.raises(DataError, match=r"data\.jsonl:4: invalid JSON"):
        formats.read(path, "pairs")


def test_text_that_is_not_utf8_names_its_line(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_bytes(json.dumps(PAIR).encode() + b'\n{"prompt": "\xff"}\n')
    with pytest.raises(DataError, match=r"data\.jsonl:2: not UTF-8"):
        formats.read(path, "pairs")


def test_line_separators_and_byte_order_mark_inside_text_are_no_line_ends(tmp_path):
    path = tmp_path / "data.jsonl"
    record = {"prompt": "p\u2028q\x85", "completion": "ä"}
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(record, ensure_ascii=False).encode() + b"\r\n")
    assert formats.read(path, "completion") == [Completion("p\u2028q\x85", "ä")]


def test_empty_file_unknown_type_and_missing_file_are_errors(tmp_path):
    with pytest.raises(DataError, match=r"empty\.jsonl: empty"):
        formats.read(write(tmp_path / "empty.jsonl", []), "pairs")
    with pytest.raises(DataError, match=r"data\.csv.*allowed: \.jsonl, \.parquet"):
        formats.read(write(tmp_path / "data.csv", ["a,b"]), "pairs")
    with pytest.raises(DataError, match=r"none\.jsonl: no such file"):
        formats.read(tmp_path / "none.jsonl", "pairs")
    with pytest.raises(DataError, match="no file matches"):
        formats.read(tmp_path / "none*.jsonl", "pairs")
    with pytest.raises(ValueError, match="segments, sampled_pairs, unlearning, hierarchy, hierarchy_pairs, prompts"):
        formats.read(tmp_path / "none.jsonl", "dpo")


def test_dropped_records_are_counted_and_the_first_reason_is_told(tmp_path, caplog):
    path = write(tmp_path / "data.jsonl", [PAIR, PAIR | {"chosen": ""}, PAIR | {"rejected": "good"}])
    assert formats.read(path, "pairs", on_invalid="drop") == [Pair("p", "good", "bad")]
    assert "dropped 2 of 3" in caplog.text and "data.jsonl:2" in caplog.text
    with pytest.raises(DataError, match="no usable record"):
        formats.read(write(tmp_path / "bad.jsonl", [{}]), "pairs", on_invalid="drop")


def test_conversational_pairs_agree_however_they_are_written():
    expected = [Pair((Message("user", "p"),), "good", "bad")]
    for record in (
        {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]},
        {"prompt": [USER], "chosen": [USER, GOOD], "rejected": [USER, BAD]},
        {"chosen": [USER, GOOD], "rejected": [USER, BAD]},
        {"prompt": "p", "chosen": [USER, GOOD], "rejected": [USER, BAD]},
        {"prompt": "p", "chosen": [GOOD], "rejected": [BAD]},
    ):
        assert formats.from_records([record], "pairs") == expected
        assert formats.from_records([record], "chat") == expected


def test_last_assistant_turn_is_the_completion():
    turns = [USER, GOOD, USER, BAD]
    (example,) = formats.from_records([{"messages": turns}], "chat")
    assert example.completion == "bad"
    assert [m.content for m in example.prompt] == ["p", "good", "p"]


def test_lists_are_best_first_and_ties_keep_their_order():
    record = {"prompt": "p", "responses": ["a", "b", "c", "d"], "labels": [0, 2, 1, 2]}
    assert formats.from_records([record], "lists") == [Ranking("p", ("b", "d", "c", "a"), (2.0, 2.0, 1.0, 0.0))]


@pytest.mark.parametrize(
    ("label", "desirable"), [(True, True), (False, False), (1, True), (0, False), (1.0, True), (0.0, False)]
)
def test_verdicts_are_booleans_however_they_are_written(label, desirable):
    (example,) = formats.from_records([VERDICT | {"label": label}], "unpaired")
    assert example == Unpaired("p", "a", desirable) and type(example.desirable) is bool
    (example,) = formats.from_records(
        [{"prompt": [USER], "completion": [GOOD], "label": label, "weight": 2}], "unpaired"
    )
    assert example == Unpaired((Message("user", "p"),), "good", desirable, weight=2.0)


def test_triples_hold_gold_beside_the_pair_and_gold_may_be_the_chosen_answer():
    assert formats.from_records([TRIPLE, TRIPLE | {"gold": "good"}], "triples") == [
        Triple("p", "best", "good", "bad"),
        Triple("p", "good", "good", "bad"),
    ]
    messages = {"gold": [USER, GOOD], "chosen": [USER, GOOD], "rejected": [USER, BAD]}
    assert formats.from_records([messages], "triples") == [Triple((Message("user", "p"),), "good", "good", "bad")]


def test_prompt_sets_keep_every_other_field_as_the_record():
    fields = {"answer": "42", "kwargs": [{"num_words": 3, "relation": None}], "weight": -1, "completion": ""}
    assert formats.from_records([QUERY | fields | {"note": None}], "prompts") == [Query("17+25=", fields)]
    (query,) = formats.from_records([{"prompt": [GOOD, USER]}], "prompts")
    assert query == Query((Message("assistant", "good"), Message("user", "p")), {}) and query.where == "records:1"


def test_an_empty_prompt_set_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"none\.jsonl: empty: no record of kind 'prompts'"):
        formats.read(write(tmp_path / "none.jsonl", [""]), "prompts")


def test_columns_rename_fields():
    records = [("x:1", {"question": "p", "chosen": "good", "rejected": "bad"})]
    assert formats._examples(records, "pairs", "x", {"prompt": "question"}, "error")[0].prompt == "p"


def test_a_pattern_reads_its_files_in_sorted_order(tmp_path):
    for name in ("b", "a"):
        write(tmp_path / f"{name}.jsonl", [{"prompt": name, "completion": "x"}])
    assert [e.prompt for e in formats.read(tmp_path / "*.jsonl", "completion")] == ["a", "b"]


@pytest.mark.parametrize("kind", formats.KINDS)
def test_parquet_gives_the_examples_of_jsonl(tmp_path, kind):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    records = {
        "completion": [{"prompt": "p", "completion": "ä", "weight": 2.0}, {"prompt": "", "completion": "b"}],
        "chat": [{"messages": [USER, GOOD]}, {"messages": [USER, BAD, USER, GOOD]}],
        "pairs": [PAIR | {"margin": 1.5, "annotator_id": 3, "preference_proportion": 0.75}, PAIR],
        "lists": [LIST | {"weight": 1.0}, LIST],
        "unpaired": [VERDICT | {"label": False, "weight": 1.0}, VERDICT],
        "triples": [TRIPLE | {"gold": "ä", "weight": 1.0}, TRIPLE],
        "ratings": [RATED | {"ratings": [0.5, None], "weight": 1.0}, RATED],
        "steps": [STEPS | {"correct": False, "weight": 1.0}, STEPS],
        "segments": [SEGMENTS | {"ended": [True, True], "weight": 1.0}, SEGMENTS],
        "sampled_pairs": [SAMPLED | {"weight": 1.0}, SAMPLED],
        "unlearning": [FORGET | {"chosen": "ä", "weight": 1.0}, FORGET],
        "hierarchy": [{"messages": [USER, GOOD], "weight": 1.0}, {"messages": [USER, BAD, USER, GOOD]}],
        "hierarchy_pairs": [PAIR | {"prompt": [USER], "weight": 1.0}, PAIR | {"prompt": [USER]}],
        "prompts": [QUERY | {"numbers": [3, 4], "target": 7}, {"prompt": "ä", "target": 8}],
    }[kind]
    parquet.write_table(pyarrow.Table.from_pylist(records), tmp_path / "data.parquet")
    jsonl = formats.read(write(tmp_path / "data.jsonl", records), kind)
    assert formats.read(tmp_path / "data.parquet", kind) == jsonl and len(jsonl) == 2


def test_parquet_fault_names_the_record(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "data.parquet"
    parquet.write_table(pyarrow.Table.from_pylist([PAIR, PAIR | {"rejected": "good"}]), path)
    with pytest.raises(DataError, match=r"data\.parquet:record 2.*equal"):
        formats.read(path, "pairs")
    path.write_bytes(b"not parquet")
    with pytest.raises(DataError, match=r"data\.parquet: cannot be read as Parquet"):
        formats.read(path, "pairs")


def test_missing_extra_is_named(tmp_path, monkeypatch):
    write(tmp_path / "data.parquet", ["x"])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"pip install alignment\[parquet\]"):
        formats.read(tmp_path / "data.parquet", "pairs")
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ImportError, match=r"pip install alignment\[huggingface\]"):
        tokenizers.HuggingFaceTokenizer(tmp_path)


def test_reading_and_collating_import_no_heavy_package():
    heavy = ["tensorflow_datasets", "tensorflow", "pyarrow", "tokenizers", "jinja2", "jax", "flax", "grain"]
    code = f"import sys, alignment.data.rows, alignment.data.corpus; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
