"""Rewards with exact checks: right, wrong and hostile completions; RLVR's scores."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment.rewards import tasks, verifiable
from alignment.rewards.runner import RewardRunner

quick = settings(max_examples=50, deadline=None, derandomize=True, database=None)
TEN = {"target": 10, "numbers": [2, 3, 4]}

# reward, record, completions worth 1, completions worth 0
CASES = {
    "exact_match": ({"answer": "Paris."}, ["Paris."], ["paris.", "Paris", " Paris.", "Paris.\n", ""]),
    "normalised_match": (
        {"answer": ["The Beatles", "Fab Four"]},
        ["beatles", "THE BEATLES!", "  fab-four.", "ﬁ".replace("ﬁ", "fab four")],
        ["beatle", "the", "", "beatles fab four"],
    ),
    "number_match": (
        {"answer": "42"},
        ["42", "42.", " 42.\n", "42.0", "+42", "042"],
        ["41", "42..", "17+25", "84/2", "the answer is 42", "", "4 2", "42,", "NaN", "1e1", "4" * 10**6],
    ),
    "final_number_match": (
        {"answer": "1,000"},
        ["so it is 1,000.", "5 + 995 = 1000", "$1,000", "x=1000 dollars", "1000"],
        ["-1000", "1000 or 1001", "", "none", "x1000", "1,000,000", "9" * 10**6],
    ),
    "countdown": (
        TEN,
        ["2*3+4", "(3 * 2) + 4.", "2*3+4=10", "4--3*2", "work <answer>2*3+4 = 10</answer>", "2×3+4"],
        ["10", "2*3", "5*2", "2+2+2+4", "3+4+3", "2*3+4=11", "24-3*4-2", "2*3+4=5+5", "2*3+4 = ", "", "(" * 10**6],
    ),
    "format_pattern": ({"pattern": "a+.b"}, ["aa\nb", "axb"], ["axbc", "ab", ""]),
    "format_tags": (
        {},
        ["<think>a</think><answer>b</answer>", " <think>\na\n</think>\n<answer>b</answer>\n"],
        [
            "<answer>b</answer><think>a</think>",
            "<think>a</think><answer> </answer>",
            "<think></think><answer>b</answer>",
            "so <think>a</think><answer>b</answer>",
            "<think>a</think> x <answer>b</answer>",
            "<think>a</think><answer>b</answer> x",
            "<think>a</think><answer>b</answer><answer>c</answer>",
            "<think>a<answer>b</answer></think>",
            "<think>a</think>",
            "",
            "<think>" * 10**5,
        ],
    ),
}
LISTED = [(name, text, 1.0) for name in CASES for text in CASES[name][1]]
LISTED += [(name, text, 0.0) for name in CASES for text in CASES[name][2]]


@pytest.mark.parametrize(("name", "completion", "value"), LISTED, ids=[f"{n}-{t[:20]!r}-{v:g}" for n, t, v in LISTED])
def test_right_is_one_and_wrong_is_zero(name, completion, value):
    reward = getattr(verifiable, name)("p", completion, CASES[name][0])
    assert reward == value and type(reward) is float


def test_the_table_of_the_module_lists_its_rewards():
    listed = re.findall(r"^\| `(\w+)`", verifiable.__doc__, flags=re.MULTILINE)
    assert set(CASES) <= set(listed) and all(callable(getattr(verifiable, name)) for name in listed)


@pytest.mark.parametrize("name", [n for n in CASES if n != "format_tags"])
def test_a_record_without_its_field_is_a_mistake_of_the_data(name):
    with pytest.raises(KeyError):
        getattr(verifiable, name)("p", "x", {})


def test_answers_of_the_data_may_be_numbers_fractions_or_expressions():
    assert verifiable.number_match("p", "0.1", {"answer": 0.1}) == 1
    assert verifiable.number_match("p", "1/3", {"answer": "1/3"}) == 1
    assert verifiable.number_match("p", "0.333333", {"answer": "1/3"}) == 0
    assert verifiable.number_match("p", "-1.5", {"expression": "(2-5)/2"}) == 1
    for broken in ({"answer": "forty"}, {"expression": "1+"}):  # the data's mistake, not a wrong completion
        with pytest.raises(ValueError):
            verifiable.number_match("p", "40", broken)


@quick
@given(st.integers(-(10**6), 10**6), st.integers(-(10**6), 10**6))
def test_numbers_match_if_and_only_if_they_are_equal(a, b):
    assert verifiable.number_match("p", f"{a}.", {"answer": b}) == float(a == b)


def test_graded_countdown_pays_a_little_for_keeping_the_rules():
    for completion, value in (("2*3+4", 1.0), ("2+3", 0.1), ("2*3+4=11", 0.1), ("5+5", 0.0), ("2+", 0.0)):
        assert verifiable.countdown_graded("p", completion, TEN) == value


def test_each_given_number_may_be_used_as_often_as_it_is_given():
    record = {"target": 6, "numbers": [3, 3]}
    assert verifiable.countdown("p", "3+3", record) == 1
    assert verifiable.countdown("p", "3+3", record | {"numbers": [3, 4]}) == 0


def test_soft_length_limit_is_linear_between_its_ends():
    record = {"max_length": 20, "length_buffer": 10}
    values = [verifiable.soft_length_limit("p", "x" * n, record) for n in (0, 10, 11, 15, 20, 100)]
    assert values == [0, 0, -0.1, -0.5, -1, -1]
    with pytest.raises(ValueError, match="length_buffer"):
        verifiable.soft_length_limit("p", "", record | {"length_buffer": 0})


def test_lengths_are_counted_in_the_unit_of_the_record():
    text = "zwölf Äpfel"
    for unit, length in (("bytes", 13), ("characters", 11), ("words", 2)):
        assert verifiable.target_length("p", text, {"target_length": 10, "length_unit": unit}) == -abs(length - 10)
    with pytest.raises(ValueError, match="bytes, characters, words"):
        verifiable.target_length("p", text, {"target_length": 10, "length_unit": "tokens"})
    assert verifiable.length("\ud800", {}) == 1  # a lone surrogate must not raise


# RLVR ----------------------------------------------------------------------------------------------------------------


def rlvr(correct, alpha, beta, k1, mask):
    """Token rewards of completions that a verifier has judged."""
    shaping = pytest.importorskip("alignment.policy_gradients.shaping")
    verifier = verifiable.Verified(verifiable.exact_match, alpha=alpha)
    scores = [verifier("p", "a" if right else "b", {"answer": "a"}) for right in correct]
    reference = np.zeros_like(k1)
    return np.asarray(shaping.kl_shaped_rewards(np.array(scores, np.float32), k1, reference, mask, beta=beta))


def example(seed=0):
    rng = np.random.default_rng(seed)
    mask = np.arange(7) < rng.integers(1, 8, size=(5, 1))
    return rng.normal(size=(5, 7)).astype(np.float32), mask, np.array([True, False, True, True, False])


def test_rlvr_token_rewards_of_a_correct_response_sum_to_alpha_minus_beta_kl():
    k1, mask, correct = example()
    total = rlvr(correct, 10.0, 0.05, k1, mask).sum(-1)
    expected = np.where(correct, 10.0, 0.0) - 0.05 * np.where(mask, k1, 0).sum(-1)
    np.testing.assert_allclose(total, expected, rtol=1e-5)


def test_rlvr_alpha_and_beta_scale_together():
    k1, mask, correct = example(1)
    once, thrice = rlvr(correct, 10.0, 0.05, k1, mask), rlvr(correct, 30.0, 0.15, k1, mask)
    np.testing.assert_allclose(thrice, 3 * once, rtol=1e-5)


def test_rlvr_without_kl_rewards_the_last_token_and_gives_every_token_the_return_alpha_or_zero():
    k1, mask, correct = example(2)
    rewards = rlvr(correct, 10.0, 0.0, k1, mask)
    assert (np.count_nonzero(rewards, axis=-1) == correct).all()
    advantages = pytest.importorskip("alignment.policy_gradients.advantages")
    found = advantages.gae(rewards, np.zeros_like(rewards), mask, lam=1.0, gamma=1.0)
    np.testing.assert_allclose(found["token_returns"], np.where(mask & correct[:, None], 10.0, 0.0))


def test_verified_is_alpha_at_the_threshold_and_goes_to_workers():
    graded = verifiable.Verified(verifiable.countdown_graded, alpha=2.0, threshold=0.1)
    assert [graded("p", text, TEN) for text in ("2*3+4", "2+3", "5+5")] == [2.0, 2.0, 0.0]
    with pytest.raises(ValueError, match=r"alpha must lie in \(0, inf\)"):
        verifiable.Verified(verifiable.exact_match, alpha=0.0)
    record = tasks.generate("addition", 1, 0)[0]
    with RewardRunner(verifiable.Verified(tasks.reward), workers=1, time_limit=30) as runner:
        assert runner.names == ["verified_reward"]
        result = runner([record["prompt"]] * 2, [record["answer"] + ".", "x"], [record] * 2)
    assert result.rewards.tolist() == [10.0, 0.0]


def test_unfinished_completions_get_the_penalty_in_place_of_their_score():
    ended = np.array([True, False, False])
    np.testing.assert_array_equal(verifiable.unfinished_penalised(np.array([10.0, 10.0, 0.0]), ended), [10, -10, -10])
    with pytest.raises(ValueError, match="bool"):
        verifiable.unfinished_penalised(np.zeros(3), np.ones(3))
