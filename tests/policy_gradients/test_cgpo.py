"""CGPO: what calibration, judges and the KL limit do to advantages, and a bandit with arms that hack the reward."""

import jax
import jax.numpy as jnp
import numpy as np

from alignment import policy_gradients as pg

N = 8
GROUPS = np.repeat(np.arange(2, dtype=np.int32), 4)
ALL = np.ones(N, bool)
RNG = np.random.default_rng(0)
R, BASE, LOGPS = (RNG.normal(size=N).astype(np.float32) for _ in range(3))


def crpg(r=R, base=BASE, satisfied=ALL, behaviour=LOGPS, reference=LOGPS, **hyper):
    return np.asarray(pg.cgpo_crpg_advantages(r, base, satisfied, behaviour, reference, ALL, **hyper))


def test_calibration_does_not_see_what_is_added_to_a_prompt():
    shift = np.repeat(np.float32([3, -7]), 4)
    np.testing.assert_allclose(
        pg.cgpo_calibrated_rewards(R + shift, BASE + shift, ALL), pg.cgpo_calibrated_rewards(R, BASE, ALL), rtol=1e-5
    )


def test_the_mean_advantage_is_zero_over_the_batch_and_not_per_prompt():
    advantages = crpg(satisfied=np.arange(N) < 4)
    np.testing.assert_allclose(advantages.mean(), 0, atol=1e-6)
    assert abs(advantages[:4].mean()) > 0.1


def test_nothing_satisfied_or_nothing_better_than_the_baseline_teaches_nothing():
    np.testing.assert_array_equal(crpg(satisfied=~ALL), 0)
    np.testing.assert_allclose(crpg(r=BASE), 0, atol=1e-6)


def test_a_drift_to_the_limit_counts_as_a_violation_and_a_negative_one_pays():
    drifted, violating = LOGPS.copy(), ALL.copy()
    drifted[0] += 5.0
    violating[0] = False
    np.testing.assert_allclose(crpg(behaviour=drifted, kl_max=5.0), crpg(satisfied=violating, kl_max=5.0), atol=1e-6)
    back = LOGPS.copy()
    back[0] -= 5.0  # a factor of 2
    gained = crpg(behaviour=back) - crpg()
    assert gained[0] > 0 and (gained[1:] < 0).all()


def test_filters_keep_prompts_with_something_to_learn_from():
    satisfied = np.array([True] + [False] * 7)
    np.testing.assert_array_equal(pg.cgpo_satisfiable(satisfied, GROUPS, ALL), [1] * 4 + [0] * 4)
    far = LOGPS + np.float32([9.0] + [0.0] * 7)
    np.testing.assert_array_equal(pg.cgpo_eligible(satisfied, far, LOGPS, GROUPS, ALL), 0)
    np.testing.assert_array_equal(pg.cgpo_eligible(ALL, far, LOGPS, GROUPS, ALL), 1)


def test_task_shares_give_the_gradient_of_the_weighted_sum_of_task_losses():
    tasks = np.array([0, 0, 0, 0, 0, 1, 1, 2], np.int32)
    shares = (0.2, 0.5, 0.3)
    weighed = np.asarray(pg.cgpo_task_advantages(R, tasks, ALL, shares=shares))
    scores = RNG.normal(size=(N, 3))
    direct = sum(rho * (R[tasks == t, None] * scores[tasks == t]).mean(axis=0) for t, rho in enumerate(shares))
    np.testing.assert_allclose((weighed[:, None] * scores).mean(axis=0), direct, rtol=1e-5)
    sizes = tuple(np.bincount(tasks) / N)
    np.testing.assert_allclose(pg.cgpo_task_advantages(R, tasks, ALL, shares=sizes), R, rtol=1e-5)
    one = pg.cgpo_task_advantages(R, 0 * tasks, ALL, shares=(1.0,))
    np.testing.assert_allclose(one, R, rtol=1e-6)


def test_a_task_that_is_not_in_the_batch_does_not_scale_the_others():
    advantages = pg.cgpo_task_advantages(R, np.zeros(N, np.int32), ALL, shares=(0.25, 0.75))
    np.testing.assert_allclose(advantages, 0.25 * R, rtol=1e-6)


def _hackable(judged):
    """200 arms, 15 % of which pay 6 too much and are violations: end violation rate and true reward, exact gradient."""
    rng = np.random.default_rng(0)
    true = jnp.asarray(rng.normal(size=200), jnp.float32)
    hack = jnp.asarray(rng.random(200) < 0.15)
    paid = true + 6.0 * hack
    uniform = jnp.full(200, -jnp.log(200.0))

    def step(logits, _):
        logps = jax.nn.log_softmax(logits)
        probs = jnp.exp(logps)
        if judged:
            near = jnp.maximum(1 - (logps - uniform) / 5.0, 0.0)
            value = jnp.where(hack, 0.0, jax.nn.sigmoid(paid) * near)
        else:
            value = paid
        return logits + 20 * probs * (value - probs @ value), None

    probs = jax.nn.softmax(jax.lax.scan(step, jnp.zeros(200), None, length=2000)[0])
    return float(probs @ hack), float(probs @ true)


def test_a_judge_keeps_the_policy_off_arms_that_hack_the_reward():
    violations, _ = _hackable(judged=False)
    judged_violations, judged_reward = _hackable(judged=True)
    assert violations > 0.99 and judged_violations < 0.01 and judged_reward > 0.5
