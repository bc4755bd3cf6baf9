"""Token rows: every index of a batch agrees with its tokens, in both layouts, and nothing is lost uncounted."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment.data import collating, formats, rows
from alignment.data.formats import Completion, DataError, Pair, Query, Ranking, Triple, Unpaired
from alignment.data.rows import Tokenized
from alignment.data.tokenizers import ByteTokenizer
from alignment.segments import BRANCHES

P, T, L = 5, 4, 16
BYTES = ByteTokenizer()
quick = settings(max_examples=40, deadline=None, derandomize=True, database=None)


def vectors(longest):
    return st.lists(st.integers(0, 9), min_size=1, max_size=longest).map(lambda x: np.asarray(x, np.int32))


@st.composite
def tokenized(draw, sides):
    """Examples of random lengths whose ids are their places."""
    shapes = draw(st.lists(st.tuples(vectors(P), st.tuples(*[vectors(T)] * sides)), min_size=1, max_size=6))
    return [Tokenized(i, prompt, completions) for i, (prompt, completions) in enumerate(shapes)]


def may_attend(segments):
    """[L, L] the attention rule of the interfaces, written out."""
    tree, branch = segments // BRANCHES, segments % BRANCHES
    same = (tree[:, None] == tree[None]) & (segments != 0)[:, None] & (segments != 0)[None]
    visible = (branch[None] == 0) | (branch[None] == branch[:, None])
    return same & visible & (np.arange(len(segments))[None] <= np.arange(len(segments))[:, None])


def check_targets(batch, b):
    """Whatever the layout: each target's context holds exactly the tokens before it in its own example."""
    segments, positions = batch["segment_ids"][b], batch["positions"][b]
    attend = may_attend(segments)
    for s, t in zip(*np.nonzero(batch["mask"][b]), strict=True):
        source = batch["predict_from"][b, s, t]
        context = np.flatnonzero(attend[source])
        # Positions 0, 1, .. once each: no token of another document or side, none missing.
        assert positions[context].tolist() == list(range(len(context)))
        yield s, t, batch["tokens"][b, context].tolist()
    masked = ~batch["mask"][b]
    assert not batch["targets"][b][masked].any() and not batch["predict_from"][b][masked].any()


@quick
@given(st.data(), st.integers(1, 3))
def test_tree_targets_follow_their_prompt_and_side_only(data, sides):
    examples = data.draw(tokenized(sides))
    batch = collating.collate_trees(examples, P, T, sides, pad_id=7)
    assert batch["tokens"].shape == (len(examples), P + sides * T) and batch["mask"].shape == (len(examples), sides, T)
    for b, example in enumerate(examples):
        scored = {(s, t): context for s, t, context in check_targets(batch, b)}
        for s, completion in enumerate(example.completions):
            assert [t for side, t in scored if side == s] == list(range(len(completion)))
            for t, token in enumerate(completion):
                column = P + s * T + t
                assert batch["targets"][b, s, t] == batch["tokens"][b, column] == token
                assert batch["positions"][b, column] == len(example.prompt) + t
                assert batch["predict_from"][b, s, t] == (P - 1 if t == 0 else column - 1)
                assert scored[s, t] == [*example.prompt, *completion[:t]]
            assert batch["last_index"][b, s] == P + s * T + len(completion) - 1
    prompt_lengths, completion_lengths = collating.lengths(batch, P)
    assert prompt_lengths.tolist() == [len(e.prompt) for e in examples]
    assert completion_lengths.tolist() == [[len(c) for c in e.completions] for e in examples]
    for example, ((prompt, completions),) in zip(examples, collating.unpack(batch, P), strict=True):
        np.testing.assert_array_equal(prompt, example.prompt)
        assert all(map(np.array_equal, completions, example.completions))


@quick
@given(tokenized(1))
def test_packed_rows_hold_every_example_once_and_never_predict_across(examples):
    packed = collating.pack(examples, L)
    assert sorted(e.id for row in packed for e in row) == list(range(len(examples)))
    batch = collating.collate_packed(packed, L, pad_id=7)
    assert batch["tokens"].shape == (len(packed), L) and batch["targets"].shape == (len(packed), 1, L)
    assert batch["mask"].sum() == sum(len(e.completions[0]) for e in examples)
    assert (batch["segment_ids"] != 0).sum() == sum(len(e.prompt) + len(e.completions[0]) for e in examples)
    for b, row in enumerate(packed):
        expected = [
            ([*e.prompt, *e.completions[0][:t]], token) for e in row for t, token in enumerate(e.completions[0])
        ]
        found = [(context, batch["targets"][b, 0, t]) for _, t, context in check_targets(batch, b)]
        assert found == expected
        np.testing.assert_array_equal(
            batch["targets"][b, 0][batch["mask"][b, 0]], batch["tokens"][b][batch["mask"][b, 0]]
        )
        assert batch["last_index"][b, 0] == sum(len(e.prompt) + len(e.completions[0]) for e in row) - 1
        for e, (prompt, completions) in zip(row, collating.unpack(batch)[b], strict=True):
            assert np.array_equal(prompt, e.prompt) and np.array_equal(completions[0], e.completions[0])


@quick
@given(tokenized(1))
def test_packing_is_first_fit(examples):
    sizes = [len(e.prompt) + len(e.completions[0]) for e in examples]
    room, homes = [], []
    for size in sizes:
        home = next((i for i, r in enumerate(room) if r >= size), len(room))
        room += [L] * (home == len(room))
        room[home] -= size
        homes.append(home)
    packed = collating.pack(examples, L)
    assert homes == [next(i for i, row in enumerate(packed) if example in row) for example in examples]


@quick
@given(tokenized(2), st.integers(0, 3))
def test_padding_rows_count_for_nothing_and_change_no_other_row(examples, extra):
    batch = collating.collate_trees(examples, P, T, 2)
    size = len(examples) + extra
    padded = collating.pad_batch(batch, size)
    for key, value in batch.items():
        np.testing.assert_array_equal(padded[key][: len(examples)], value)
        assert padded[key].dtype == value.dtype and len(padded[key]) == size
    assert padded["valid"].sum() == len(examples) and not padded["mask"][len(examples) :].any()
    assert (padded["ids"][len(examples) :] == -1).all()
    assert (padded["segment_ids"] != 0).any(1).all()  # a row of padding alone has no finite attention


def test_optional_fields_come_with_their_dtypes():
    pairs = [Pair("p", "a", "b", margin=0.5, annotator_id=3, weight=2.0, preference_proportion=0.75)]
    examples, _ = rows.tokenize(pairs, BYTES, prompt_length=4, completion_length=4)
    batch = collating.collate_trees(examples, 4, 4, 2)
    for key, dtype, value in (
        ("margins", np.float32, 0.5),
        ("annotator_ids", np.int32, 3),
        ("weights", np.float32, 2.0),
        ("preference_proportions", np.float32, 0.75),
    ):
        assert batch[key].dtype == dtype and batch[key].tolist() == [value]
    assert collating.pad_batch(batch, 2)["weights"].tolist() == [2.0, 0.0]
    lists, _ = rows.tokenize(
        [Ranking("p", ("a", "b", "c"), (1.0, 0.5, 0.0))], BYTES, prompt_length=4, completion_length=4
    )
    batch = collating.collate_trees(lists, 4, 4, 3)
    assert batch["labels"].dtype == np.float32 and batch["labels"].tolist() == [[1.0, 0.5, 0.0]]
    assert "margins" not in batch


def test_unpaired_examples_carry_their_verdict():
    examples, _ = rows.tokenize(
        [Unpaired("p", "a", True), Unpaired("q", "b", False)], BYTES, prompt_length=4, completion_length=4
    )
    batch = collating.collate_trees(collating.with_mismatched(examples), 4, 4, 2)
    assert batch["desirable"].dtype == bool and batch["desirable"].tolist() == [True, False]
    texts = [[BYTES.decode(c) for c in completions] for ((_, completions),) in collating.unpack(batch, 4)]
    assert texts == [["a", "b"], ["b", "a"]]
    padded = collating.pad_batch(batch, 3)
    assert padded["valid"].tolist() == [True, True, False] and not padded["mask"][2].any()


def test_sides_of_a_triple_are_chosen_rejected_gold():
    triples = [Triple("p", gold="g", chosen="c", rejected="r")]
    examples, _ = rows.tokenize(triples, BYTES, prompt_length=4, completion_length=4)
    ((_, completions),) = collating.unpack(collating.collate_trees(examples, 4, 4, 3), 4)[0]
    assert [BYTES.decode(c) for c in completions] == ["c", "r", "g"]
    cut = [Triple("p", gold="good", chosen="abcd1", rejected="abcd2", where="x:1"), *triples]
    kept, report = rows.tokenize(cut, BYTES, prompt_length=4, completion_length=4, too_long="truncate")
    assert [e.id for e in kept] == [1] and report.dropped_equal == 1


def example(number, prompt, completion):
    return Tokenized(number, np.asarray(prompt, np.int32), (np.asarray(completion, np.int32),))


def test_mismatched_completions_are_those_of_the_next_row():
    examples = [example(i, [i], [10 + i]) for i in range(4)]
    mixed = collating.with_mismatched(examples)
    assert [[int(c[0]) for c in e.completions] for e in mixed] == [[10, 11], [11, 12], [12, 13], [13, 10]]
    assert [e.id for e in mixed] == [0, 1, 2, 3] and all(len(e.completions) == 1 for e in examples)


@quick
@given(st.lists(st.integers(0, 2), min_size=2, max_size=7))
def test_mismatched_completions_come_from_another_prompt_if_there_is_one(prompts):
    mixed = collating.with_mismatched([example(i, [p], [i]) for i, p in enumerate(prompts)])
    for i, e in enumerate(mixed):
        assert e.completions[1][0] != i
        assert (prompts[e.completions[1][0]] != prompts[i]) == (len(set(prompts)) > 1)


def test_an_example_twice_in_a_batch_is_not_its_own_neighbour_and_one_alone_is():
    twice, other = example(3, [1], [7]), example(5, [1], [8])
    assert [int(e.completions[1][0]) for e in collating.with_mismatched([twice, twice, other])] == [8, 8, 7]
    assert [int(e.completions[1][0]) for e in collating.with_mismatched([twice])] == [7]
    with pytest.raises(ValueError, match="one completion"):
        collating.with_mismatched(collating.with_mismatched([twice, other]))


@pytest.mark.parametrize("field", ["margin", "annotator_id", "weight", "preference_proportion"])
def test_field_of_only_some_examples_is_an_error_with_its_place(field):
    examples = [Pair("p", "a", "b", **{field: 1}, where="x:1"), Pair("p", "a", "b", where="x:2")]
    for order in (examples, examples[::-1]):
        with pytest.raises(DataError, match=f"x:2: field '{field}' is missing but x:1 has it"):
            rows.tokenize(order, BYTES, prompt_length=4, completion_length=4)


def test_mixed_types_and_list_sizes_are_errors():
    mixed = [Pair("p", "a", "b"), Completion("p", "a", where="x:2")]
    with pytest.raises(DataError, match="x:2: a Completion among"):
        rows.tokenize(mixed, BYTES, prompt_length=4, completion_length=4)
    lists = [
        Ranking("p", ("a", "b"), (1.0, 0.0), where="x:1"),
        Ranking("p", ("a", "b", "c"), (2.0, 1.0, 0.0), where="x:2"),
    ]
    with pytest.raises(DataError, match=r"x:2.*3 entries but x:1 has 2"):
        rows.tokenize(lists, BYTES, prompt_length=4, completion_length=4)


LONG = [
    Completion("0123456789", "ab", where="x:1"),
    Completion("01", "abcdef", where="x:2"),
    Completion("01", "ab", where="x:3"),
]


def test_too_long_is_an_error_with_place_and_lengths():
    with pytest.raises(DataError, match=r"x:1: too long: prompt 11 tokens \(prompt_length=8\), completion 3"):
        rows.tokenize(LONG, BYTES, prompt_length=8, completion_length=4)
    with pytest.raises(DataError, match=r"x:2: too long: prompt 3 .*completion 7 .*\(completion_length=4\)"):
        rows.tokenize(LONG[1:], BYTES, prompt_length=8, completion_length=4)


def test_dropped_examples_are_counted_and_ids_stay():
    kept, report = rows.tokenize(LONG, BYTES, prompt_length=8, completion_length=4, too_long="drop")
    assert [e.id for e in kept] == [2]
    assert (report.examples, report.kept, report.dropped_too_long) == (3, 1, 2)
    assert "1 of 3 examples kept (2 too long" in str(report)
    with pytest.raises(DataError, match=r"no example is left.*2 too long"):
        rows.tokenize(LONG[:2], BYTES, prompt_length=8, completion_length=4, too_long="drop")


def test_truncation_keeps_begin_token_and_prompt_end_and_is_counted():
    kept, report = rows.tokenize(LONG, BYTES, prompt_length=8, completion_length=4, too_long="truncate")
    assert kept[0].prompt.tolist() == [BYTES.bos_id, *b"3456789"]
    assert kept[1].completions[0].tolist() == [*b"abcd"]  # cut, hence without end token
    assert kept[2].completions[0].tolist() == [*b"ab", BYTES.eos_id]
    assert (report.truncated_prompts, report.truncated_completions, report.kept) == (1, 1, 3)
    assert (report.longest_prompt, report.longest_completion) == (11, 7)
    assert report.prompt_tokens == 8 + 3 + 3 and report.completion_tokens == 3 + 4 + 3


def test_pairs_that_the_cut_makes_equal_are_dropped_and_counted():
    pairs = [Pair("p", "same beginning, good", "same beginning, bad"), Pair("p", "a", "b")]
    kept, report = rows.tokenize(pairs, BYTES, prompt_length=4, completion_length=8, too_long="truncate")
    assert [e.id for e in kept] == [1] and report.dropped_equal == 1 and report.truncated_completions == 0


def test_packing_refuses_what_it_cannot_hold():
    one = np.ones(3, np.int32)
    with pytest.raises(ValueError, match="one completion"):
        collating.pack([Tokenized(0, one, (one, one))], L)
    with pytest.raises(ValueError, match="weight"):
        collating.pack([Tokenized(0, one, (one,), weight=1.0)], L)
    with pytest.raises(DataError, match="x:1: prompt and completion have 6 tokens, more than a row of 5"):
        collating.pack([Tokenized(0, one, (one,), where="x:1")], 5)
    with pytest.raises(ValueError, match="sides=2"):
        collating.collate_trees([Tokenized(0, one, (one,))], P, T, 2)
    with pytest.raises(ValueError, match="does not fit"):
        collating.collate_trees([Tokenized(0, one, (one,))], 2, T, 1)


def test_prompt_sets_have_nothing_to_tokenise_as_rows():
    queries = [Query("17+25=", {"answer": "42"}, where="sums:1")]
    with pytest.raises(DataError, match=r"sums:1.*'prompts' has no completion"):
        rows.tokenize(queries, ByteTokenizer(), prompt_length=8, completion_length=8)


def test_labels_of_steps_stand_at_the_last_token_of_each_separator():
    records = [{"prompt": "p", "steps": ["ab", "c"], "labels": [1, 0.25], "correct": True}]
    examples, _ = rows.tokenize(
        formats.from_records(records, "steps"), ByteTokenizer(), prompt_length=4, completion_length=8
    )
    batch = collating.collate_trees(examples, 4, 8, 1)
    ids = batch["targets"][0, 0]
    newline = ByteTokenizer().encode(rows.SEPARATOR)[-1]
    np.testing.assert_array_equal(np.flatnonzero(batch["step_mask"][0, 0]), np.flatnonzero(ids == newline))
    np.testing.assert_array_equal(batch["step_labels"][0, 0][batch["step_mask"][0, 0]], [1, 0.25])
    assert batch["correct"].tolist() == [True] and "labels" not in batch
    padded = collating.pad_batch(batch, 2)
    assert not padded["step_mask"][1].any()


def test_a_step_that_is_cut_off_loses_its_label_and_is_counted():
    records = [{"prompt": "p", "steps": ["ab", "c"], "labels": [1, 0]}]
    examples, report = rows.tokenize(
        formats.from_records(records, "steps"), ByteTokenizer(), prompt_length=4, completion_length=4,
        too_long="truncate",
    )  # fmt: skip
    assert examples[0].step_ends == (2,) and examples[0].step_labels == (1.0,)
    assert report.truncated_completions == 1


def test_missing_ratings_are_zero_and_said_to_be_missing():
    records = [{"prompt": "p", "completion": "a", "ratings": [None, 0.5], "reward": 2.0}]
    examples, _ = rows.tokenize(
        formats.from_records(records, "ratings"), ByteTokenizer(), prompt_length=4, completion_length=4
    )
    batch = collating.collate_trees(examples, 4, 4, 1)
    assert batch["ratings"].tolist() == [[0.0, 0.5]] and batch["rated"].tolist() == [[False, True]]
    assert batch["rewards"].tolist() == [2.0]
    with pytest.raises(ValueError, match="no place for ratings or steps"):
        collating.pack(examples, 16)


def test_ratings_of_different_numbers_are_an_error():
    records = [{"prompt": "p", "completion": "a", "ratings": [1.0] * n} for n in (2, 3)]
    with pytest.raises(DataError, match=r"records:2.*'ratings' has 3 entries.*2"):
        rows.tokenize(formats.from_records(records, "ratings"), ByteTokenizer(), prompt_length=4, completion_length=4)


@quick
@given(st.data(), st.integers(2, 3))
def test_sides_of_several_prompts_follow_their_own_prompt_only(data, sides):
    drawn = [data.draw(st.tuples(*[st.tuples(vectors(P), vectors(T))] * sides)) for _ in range(3)]
    examples = [
        Tokenized(i, both[0][0], tuple(c for _, c in both), prompts=tuple(p for p, _ in both))
        for i, both in enumerate(drawn)
    ]
    batch = collating.collate_several_prompts(examples, P, T, sides)
    assert batch["tokens"].shape == (3, sides * (P + T)) and batch["mask"].shape == (3, sides, T)
    for b, example in enumerate(examples):
        scored = {(s, t): context for s, t, context in check_targets(batch, b)}
        for s, (prompt, completion) in enumerate(zip(example.prompts, example.completions, strict=True)):
            assert batch["targets"][b, s, : len(completion)].tolist() == completion.tolist()
            assert batch["tokens"][b, batch["last_index"][b, s]] == completion[-1]
            for t in range(len(completion)):
                assert scored.pop((s, t)) == [*prompt, *completion[:t]]
        assert not scored


def test_an_example_to_forget_and_to_retain_is_cut_and_counted_on_both_sides():
    records = [{"prompt": "12345678", "forget": "ab", "retain_prompt": "87654321", "retain": "cde", "chosen": "no"}]
    examples = formats.from_records(records, "unlearning")
    (cut,), report = rows.tokenize(examples, BYTES, prompt_length=5, completion_length=3, too_long="truncate")
    assert report.truncated_prompts == 3 and report.truncated_completions == 1
    assert [BYTES.decode(p[1:]) for p in cut.prompts] == ["5678", "4321", "5678"]
    assert [BYTES.decode(c[:2]) for c in cut.completions] == ["ab", "cd", "no"]
    with pytest.raises(ValueError, match="several"):
        rows.with_prefix(cut, [1], None)
    with pytest.raises(DataError, match="too long: prompt 9 tokens"):
        rows.tokenize(examples, BYTES, prompt_length=8, completion_length=9)
