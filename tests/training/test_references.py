"""Soups and references that follow the policy: identities of SALSA and TR-DPO."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny_steps

import alignment.losses
from alignment import losses, objective
from alignment.training import references, state, step

ALPHAS = [0.0, 0.3, 0.5, 1.0]


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def tree(seed):
    return {"a": normal(seed, 3, 2), "b": {"c": normal(seed + 100, 4)}}


def assert_same(got, want):
    for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_array_equal(g, w)


# --- soups -----------------------------------------------------------------------------------------------------------


def test_soup_by_hand_and_its_ends_are_exact():
    one, other = {"w": jnp.array([1.0, -2.0])}, {"w": jnp.array([3.0, 2.0])}
    np.testing.assert_allclose(references.model_soup(one, other, alpha=0.25)["w"], [1.5, -1.0])
    assert_same(references.model_soup(tree(0), tree(1), alpha=0.0), tree(0))
    assert_same(references.model_soup(tree(0), tree(1), alpha=1.0), tree(1))
    half = references.model_soup({"w": jnp.ones(2, jnp.bfloat16)}, {"w": jnp.ones(2, jnp.bfloat16)})
    assert half["w"].dtype == jnp.bfloat16


@pytest.mark.parametrize("function", [references.model_soup, references.tr_dpo_soft_update])
def test_structures_shapes_and_shares_that_do_not_fit_are_errors(function):
    with pytest.raises(AssertionError):
        function({"w": jnp.ones(2)}, {"w": jnp.ones((2, 1))})
    with pytest.raises(ValueError):
        function({"w": jnp.ones(2)}, {"v": jnp.ones(2)})
    for alpha in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=r"alpha must lie in \[0, 1\]"):
            function({"w": jnp.ones(2)}, {"w": jnp.ones(2)}, alpha=alpha)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_soup_of_linear_logits_is_the_geometric_mean_of_the_policies(alpha):
    x, one, other = normal(0, 5, 3), {"w": normal(1, 3, 7)}, {"w": normal(2, 3, 7)}
    soup = x @ references.model_soup(one, other, alpha=alpha)["w"]
    np.testing.assert_allclose(soup, (1 - alpha) * x @ one["w"] + alpha * x @ other["w"], atol=1e-5)
    mixed = jax.nn.softmax(x @ one["w"]) ** (1 - alpha) * jax.nn.softmax(x @ other["w"]) ** alpha
    np.testing.assert_allclose(jax.nn.softmax(soup), mixed / mixed.sum(-1, keepdims=True), rtol=1e-4)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_soup_of_one_model_with_itself_is_that_model(alpha):
    for got, want in zip(
        jax.tree.leaves(references.model_soup(tree(0), tree(0), alpha=alpha)), jax.tree.leaves(tree(0)), strict=True
    ):
        np.testing.assert_allclose(got, want, rtol=1e-6)


# --- SALSA's reward --------------------------------------------------------------------------------------------------

MASK = jnp.array([[True, True, False, True, False], [True, False, False, False, False], [False] * 5])


def test_reward_by_hand_with_a_hole_in_the_mask_and_a_row_of_nothing():
    policy = jnp.array([[-1.0, -2.0, jnp.nan, -0.5, jnp.inf], [-1.0, jnp.nan, 0, 0, 0], [jnp.nan] * 5])
    soup = jnp.array([[-2.0, -1.0, jnp.inf, -0.5, 0], [-3.0, 0, 0, 0, 0], [0.0] * 5])
    got = references.salsa_reward(jnp.array([10.0, 20.0, 30.0]), policy, soup, MASK, beta=0.5)
    np.testing.assert_allclose(got, [[-0.5, 0.5, 0, 10, 0], [19, 0, 0, 0, 0], [0] * 5], atol=1e-6)


def test_rewards_sum_to_the_reward_minus_beta_times_the_log_ratio():
    policy, soup, rewards = normal(0, 6, 5), normal(1, 6, 5), normal(2, 6)
    mask = jnp.asarray(np.random.default_rng(3).random((6, 5)) < 0.6).at[:, 0].set(True)
    got = references.salsa_reward(rewards, policy, soup, mask, beta=0.7)
    np.testing.assert_allclose(got.sum(-1), rewards - 0.7 * jnp.where(mask, policy - soup, 0).sum(-1), rtol=1e-5)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_alpha_zero_and_equal_models_are_the_rewards_of_ordinary_ppo(alpha):
    x, one, other = normal(0, 1, 5, 3), {"w": normal(1, 3, 7)}, {"w": normal(2, 3, 7)}
    tokens = jnp.array([[0, 3, 6, 1, 2]])

    def logps(params):
        return jnp.take_along_axis(jax.nn.log_softmax(x @ params["w"]), tokens[..., None], axis=-1)[..., 0]

    policy, reward, mask = normal(4, 1, 5), jnp.array([1.5]), jnp.ones((1, 5), bool)
    ordinary = references.salsa_reward(reward, policy, logps(one), mask)
    of = lambda a, b, share: references.salsa_reward(  # noqa: E731
        reward, policy, logps(references.model_soup(a, b, alpha=share)), mask
    )
    np.testing.assert_array_equal(of(one, other, 0.0), ordinary)
    np.testing.assert_allclose(of(one, one, alpha), ordinary, atol=1e-6)
    if alpha:
        assert np.abs(of(one, other, alpha) - ordinary).max() > 1e-3


def test_the_tabular_optimum_is_the_soup_tilted_by_the_reward():
    """E_pi of the reward above, one token per answer, is largest at pi proportional to pi_soup exp(r / beta)."""
    rewards, beta = normal(0, 8), 0.4
    soup = jax.nn.log_softmax(references.model_soup(normal(1, 8), normal(2, 8), alpha=0.5))

    def objective_of(logits):
        logp = jax.nn.log_softmax(logits)
        mask = jnp.ones((8, 1), bool)
        per_answer = references.salsa_reward(rewards, logp[:, None], soup[:, None], mask, beta=beta)[:, 0]
        return jnp.exp(logp) @ per_answer

    best = soup + rewards / beta
    top = objective_of(best)
    np.testing.assert_allclose(top, beta * jax.nn.logsumexp(best), rtol=1e-5)
    assert all(objective_of(best + 0.3 * normal(seed, 8)) < top for seed in range(3, 20))


def test_reward_passes_no_gradient_and_checks_its_arguments():
    arrays = (jnp.ones(3), normal(0, 3, 5), normal(1, 3, 5))
    gradients = jax.grad(lambda *a: references.salsa_reward(*a, MASK).sum(), argnums=(0, 1, 2))(*arrays)
    assert all(not g.any() for g in gradients)
    with pytest.raises(ValueError, match=r"beta must lie in \[0, inf\)"):
        references.salsa_reward(*arrays, MASK, beta=-1.0)
    for wrong in ((jnp.ones(2), *arrays[1:]), (arrays[0], arrays[1], arrays[2][:, :4])):
        with pytest.raises(AssertionError):
            references.salsa_reward(*wrong, MASK)
    with pytest.raises(AssertionError):
        references.salsa_reward(*arrays, MASK.astype(jnp.float32))


# --- TR-DPO ----------------------------------------------------------------------------------------------------------


def test_soft_update_by_hand_and_its_ends_are_exact():
    got = references.tr_dpo_soft_update({"w": jnp.array([1.0])}, {"w": jnp.array([2.0])}, alpha=0.75)
    np.testing.assert_allclose(got["w"], [1.75])
    assert_same(references.tr_dpo_soft_update(tree(0), tree(1), alpha=0.0), tree(0))
    assert_same(references.tr_dpo_soft_update(tree(0), tree(1), alpha=1.0), tree(1))


def test_right_after_a_hard_update_the_loss_is_log_two():
    x, tokens = normal(0, 4, 2, 3), jnp.array([[0, 5], [1, 1], [2, 6], [3, 4]])

    def logps(params):
        return jnp.take_along_axis(jax.nn.log_softmax(x @ params["w"]), tokens[..., None], axis=-1)[..., 0].T

    policy, old = {"w": normal(1, 3, 7)}, {"w": normal(2, 3, 7)}
    assert np.abs(losses.dpo(*logps(policy), *logps(old)) - np.log(2)).max() > 1e-2
    hard = references.tr_dpo_soft_update(old, policy, alpha=1.0)
    np.testing.assert_allclose(losses.dpo(*logps(policy), *logps(hard)), np.log(2), rtol=1e-6)


def moving(every, weight, *, accumulate=1, steps=4, poisoned_at=None):
    """(state, logs) after each of some steps of DPO on one batch, the reference in the state."""
    terms = objective.bind({"dpo": {"beta": 0.5}}, alignment.losses, "objective", tiny_steps.SIDES, tiny_steps.COLUMNS)
    params, reference = tiny_steps.params_and_reference()
    optimizer = optax.adam(3e-3)
    at = state.create(params, optimizer, {}, jax.random.key(0), reference)
    scored = step.make_losses(tiny_steps.MODEL, {"reference": tiny_steps.MODEL}, terms, (), tiny_steps.SIDES)
    take = jax.jit(
        step.make_step(
            scored, terms, (), tiny_steps.SIDES, optimizer, accumulate=accumulate, reference_every=every,
            reference_weight=weight,
        )
    )  # fmt: skip
    batch = {k: jnp.asarray(v) for k, v in tiny_steps.batch(4).items()}
    out = [(at, {})]
    for number in range(1, steps + 1):
        before = at.replace(params=tiny_steps.poisoned(at.params)) if number == poisoned_at else at
        after, logs = take(before, {}, batch)
        at = after.replace(params=at.params) if number == poisoned_at else after
        out.append((at, {k: float(v) for k, v in logs.items()}))
    return out


def test_the_reference_moves_after_every_so_many_steps_and_no_other():
    states = [s for s, _ in moving(2, 0.7, steps=4)]
    assert_same(states[1].reference, states[0].reference)
    expected = references.tr_dpo_soft_update(states[1].reference, states[2].params, alpha=0.7)
    for got, want in zip(jax.tree.leaves(states[2].reference), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-7)
    assert_same(states[3].reference, states[2].reference)
    assert np.abs(np.asarray(states[4].reference["embedding"] - states[3].reference["embedding"])).max() > 0


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_step_after_a_hard_update_begins_at_log_two(accumulate):
    logs = [x for _, x in moving(1, 1.0, accumulate=accumulate, steps=3)][1:]
    assert abs(logs[0]["loss"] - np.log(2)) > 1e-3
    np.testing.assert_allclose([x["loss"] for x in logs[1:]], np.log(2), rtol=1e-6)


@pytest.mark.parametrize("every,weight", [(1, 0.0), (0, 1.0)])
def test_weight_zero_and_never_are_dpo(every, weight):
    still = moving(every, weight)
    frozen = moving(100, 1.0)
    assert [x for _, x in still] == [x for _, x in frozen]
    assert_same(still[-1][0].reference, still[0][0].reference)


def test_a_step_that_is_not_finite_leaves_the_reference_alone():
    states = [s for s, _ in moving(1, 1.0, steps=2, poisoned_at=2)]
    assert int(states[2].skipped) == 1
    assert_same(states[2].reference, states[1].reference)


def test_a_rewarded_soup_is_linear_and_one_weight_alone_gives_exactly_that_model():
    models = [{"w": jnp.array([float(n), np.pi * n]), "b": {"x": jnp.ones(3) * n}} for n in (1, 2, 5)]
    for n, weights in enumerate(np.eye(3).tolist()):
        soup = references.rewarded_soup(models, weights)
        jax.tree.map(np.testing.assert_array_equal, soup, models[n])
    mixed = references.rewarded_soup(models, (0.5, 0.25, 0.25))
    np.testing.assert_allclose(mixed["w"][0], 0.5 + 0.5 + 1.25)
    same = references.rewarded_soup([models[1]] * 3, (0.5, 0.25, 0.25))
    np.testing.assert_allclose(same["w"], models[1]["w"], rtol=1e-6)


def test_a_rewarded_soup_of_tables_of_logits_mixes_the_logits():
    rng = np.random.default_rng(0)
    tables = [{"logits": jnp.asarray(rng.normal(size=5), jnp.float32)} for _ in range(2)]
    mixed = jax.nn.softmax(references.rewarded_soup(tables, (0.3, 0.7))["logits"])
    geometric = jax.nn.softmax(tables[0]["logits"]) ** 0.3 * jax.nn.softmax(tables[1]["logits"]) ** 0.7
    np.testing.assert_allclose(mixed, geometric / geometric.sum(), rtol=1e-5)


def test_soup_weights_off_the_simplex_are_an_error():
    with pytest.raises(ValueError, match=r"weights must sum to 1, got 1.2"):
        references.rewarded_soup([{"w": jnp.ones(1)}] * 2, (0.6, 0.6))
