"""Rule rewards of length and repetition, and the same numbers as TRL's."""

import numpy as np
import pytest

from alignment.rewards import length, tasks


def test_the_cosine_has_its_four_ends_and_stays_there_beyond_the_limit():
    lengths = np.array([0, 0, 100, 100, 500], np.int32)
    correct = np.array([True, False, True, False, True])
    got = length.cosine_length(lengths, correct, max_length=100)
    np.testing.assert_allclose(got, [1.0, -1.0, 0.5, -0.5, 0.5], atol=1e-6)
    half = length.cosine_length(np.int32(50), np.bool_(True), max_length=100)
    np.testing.assert_allclose(half, 0.75, rtol=1e-6)


def test_short_is_better_when_right_and_worse_when_wrong():
    lengths = np.arange(0, 100, 10, dtype=np.int32)
    right, wrong = (length.cosine_length(lengths, np.full(10, c), max_length=100) for c in (True, False))
    assert (np.diff(right) < 0).all() and (np.diff(wrong) > 0).all()


@pytest.mark.parametrize("size,ngram", [(3, 3), (7, 3), (12, 5)])
def test_equal_tokens_are_penalised_but_for_one_ngram(size, ngram):
    got = length.repetition_penalty([5] * size, ngram=ngram, max_penalty=-2.0)
    np.testing.assert_allclose(got, -2.0 * (1 - 1 / (size - ngram + 1)))


def test_too_few_tokens_and_no_repetition_cost_nothing():
    assert length.repetition_penalty([1, 1], ngram=3) == 0.0
    assert length.repetition_penalty(range(20)) == 0.0
    assert length.repetition("", "a b c a b c", {}) == pytest.approx(-0.25)
    with pytest.raises(ValueError, match="max_penalty must lie in"):
        length.repetition_penalty([1], max_penalty=0.5)


def test_a_tasks_own_check_decides_what_is_right():
    record = tasks.generate("sorting", 1, 0)[0]
    right = length.cosine_length_reward(record["prompt"], f"{record['answer']}.", record)
    wrong = length.cosine_length_reward(record["prompt"], "nonsense", record)
    assert 0.5 < right <= 1.0 and -1.0 <= wrong < -0.5
