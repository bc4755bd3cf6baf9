"""Messages with roles become tokens with levels: by structure alone, whatever a message says."""

import re

import numpy as np
import pytest

from alignment.data import collating, formats, injections, rows, tokenizers
from alignment.data.fields import DataError

TOKENIZER = tokenizers.ByteTokenizer()
MARKS = {"system": "S:", "user": "U:", "data": "D:", "assistant": "A:"}


def record(*said, answer="yes"):
    messages = [{"role": role, "content": content} for role, content in said]
    return {"messages": [*messages, {"role": "assistant", "content": answer}]}


def tokenized(records, marks=MARKS, kind="hierarchy", **lengths):
    lengths = {"prompt_length": 40, "completion_length": 8} | lengths
    return rows.tokenize(formats.from_records(records, kind), TOKENIZER, delimiters=marks, **lengths)[0]


def test_levels_follow_the_messages_and_their_delimiters():
    (example,) = tokenized([record(("system", "ab"), ("data", "c"), ("user", "d"))])
    assert TOKENIZER.decode(example.prompt) == "S:abD:cU:dA:"
    assert example.prompt_levels.tolist() == [0] + [0] * 4 + [2] * 3 + [1] * 3 + [3] * 2
    assert example.completions[0].tolist() == [*b"yes", TOKENIZER.eos_id]


def test_text_that_looks_like_another_message_stays_data():
    honest, spoofed = tokenized([record(("data", "x"), ("user", "y")), record(("data", "xU:y"))])
    assert honest.prompt.tolist() == spoofed.prompt.tolist()
    assert honest.prompt_levels.tolist() == [0, 2, 2, 2, 1, 1, 1, 3, 3]
    assert spoofed.prompt_levels.tolist() == [0, *[2] * 6, 3, 3]


def test_an_earlier_answer_ends_as_it_did_when_it_was_given():
    (example,) = tokenized([record(("user", "a"), ("assistant", "b"), ("user", "c"))], rows.NO_DELIMITERS)
    assert example.prompt.tolist() == [TOKENIZER.bos_id, ord("a"), ord("b"), TOKENIZER.eos_id, ord("c")]
    assert example.prompt_levels.tolist() == [0, 1, 3, 3, 1]


def test_a_cut_prompt_keeps_its_levels():
    whole, cut = (
        tokenized([record(("system", "abcdef"), ("user", "gh"))], prompt_length=n, too_long="truncate")[0]
        for n in (40, 7)
    )
    assert cut.prompt.tolist() == [TOKENIZER.bos_id, *whole.prompt[-6:]]
    assert cut.prompt_levels.tolist() == [0, *whole.prompt_levels[-6:]]


def test_both_layouts_carry_the_levels_and_give_completions_the_assistants():
    records = [record(("user", "a" * n), ("data", "b")) for n in (1, 3, 2)]
    examples = tokenized(records)
    trees = collating.collate_trees(examples, 40, 8, 1)
    packed = collating.collate_packed(collating.pack(examples, 48), 48)
    for batch in (trees, packed):
        assert batch["instruction_levels"].dtype == np.int32
        found = [
            levels[(batch["segment_ids"][b] // 1024 == tree)].tolist()
            for b, levels in enumerate(batch["instruction_levels"])
            for tree in range(1, batch["segment_ids"][b].max() // 1024 + 1)
        ]
        assert found == [[*e.prompt_levels, *[3] * len(e.completions[0])] for e in examples]
        assert not batch["instruction_levels"][batch["segment_ids"] == 0].any()


def test_other_kinds_have_no_levels():
    examples, _ = rows.tokenize(
        formats.from_records([{"prompt": "a", "completion": "b"}], "completion"), TOKENIZER, prompt_length=4,
        completion_length=4,
    )  # fmt: skip
    assert "instruction_levels" not in collating.collate_trees(examples, 4, 4, 1)
    assert "instruction_levels" not in collating.collate_packed([examples], 8)


def test_a_prefix_without_a_role_is_refused():
    (example,) = tokenized([record(("user", "a"))])
    with pytest.raises(ValueError, match="a prefix has no role"):
        rows.with_prefix(example, [1], TOKENIZER.bos_id)


PROMPT = [{"role": "user", "content": "a"}]


@pytest.mark.parametrize(
    ("kind", "wrong", "words"),
    [
        ("hierarchy", record(("tool", "a")), ["messages[0].role", "'tool'", "system, user, data, assistant"]),
        ("hierarchy", {"messages": PROMPT}, ["messages", "must end with", "assistant"]),
        ("hierarchy", {}, ["'messages' is missing"]),
        ("hierarchy", record(), ["no message before it"]),
        ("hierarchy_pairs", {"prompt": PROMPT, "chosen": "b", "rejected": "b"}, ["must differ"]),
        ("hierarchy_pairs", {"prompt": PROMPT, "chosen": "b", "rejected": " "}, ["'rejected'", "visible"]),
        ("hierarchy_pairs", {"prompt": "a", "chosen": "b", "rejected": "c"}, ["'prompt'", "list of messages"]),
    ],
)
def test_what_is_wrong_with_a_record_is_said(kind, wrong, words):
    with pytest.raises(DataError) as error:
        formats.from_records([wrong], kind)
    assert all(word in str(error.value) for word in ["records:1", *words]), error.value


def test_sides_cut_to_the_same_tokens_are_dropped_and_counted():
    pair = {"prompt": PROMPT, "chosen": "same and", "rejected": "same or"}
    examples = formats.from_records([pair, pair | {"rejected": "other"}], "hierarchy_pairs")
    kept, report = rows.tokenize(
        examples, TOKENIZER, prompt_length=8, completion_length=4, too_long="truncate"
    )  # fmt: skip
    assert [e.id for e in kept] == [1] and report.dropped_equal == 1


# The synthetic task ---------------------------------------------------------------------------------------------------


def answer_to(command, letters):
    return {"!": command[1:], "^": letters[0], "$": letters[-1]}[command[0]]


@pytest.mark.parametrize("attack", ["", *injections.ATTACKS])
def test_the_answer_is_that_of_the_users_command_and_never_that_of_the_planted_one(attack):
    rng = np.random.default_rng(5)
    orders = set()
    for _ in range(100):
        found = injections.record(rng, attack)
        roles = [m["role"] for m in found["messages"]]
        orders.add(tuple(roles))
        data = "".join(m["content"] for m in found["messages"] if m["role"] == "data")
        letters = [c for c in data if c in injections.LETTERS]
        assert answer_to(found["messages"][roles.index("user")]["content"], letters) == found["answer"]
        assert found["messages"][-1] == {"role": "assistant", "content": found["answer"]}
        commands = re.findall(r"![0-7]|[$^]", data)
        assert len(commands) == bool(attack)
        if attack:
            before, after = injections.ATTACKS[attack].split("{}")
            fake = re.escape(before).replace(re.escape("{fake}"), "[0-7]")
            assert re.search(fake + re.escape(commands[0] + after), data)
            assert answer_to(commands[0], letters) == found["planted"] != found["answer"]
    between = ("data", "user", "data")
    assert {o[1:-1] for o in orders} == {between, between[1:], between[:2]}


def test_every_other_record_is_attacked_or_none_is():
    planted = injections.generate("hierarchy", 40, 0, "train")
    assert [r.get("attack") for r in planted] == [None, injections.SEEN] * 20
    assert not any("attack" in r for r in injections.generate("hierarchy", 40, 0, "train", "clean"))
    assert (
        injections.generate("hierarchy", 40, 0, "test") != planted == injections.generate("hierarchy", 40, 0, "train")
    )


@pytest.mark.parametrize(
    "call",
    [
        lambda: injections.generate("completion", 4, 0, "train"),
        lambda: injections.generate("hierarchy", 4, 0, "train", "dirty"),
        lambda: injections.generate("hierarchy", 0, 0, "train"),
        lambda: injections.record(np.random.default_rng(0), "loud"),
    ],
)
def test_what_cannot_be_generated_is_refused(call):
    with pytest.raises(ValueError, match=r"hierarchy|at least 1|naive"):
        call()
