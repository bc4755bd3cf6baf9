"""Span rewards become token rewards of the right tokens; the identities of Text2Grad."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment.rewards.spans import byte_offsets, find_spans, token_labels, token_rewards

quick = settings(max_examples=60, deadline=None, derandomize=True, database=None)
TEXT = "the cat is kind and the dog is rude"
#       0123456789012345678901234567890123 4


def pieces(text, cuts):
    """Offsets of tokens that begin at the cuts."""
    edges = [0, *sorted(cuts), len(text)]
    return list(itertools.pairwise(edges))


def test_tokens_of_a_span_get_its_label_and_the_others_none():
    offsets = pieces(TEXT, [4, 8, 11, 16, 20, 24, 28, 31])
    labels = token_labels(TEXT, offsets, [(11, 15, 1), (31, 35, -1)])
    assert labels.tolist() == [0, 0, 0, 1, 0, 0, 0, 0, -1] and labels.dtype == np.int8


def test_every_token_of_a_word_inherits_the_label_of_its_word():
    offsets = pieces(TEXT, [11, 13, 15])  # ki|nd
    assert token_labels(TEXT, offsets, [(11, 12, 1)]).tolist() == [0, 1, 1, 0]
    assert token_labels(TEXT, offsets, [(14, 15, -1)]).tolist() == [0, -1, -1, 0]


def test_stretches_with_both_labels_count_for_neither():
    offsets = pieces(TEXT, [4, 7, 11])
    assert token_labels(TEXT, offsets, [(0, 7, 1), (4, 10, -1)]).tolist() == [1, 0, -1, 0]


def test_a_token_over_good_and_bad_characters_takes_the_majority():
    spans = [(0, 3, 1), (8, 10, -1)]
    assert token_labels(TEXT, [(0, 10), (1, 10), (2, 10)], spans).tolist() == [1, 0, -1]


def test_tokens_without_text_have_no_label():
    assert token_labels(TEXT, [(0, 35), (35, 35), (0, 0)], [(0, 35, 1)]).tolist() == [1, 0, 0]


@pytest.mark.parametrize("span", [(-1, 3, 1), (3, 3, 1), (5, 3, 1), (0, 36, 1), (0, 3, 0), (0, 3, 0.5)])
def test_spans_outside_the_text_and_other_labels_are_errors(span):
    with pytest.raises(ValueError, match="span"):
        token_labels(TEXT, [(0, 35)], [span])
    with pytest.raises(ValueError, match=r"offsets\[0\]"):
        token_labels(TEXT, [(0, 36)], [])


def test_repeated_phrases_are_aligned_to_one_occurrence_each():
    found, missing = find_spans(TEXT, [("the", 1), ("the", -1), ("the", 1), ("is", 1)])
    assert found == [(0, 3, 1), (20, 23, -1), (8, 10, 1)] and missing == ["the"]


def test_a_phrase_inside_a_longer_word_is_not_found():
    found, missing = find_spans("other then the", [("the", 1), ("he", 1), ("", 1), ("Then", 1)])
    assert found == [(11, 14, 1)] and missing == ["he", "", "Then"]
    assert find_spans("a (b) c", [("(b)", -1)]) == ([(2, 5, -1)], [])


def test_a_longer_phrase_before_keeps_a_shorter_one_from_its_place():
    found, _ = find_spans(TEXT, [("the cat", 1), ("the", -1)])
    assert found == [(0, 7, 1), (20, 23, -1)]


@quick
@given(st.text(alphabet="aé語😀 ", max_size=20))
def test_byte_offsets_agree_with_the_byte_tokenizer(text):
    offsets = byte_offsets(text)
    assert len(offsets) == len(text.encode())
    assert "".join(text[a:b] for a, b in dict.fromkeys(offsets)) == text


def batch(seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(-1, 2, size=(4, 9)).astype(np.int8)
    mask = np.arange(9) < rng.integers(1, 10, size=(4, 1))
    return labels, rng.normal(size=(4, 9)).astype(np.float32), mask


def test_without_spans_the_reward_is_the_kl_alone():
    _, kls, mask = batch()
    labels = np.stack([token_labels("some text", [(i, i + 1) for i in range(9)], [])] * 4)
    np.testing.assert_allclose(token_rewards(labels, kls, mask, beta=0.2), np.where(mask, -0.2 * kls, 0), rtol=1e-6)


def test_one_good_span_over_everything_is_a_reward_of_one_per_token():
    text = "all of this is good"
    labels = token_labels(text, byte_offsets(text), [(0, len(text), 1)])
    rewards = token_rewards(labels, np.zeros(len(text)), np.ones(len(text), bool), beta=0.1)
    assert rewards.sum() == len(text) and (rewards == 1).all()


def test_sum_of_token_rewards_is_good_minus_bad_tokens_minus_beta_kl():
    labels, kls, mask = batch(1)
    expected = ((labels == 1) & mask).sum(-1) - ((labels == -1) & mask).sum(-1) - 0.3 * np.where(mask, kls, 0).sum(-1)
    np.testing.assert_allclose(token_rewards(labels, kls, mask, beta=0.3).sum(-1), expected, rtol=1e-5, atol=1e-5)


def test_only_labelled_tokens_get_signal_without_kl():
    labels, kls, mask = batch(2)
    rewards = token_rewards(labels, kls, mask, beta=0.0)
    np.testing.assert_array_equal(rewards, np.where(mask, labels, 0))


def test_one_step_advantages_without_values_are_the_token_rewards():
    kernels = pytest.importorskip("alignment.policy_gradients.advantages")
    labels, kls, mask = batch(2)
    rewards = token_rewards(labels, kls, mask, beta=0.2)
    found = kernels.gae(rewards, np.zeros_like(rewards), mask, lam=0.0, gamma=1.0)
    np.testing.assert_allclose(found["token_advantages"], rewards, atol=1e-6)


def test_with_k1_it_is_the_kl_shaped_reward_of_score_zero_and_the_labels():
    kernels = pytest.importorskip("alignment.policy_gradients.shaping")
    labels, kls, mask = batch(4)
    reference = np.random.default_rng(5).normal(size=kls.shape).astype(np.float32)
    shaped = kernels.kl_shaped_rewards(np.zeros(4, np.float32), reference + kls, reference, mask, beta=0.3)
    expected = np.asarray(shaped) + np.where(mask, labels, 0)
    np.testing.assert_allclose(token_rewards(labels, kls, mask, beta=0.3), expected, atol=1e-5)


def test_what_the_mask_hides_cannot_be_seen():
    labels, kls, mask = batch(3)
    hidden = token_rewards(np.where(mask, labels, 1), np.where(mask, kls, np.nan), mask, beta=0.3)
    np.testing.assert_array_equal(hidden, token_rewards(labels, kls, mask, beta=0.3))


def test_shapes_and_ranges_are_checked():
    labels, kls, mask = batch()
    with pytest.raises(ValueError, match="one shape"):
        token_rewards(labels[:, :3], kls, mask, beta=0.1)
    with pytest.raises(ValueError, match="bool"):
        token_rewards(labels, kls, mask.astype(float), beta=0.1)
    with pytest.raises(ValueError, match=r"beta must lie in \[0, inf\)"):
        token_rewards(labels, kls, mask, beta=-0.1)
