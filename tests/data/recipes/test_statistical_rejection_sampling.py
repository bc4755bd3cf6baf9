"""RSO: the catalogue's identities, the law it approaches, and the two implementations against each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment.data import formats
from alignment.data.recipes import statistical_rejection_sampling as rso

quick = settings(max_examples=40, deadline=None, derandomize=True, database=None)
REWARDS = np.array([0.2, 1.5, -1.0, 1.4, 0.9, -0.3])


def generator(seed=0):
    return np.random.default_rng(seed)


def test_acceptance_by_hand_and_only_of_what_is_left():
    left = jnp.array([True, False, True, True])
    got = rso.rso_acceptance(jnp.array([1.0, 9.0, 0.5, 0.0]), left, beta=0.5)
    np.testing.assert_allclose(got, [1.0, 0.0, np.exp(-1), np.exp(-2)], rtol=1e-6)
    np.testing.assert_array_equal(rso.rso_acceptance(jnp.array([1.0, jnp.nan]), jnp.array([True, False])), [1, 0])
    np.testing.assert_array_equal(rso.rso_acceptance(jnp.array([1.0, 2.0]), jnp.zeros(2, bool)), [0, 0])


def test_acceptance_of_the_best_that_is_left_is_exactly_one():
    rewards = jnp.asarray(generator().normal(size=(50, 9)) * 1e4)
    left = jnp.asarray(generator(1).random((50, 9)) < 0.5).at[:, 3].set(True)
    p = rso.rso_acceptance(rewards, left, beta=0.01)
    np.testing.assert_array_equal(p.max(axis=-1), 1.0)
    np.testing.assert_array_equal(p[~left], 0.0)


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan")])
def test_beta_out_of_range(bad):
    for call in (
        lambda: rso.rso_acceptance(jnp.ones(2), jnp.ones(2, bool), beta=bad),
        lambda: rso.statistical_rejection_sampling(REWARDS, generator(), beta=bad),
    ):
        with pytest.raises(ValueError, match=r"beta must lie in \(0, inf\]"):
            call()
    with pytest.raises(ValueError, match=r"k must be an integer in \[1, inf\)"):
        rso.statistical_rejection_sampling(REWARDS, generator(), k=0)
    with pytest.raises(ValueError, match="finite"):
        rso.statistical_rejection_sampling(np.array([1.0, np.nan]), generator())


@pytest.mark.parametrize("k", [1, 3, 6])
def test_beta_towards_zero_keeps_the_best_k(k):
    kept = rso.statistical_rejection_sampling(REWARDS, generator(), k=k, beta=1e-6)
    assert kept.tolist() == np.argsort(-REWARDS)[:k].tolist()  # k = 1 is best-of-N


@pytest.mark.parametrize("k", [1, 3, 6])
def test_beta_at_infinity_keeps_the_first_k(k):
    kept = rso.statistical_rejection_sampling(REWARDS, generator(), k=k, beta=float("inf"))
    assert kept.tolist() == list(range(k))


@quick
@given(st.integers(1, 12), st.integers(1, 14), st.sampled_from([0.01, 0.5, 3.0]), st.integers(0, 99))
def test_accepted_are_distinct_and_as_many_as_asked_for_or_there(count, k, beta, seed):
    rewards = generator(seed).normal(size=count)
    kept = rso.statistical_rejection_sampling(rewards, generator(seed), k=k, beta=beta)
    assert len(kept) == len(set(kept.tolist())) == min(k, count)


def test_a_constant_added_to_all_rewards_changes_nothing():
    for seed in range(20):
        one = rso.statistical_rejection_sampling(REWARDS, generator(seed), k=3)
        other = rso.statistical_rejection_sampling(REWARDS + 64.0, generator(seed), k=3)
        assert one.tolist() == other.tolist()


class Passes:
    """A stand-in for a generator that gives, and counts, prepared uniform numbers."""

    def __init__(self, uniforms):
        self.uniforms, self.used = uniforms, 0

    def random(self, size):
        self.used += 1
        return self.uniforms[self.used - 1, :size]


def test_every_pass_accepts_at_least_the_best_and_takes_the_largest_reward_anew():
    never = Passes(np.full((6, 6), 1 - 1e-12))
    kept = rso.statistical_rejection_sampling(REWARDS, never, k=4, beta=0.5)
    assert kept.tolist() == np.argsort(-REWARDS)[:4].tolist() and never.used == 4


def test_acceptance_stops_in_the_middle_of_a_pass():
    always = Passes(np.zeros((6, 6)))
    assert rso.statistical_rejection_sampling(REWARDS, always, k=2, beta=0.5).tolist() == [0, 1]


@quick
@given(st.integers(1, 12), st.integers(1, 14), st.sampled_from([0.05, 0.5, 3.0, float("inf")]), st.integers(0, 99))
def test_the_masked_passes_under_jit_accept_the_same_in_the_same_order(count, k, beta, seed):
    rewards = generator(seed).normal(size=count).astype(np.float32)
    uniforms = generator(seed + 1).random((min(k, count), count)).astype(np.float32)
    expected = rso.statistical_rejection_sampling(rewards, Passes(uniforms), k=k, beta=beta)
    fixed = jax.jit(rso.statistical_rejection_sampling_fixed, static_argnames=("k", "beta"))
    got = np.asarray(fixed(rewards, uniforms, k=k, beta=beta))
    assert got.tolist() == expected.tolist() + [-1] * (k - len(expected))


def test_the_masked_passes_take_many_prompts_at_once_and_say_what_stayed_empty():
    rewards = jnp.asarray(generator().normal(size=(4, 2, 10)))
    uniforms = jnp.asarray(generator(1).random((4, 2, 3, 10)))
    whole = rso.statistical_rejection_sampling_fixed(rewards, uniforms, k=5)
    for i in np.ndindex(4, 2):
        np.testing.assert_array_equal(whole[i], rso.statistical_rejection_sampling_fixed(rewards[i], uniforms[i], k=5))
    one_pass = rso.statistical_rejection_sampling_fixed(rewards[0, 0], jnp.full((1, 10), 0.999999), k=5)
    assert one_pass.tolist() == [int(rewards[0, 0].argmax()), -1, -1, -1, -1]
    # A draw that rounds to 1 must not cost the best one.
    best = rso.statistical_rejection_sampling_fixed(jnp.array([0.0, 1.0]), jnp.ones((1, 2)), k=1)
    assert best.tolist() == [1]


def toy():
    """20 answers; the draw (of Dirichlet and normal numbers) has about the distances that the catalogue measured."""
    rng = generator(10)
    policy, rewards = rng.dirichlet(np.ones(20)), rng.normal(size=20)
    target = policy * np.exp(rewards / 0.5)
    return policy, rewards, target / target.sum(), rng


def test_exact_rejection_sampling_has_the_law_of_the_target_and_the_expected_rate():
    """One accept from an endless stream: accepted mass is policy * acceptance, its sum the rate."""
    policy, rewards, target, rng = toy()
    accepted = policy * np.asarray(rso.rso_acceptance(jnp.asarray(rewards), jnp.ones(20, bool), beta=0.5))
    rate = float(np.sum(policy * np.exp((rewards - rewards.max()) / 0.5)))
    np.testing.assert_allclose(accepted / accepted.sum(), target, rtol=1e-5)
    np.testing.assert_allclose(accepted.sum(), rate, rtol=1e-5)
    stream = rng.choice(20, 40_000, p=policy)
    hits = rng.random(stream.size) < np.exp((rewards[stream] - rewards.max()) / 0.5)
    assert hits.mean() == pytest.approx(rate, abs=4 * np.sqrt(rate / stream.size))


@pytest.mark.parametrize(("candidates", "distance"), [(8, 0.61), (16, 0.43), (64, 0.014)])
def test_distance_to_the_target_falls_as_candidates_grow(candidates, distance):
    policy, rewards, target, rng = toy()
    counts = np.zeros(20)
    for _ in range(600):
        drawn = rng.choice(20, candidates, p=policy)
        kept = rso.statistical_rejection_sampling(rewards[drawn], rng, k=8, beta=0.5)
        counts += np.bincount(drawn[kept], minlength=20)
    # 4,800 accepted: the distance to the exact law itself is about 0.015.
    assert 0.5 * np.abs(counts / counts.sum() - target).sum() == pytest.approx(distance, abs=0.03)


def test_mean_reward_lies_between_the_policy_and_the_best_and_falls_with_beta():
    policy, rewards, _, rng = toy()
    means = []
    for beta in (1e-6, 0.25, 1.0, float("inf")):
        drawn = [rng.choice(20, 32, p=policy) for _ in range(200)]
        kept = [d[rso.statistical_rejection_sampling(rewards[d], rng, k=4, beta=beta)] for d in drawn]
        means.append(np.mean(rewards[np.concatenate(kept)]))
    assert means == sorted(means, reverse=True)
    assert means[-1] == pytest.approx(policy @ rewards, abs=0.1)


def test_first_round_pairs_each_once_the_better_first_and_drops_ties():
    rewards = np.array([3.0, 1.0, 2.0, 2.0, 5.0, 0.0, 4.0])
    for seed in range(20):
        kept = np.array([6, 0, 4, 1, 5])
        pairs = rso.rso_first_round_pairs(kept, rewards, generator(seed))
        assert len(pairs) == 2 and len(set(pairs.ravel().tolist())) == 4 and set(pairs.ravel()) <= set(kept)
        assert all(rewards[better] > rewards[worse] for better, worse in pairs)
        assert rso.rso_first_round_pairs(np.array([2, 3]), rewards, generator(seed)).shape == (0, 2)
    assert rso.rso_first_round_pairs(np.array([], int), rewards, generator()).shape == (0, 2)
    orders = {tuple(map(tuple, rso.rso_first_round_pairs(kept, rewards, generator(s)).tolist())) for s in range(20)}
    assert len(orders) > 5  # shuffled


@pytest.mark.parametrize("k", range(6))
def test_a_tournament_gives_one_pair_less_than_players_and_the_best_wins(k):
    rewards = generator(3).normal(size=8)
    pairs = rso.rso_tournament_pairs(np.arange(k), rewards, generator(k))
    assert len(pairs) == max(k - 1, 0)
    assert len(set(pairs[:, 1].tolist())) == len(pairs)  # everyone loses once at most
    if k > 1:
        assert pairs[-1, 0] == rewards[:k].argmax()


@pytest.mark.parametrize("pairing", rso.PAIRINGS)
def test_records_are_pairs_with_margins_and_everything_is_counted(pairing):
    candidates = [
        {"prompt": f"p{i}", "responses": [f"a{j}" for j in range(12)], "rewards": generator(i).normal(size=12).tolist()}
        for i in range(5)
    ]
    out, counts = rso.records(candidates, generator(), k=7, pairing=pairing)
    assert out == rso.records(candidates, generator(), k=7, pairing=pairing)[0]
    examples = formats.from_records(out, "pairs")
    reward = {(c["prompt"], t): r for c in candidates for t, r in zip(c["responses"], c["rewards"], strict=True)}
    for e in examples:
        assert e.margin == pytest.approx(reward[e.prompt, e.chosen] - reward[e.prompt, e.rejected]) and e.margin > 0
    assert (counts["prompts"], counts["candidates"], counts["accepted"]) == (5, 60, 35)
    assert counts["pairs"] == len(out) == {"first_round": 15, "tournament": 30}[pairing]
    assert counts["accepted_without_pair"] == {"first_round": 5, "tournament": 0}[pairing]
    same = [{"prompt": "p", "responses": ["a", "a"], "rewards": [1.0, 0.5]}]
    out, counts = rso.records(same, generator(), pairing=pairing)
    assert out == [] and counts["dropped_pairs_of_equal_text"] == 1
    with pytest.raises(ValueError, match="first_round, tournament"):
        rso.records(candidates, generator(), pairing="all")
