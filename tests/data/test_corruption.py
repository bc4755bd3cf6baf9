"""Corrupted inputs: which tokens change, that targets do not, and that the draws belong to the place in the stream."""

import functools
import itertools

import numpy as np
import pytest

from alignment import statistics
from alignment.data import collating, corruption, pipeline
from alignment.data.rows import Tokenized

PROMPT, COMPLETION, MASK_ID = 4, 40, 300


def examples(count=12, tokens=100):
    """Prompts of zeros and completions of ordinary tokens with an end token, of different lengths."""
    rng = np.random.default_rng(0)
    return [
        Tokenized(i, np.zeros(1 + i % PROMPT, np.int32),
                  (np.append(rng.integers(1, tokens, 20 + i), 258).astype(np.int32),))
        for i in range(count)
    ]  # fmt: skip


tree = functools.partial(collating.collate_trees, prompt_length=PROMPT, completion_length=COMPLETION, sides=1)
packed = functools.partial(collating.collate_packed, length=80)
LAYOUTS = {"tree": (tree, examples()), "packed": (packed, collating.pack(examples(), 80))}
each_layout = pytest.mark.parametrize("layout", LAYOUTS)


def rngs(count, seed=0):
    return [np.random.default_rng([seed, i]) for i in range(count)]


def batch_of(layout):
    collate, found = LAYOUTS[layout]
    return collate(found)


@each_layout
def test_columns_are_those_that_the_statistics_read(layout):
    batch = batch_of(layout)
    columns = corruption.completion_columns(batch)
    np.testing.assert_array_equal(columns, statistics.completion_columns(batch))
    read = np.take_along_axis(batch["tokens"], columns[:, 0], axis=1)
    np.testing.assert_array_equal(read[batch["mask"][:, 0]], batch["targets"][batch["mask"]])


def unchanged_but_tokens(before, after, added=()):
    assert set(after) == set(before) | set(added)
    for key in set(before) - {"tokens"}:
        np.testing.assert_array_equal(after[key], before[key], err_msg=key)


@each_layout
def test_masked_thought_hides_inputs_of_completions_alone(layout):
    batch = batch_of(layout)
    out = corruption.masked_thought(batch, rngs(len(batch["ids"])), 1.0, mask_id=MASK_ID, share=0.4)
    unchanged_but_tokens(batch, out)
    changed = out["tokens"] != batch["tokens"]
    assert (out["tokens"][changed] == MASK_ID).all() and (batch["tokens"][changed] != 0).all()
    assert 0.3 < changed.sum() / batch["mask"].sum() < 0.5
    whole = corruption.masked_thought(batch, rngs(len(batch["ids"])), 1.0, mask_id=MASK_ID, share=1.0)
    assert (whole["tokens"] == MASK_ID).sum() == batch["mask"].sum()


def test_the_rate_of_masked_thought_rises_and_a_share_of_zero_is_plain_fine_tuning():
    batch = batch_of("tree")
    masked = functools.partial(corruption.masked_thought, batch, mask_id=MASK_ID)
    counts = [
        (masked(rngs(12), progress, share=0.6, warmup=0.5)["tokens"] == MASK_ID).sum()
        for progress in (0.0, 0.25, 0.5, 1.0)
    ]
    assert counts[0] == 0 < counts[1] < counts[2] == counts[3]
    np.testing.assert_array_equal(masked(rngs(12), 1.0, share=0.0)["tokens"], batch["tokens"])
    with pytest.raises(ValueError, match=r"share must lie in \[0, 1\], got 1.5"):
        masked(rngs(12), 1.0, share=1.5)


@each_layout
def test_substitution_says_which_ordinary_tokens_it_replaced(layout):
    batch = batch_of(layout)
    out = corruption.random_substitution(batch, rngs(len(batch["ids"])), 0.0, vocabulary=100, share=0.3)
    unchanged_but_tokens(batch, out, ("trained_mask",))
    chosen = out["trained_mask"]
    assert not (chosen & (batch["targets"] == 258)).any() and not (chosen & ~batch["mask"]).any()
    assert 0.2 < chosen.sum() / batch["mask"].sum() < 0.4
    read = np.take_along_axis(out["tokens"], corruption.completion_columns(batch)[:, 0], axis=1)[:, None]
    np.testing.assert_array_equal(read[batch["mask"] & ~chosen], batch["targets"][batch["mask"] & ~chosen])
    assert (read[chosen] < 100).all() and (read[chosen] != batch["targets"][chosen]).mean() > 0.9


def test_the_law_of_clusters_follows_mistakes_and_is_uniform_without_weight():
    counts = np.array([[0.0, 2.0, 4.0], [1.0, 1.0, 1.0], [5.0, 0.0, 0.0]])
    law = corruption.crts_cluster_law(counts, beta=2.0)
    np.testing.assert_allclose(law.sum(axis=1), 1.0)
    np.testing.assert_allclose(law[0], np.exp([0, 1, 2]) / np.exp([0, 1, 2]).sum())
    np.testing.assert_allclose(law[1], 1 / 3)
    np.testing.assert_allclose(corruption.crts_cluster_law(counts, beta=0.0), 1 / 3)


def test_a_vocabulary_that_grows_hides_rare_tokens_from_input_and_label():
    batch, ranks = batch_of("tree"), np.arange(320)
    grow = functools.partial(corruption.climb_vocabulary, batch, rngs(12), ranks=ranks, unk_id=319)
    early, late = grow(0.0, lowest=0.1), grow(1.0)
    unchanged_but_tokens(batch, early, ("trained_mask",))
    assert set(np.unique(early["tokens"])) <= {*range(32), 319}
    np.testing.assert_array_equal(early["trained_mask"], batch["mask"] & (batch["targets"] < 32))
    np.testing.assert_array_equal(late["tokens"], batch["tokens"])
    np.testing.assert_array_equal(late["trained_mask"], batch["mask"])


def stream(**settings):
    corrupt = functools.partial(corruption.masked_thought, mask_id=MASK_ID)
    return pipeline.training_batches(
        examples(), seed=0, batch_size=4, collate=tree, corrupt=corrupt, steps_in_all=6, **settings
    )


def test_draws_belong_to_the_place_and_not_to_the_process_or_the_start():
    whole = list(itertools.islice(stream(), 8))
    for process in (0, 1):
        parts = itertools.islice(stream(process_index=process, process_count=2), 8)
        for part, batch in zip(parts, whole, strict=True):
            np.testing.assert_array_equal(part["tokens"], batch["tokens"][2 * process : 2 * process + 2])
    iterator = stream()
    for _ in range(3):
        next(iterator)
    resumed = stream()
    resumed.set_state(iterator.get_state())
    np.testing.assert_array_equal(next(resumed)["tokens"], whole[3]["tokens"])
    assert (whole[3]["tokens"] == MASK_ID).any() and not (whole[0]["tokens"] == MASK_ID).any()
    # The same example in two epochs is not corrupted alike.
    shown = {s: b["tokens"][list(b["ids"]).index(0)] for s, b in enumerate(whole) if 0 in b["ids"] and s > 2}
    assert len({row.tobytes() for row in shown.values()}) == len(shown) > 1


def test_evaluation_is_corrupted_alike_every_time_and_its_padding_counts_for_nothing():
    corrupt = functools.partial(corruption.random_substitution, vocabulary=100)
    batches = pipeline.evaluation_batches(examples(6), batch_size=4, collate=tree, corrupt=corrupt)
    first, second = batches[1], batches[1]
    np.testing.assert_array_equal(first["tokens"], second["tokens"])
    assert first["valid"].tolist() == [True, True, False, False] and first["trained_mask"].shape == (4, 1, COMPLETION)
    halves = [pipeline.evaluation_batches(examples(6), batch_size=4, collate=tree, corrupt=corrupt, process_index=i,
                                          process_count=2)[0] for i in (0, 1)]  # fmt: skip
    np.testing.assert_array_equal(np.concatenate([h["tokens"] for h in halves]), batches[0]["tokens"])
