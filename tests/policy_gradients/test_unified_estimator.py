"""Every row of the unified table against the gradient of its method's loss, written out here, and of its kernel."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment import losses
from alignment import policy_gradients as pg

N, T = 6, 5
GAMMA, FLOOR, LOW, HIGH, GMPO, ALOL = 0.1, 0.1, 0.2, 0.28, 0.4, 0.9
_stop = jax.lax.stop_gradient


def batch(seed=0, noise=0.5):
    rng = np.random.default_rng(seed)
    mask = rng.random((N, T)) < 0.8
    mask[:, 0] = True
    policy = -rng.gamma(1.0, 2.0, (N, T))
    rewards = rng.integers(0, 2, N).astype(float)
    rewards[:2] = 0, 1
    return {
        "policy": jnp.asarray(policy, jnp.float32),
        "behaviour": jnp.asarray(policy + noise * rng.normal(size=(N, T)), jnp.float32),
        "reference": jnp.asarray(policy + noise * rng.normal(size=(N, T)), jnp.float32),
        "entropies": jnp.asarray(rng.gamma(1.0, size=(N, T)), jnp.float32),
        "rewards": rewards,
        "mask": jnp.asarray(mask),
    }


def row_mean(values, mask):
    return jnp.sum(jnp.where(mask, values, 0.0), -1, keepdims=True) / jnp.sum(mask, -1, keepdims=True)


# Advantages of completions, in numpy; all completions are one group here.
def ones(b):
    return np.ones(N)


def z_score(b):
    return (b["rewards"] - b["rewards"].mean()) / b["rewards"].std(ddof=1)


def centred(b):
    return b["rewards"] - b["rewards"].mean()


def leave_one_out(b):
    r = b["rewards"]
    return r - (r.sum() - r) / (N - 1)


def positive(b):
    return np.maximum(b["rewards"] - 0.3, 0.0)


def srft_weight(b):
    return 0.5 * np.exp(-np.asarray(row_mean(b["entropies"], b["mask"]))[:, 0])


# Losses by token, of the policy's log-probs x. `a` is [N, 1].
def ppo(x, b, a, low=LOW, high=LOW):
    r = jnp.exp(x - b["behaviour"])
    return -jnp.minimum(r * a, jnp.clip(r, 1 - low, 1 + high) * a)


def dapo(x, b, a):
    return ppo(x, b, a, LOW, HIGH)


def cispo(x, b, a):
    return -_stop(jnp.clip(jnp.exp(x - b["behaviour"]), 0.0, 1 + HIGH)) * a * x


def gspo(x, b, a):
    s = jnp.exp(row_mean(x - b["behaviour"], b["mask"]))
    return -jnp.minimum(s * a, jnp.clip(s, 1 - LOW, 1 + HIGH) * a) / T * jnp.ones(T)  # once per completion


def gmpo(x, b, a):
    d = x - b["behaviour"]
    one_sided = jnp.where(a >= 0, jnp.minimum(d, GMPO), jnp.maximum(d, -GMPO))
    return -a * jnp.exp(row_mean(one_sided, b["mask"])) / T * jnp.ones(T)


def reinforce(x, b, a):
    return -a * x


def dft(x, b, a):
    return -_stop(jnp.exp(x)) * a * x


def offline(x, b, a):
    return -a * jnp.exp(x)


def luffy(x, b, a):
    return -a * jnp.exp(x) / (jnp.exp(x) + GAMMA)


def gold(x, b, a):
    return -a * _stop(jnp.maximum(jnp.exp(x), FLOOR)) * x


def a_lol(x, b, a):
    ratio = jnp.exp(jnp.sum(jnp.where(b["mask"], x - b["reference"], 0.0), -1, keepdims=True))
    return -a * _stop(jnp.clip(ratio, 1 - ALOL, 1 + ALOL)) * x


def by_policy(b, a):
    return pg.upge_policy_denominator(b["policy"], b["mask"])


def by_one(b, a):
    return pg.upge_unit_denominator(b["policy"], b["mask"])


def by_behaviour(b, a):
    return pg.upge_behaviour_denominator(b["behaviour"], b["mask"])


def by_clipped_weight(b, a):
    return pg.upge_clipped_weight_denominator(b["policy"], b["behaviour"], b["mask"], eps_low=1.0, eps_high=HIGH)


def by_sequence(b, a):
    return pg.upge_sequence_denominator(b["policy"], b["behaviour"], b["mask"])


def by_geometric(b, a):
    return pg.upge_geometric_denominator(b["policy"], b["behaviour"], a, b["mask"], eps=GMPO)


def by_shape(b, a):
    return pg.upge_shaped_denominator(b["policy"], b["mask"], gamma=GAMMA)


def by_floor(b, a):
    return pg.upge_floored_denominator(b["policy"], b["mask"], floor=FLOOR)


def by_clipped_sequence(b, a):
    return pg.upge_clipped_sequence_denominator(b["policy"], b["reference"], b["mask"], eps=ALOL)


def every(b, a):
    return pg.upge_no_stabilisation(b["policy"], b["mask"])


def ppo_clip(b, a, high=LOW):
    return pg.upge_ppo_stabilisation(b["policy"], b["behaviour"], a, b["mask"], eps_low=LOW, eps_high=high)


def dapo_clip(b, a):
    return ppo_clip(b, a, HIGH)


def sequence_clip(b, a):
    return pg.upge_sequence_stabilisation(b["policy"], b["behaviour"], a, b["mask"], eps_low=LOW, eps_high=HIGH)


def log_clip(b, a):
    return pg.upge_log_stabilisation(b["policy"], b["behaviour"], a, b["mask"], eps=GMPO)


TABLE = {  # denominator, advantage, stabilisation, loss
    "sft": (by_policy, ones, every, reinforce),
    "dft": (by_one, ones, every, dft),
    "reinforce": (by_policy, centred, every, reinforce),
    "rloo": (by_policy, leave_one_out, every, reinforce),
    "rloo_clipped": (by_behaviour, leave_one_out, ppo_clip, ppo),
    "ppo": (by_behaviour, centred, ppo_clip, ppo),
    "grpo": (by_behaviour, z_score, ppo_clip, ppo),
    "dr_grpo": (by_behaviour, centred, ppo_clip, ppo),
    "dapo": (by_behaviour, z_score, dapo_clip, dapo),
    "cispo": (by_clipped_weight, z_score, every, cispo),
    "gspo": (by_sequence, z_score, sequence_clip, gspo),
    "gmpo": (by_geometric, z_score, log_clip, gmpo),
    "offline": (by_one, z_score, every, offline),
    "luffy_demonstrations": (by_shape, centred, every, luffy),
    "srft_demonstrations": (by_policy, srft_weight, every, reinforce),
    "gold": (by_floor, lambda b: b["rewards"], every, gold),
    "a_lol": (by_clipped_sequence, positive, every, a_lol),
}
PER_SEQUENCE = ("gspo", "gmpo")


def coefficients(b, name):
    """c_t of a row of the table, from the gradient of the surrogate."""
    denominator, advantage, stabilisation, _ = TABLE[name]
    a = jnp.broadcast_to(jnp.asarray(advantage(b), jnp.float32)[:, None], (N, T))
    slots = denominator(b, a), a, stabilisation(b, a)
    return -jax.grad(lambda x: jnp.sum(pg.upge_surrogate(x, *slots, b["mask"])))(b["policy"])


@pytest.mark.parametrize("name", TABLE)
def test_the_slots_give_the_gradient_of_the_methods_own_loss(name):
    for seed in range(3):
        b = batch(seed)
        loss, a = TABLE[name][3], jnp.asarray(TABLE[name][1](b), jnp.float32)[:, None]
        share = 1 / jnp.sum(b["mask"], -1, keepdims=True) if name in PER_SEQUENCE else 1.0
        of_sequence = jnp.ones((N, T), bool) if name in PER_SEQUENCE else b["mask"]
        summed = lambda x, f=loss, b=b, a=a, m=of_sequence: jnp.sum(jnp.where(m, f(x, b, a), 0.0))  # noqa: E731
        expected = jax.grad(summed)(b["policy"])
        assert np.abs(expected).max() > 1e-3
        np.testing.assert_allclose(-coefficients(b, name) * share, expected, rtol=1e-4, atol=1e-6)


def of_group(estimator, **hyper):
    """Advantages of completions by an estimator with a baseline per prompt; all completions are one group here."""
    return lambda b: estimator(
        jnp.asarray(b["rewards"], jnp.float32), jnp.zeros(N, jnp.int32), jnp.ones(N, bool), **hyper
    )


def from_gae(b):
    rng = np.random.default_rng(7)
    rewards = pg.terminal_rewards(jnp.asarray(b["rewards"], jnp.float32), b["mask"])
    return pg.gae(rewards, jnp.asarray(rng.normal(size=(N, T)), jnp.float32), b["mask"])["token_advantages"]


def from_greedy(b):
    return pg.remax_advantages(jnp.asarray(b["rewards"], jnp.float32), jnp.full(N, 0.4))


def whitened(b):
    rewards = pg.terminal_rewards(jnp.asarray(b["rewards"], jnp.float32), b["mask"])
    return pg.reinforce_pp_advantages(rewards, b["mask"], jnp.ones(N, bool))


def given(b):
    return jnp.asarray(b["rewards"], jnp.float32)


def everyone(b):
    return jnp.ones(N)


def clipped_at(high):
    return lambda x, b, a, t: pg.ppo(x, b["behaviour"], t, b["mask"], eps_low=LOW, eps_high=high)


Z_SCORE, CENTRED = of_group(pg.grpo_advantages), of_group(pg.dr_grpo_advantages)
# denominator, stabilisation, advantages [N] or [N, T], and the public kernel, of the log-probs x, a [N] and a_t [N, T].
DIRECT = {
    "sft": (by_policy, every, everyone, lambda x, b, a, t: losses.sft(x, b["mask"])),
    "sft_on_demonstrations": (by_policy, every, everyone, lambda x, b, a, t: pg.demonstration_nll(x, b["mask"])),
    "reinforce": (by_policy, every, CENTRED, lambda x, b, a, t: pg.reinforce(x, t, b["mask"])),
    "rloo": (by_policy, every, of_group(pg.rloo_advantages), lambda x, b, a, t: pg.reinforce(x, t, b["mask"])),
    "remax": (by_policy, every, from_greedy, lambda x, b, a, t: pg.reinforce(x, t, b["mask"])),
    "reinforce_pp": (by_behaviour, ppo_clip, whitened, clipped_at(LOW)),
    "ppo": (by_behaviour, ppo_clip, from_gae, clipped_at(LOW)),
    "grpo": (by_behaviour, ppo_clip, Z_SCORE, clipped_at(LOW)),
    "dr_grpo": (by_behaviour, ppo_clip, CENTRED, clipped_at(LOW)),
    "dapo": (by_behaviour, dapo_clip, Z_SCORE, clipped_at(HIGH)),
    "cispo": (
        by_clipped_weight,
        every,
        Z_SCORE,
        lambda x, b, a, t: pg.cispo(x, b["behaviour"], t, b["mask"], eps_low=1.0, eps_high=HIGH),
    ),
    "cispo_as_the_paper_of_the_table_has_it": (
        by_behaviour,
        ppo_clip,
        Z_SCORE,
        lambda x, b, a, t: pg.cispo_masked(x, b["behaviour"], t, b["mask"], eps_low=LOW, eps_high=LOW),
    ),
    "gspo": (
        by_sequence,
        sequence_clip,
        Z_SCORE,
        lambda x, b, a, t: pg.gspo(x, b["behaviour"], a, b["mask"], eps_low=LOW, eps_high=HIGH),
    ),
    "gmpo": (by_geometric, log_clip, Z_SCORE, lambda x, b, a, t: pg.gmpo(x, b["behaviour"], a, b["mask"], eps=GMPO)),
    "luffy_demonstrations": (
        by_shape,
        every,
        CENTRED,
        lambda x, b, a, t: pg.luffy(x, b["behaviour"], t, b["mask"], b["mask"], gamma=GAMMA),
    ),
    "srft_demonstrations": (
        by_policy,
        every,
        lambda b: jnp.asarray(srft_weight(b), jnp.float32),
        lambda x, b, a, t: pg.srft_demonstrations(x, b["entropies"], b["mask"], coefficient=0.5),
    ),
    "gold": (by_floor, every, given, lambda x, b, a, t: pg.gold(x, a, b["mask"], floor=FLOOR)),
    "a_lol": (
        by_clipped_sequence,
        every,
        lambda b: jnp.asarray(positive(b), jnp.float32),
        lambda x, b, a, t: pg.a_lol(
            jnp.where(b["mask"], x, 0.0).sum(-1), jnp.where(b["mask"], b["reference"], 0.0).sum(-1), a, eps=ALOL
        ),
    ),
    "offline": (by_one, every, Z_SCORE, lambda x, b, a, t: pg.gold(x, a, b["mask"], floor=0.0)),
}


@pytest.mark.parametrize("name", DIRECT)
def test_the_slots_give_the_gradient_of_the_kernel(name):
    """With the advantages of the method's own estimator, where it has one."""
    denominator, stabilisation, estimator, kernel = DIRECT[name]
    for seed in range(3):
        b = batch(seed)
        a = estimator(b)
        tokens = jnp.broadcast_to(a[:, None] if a.ndim == 1 else a, (N, T))
        slots = denominator(b, tokens), tokens, stabilisation(b, tokens)
        got = jax.grad(lambda x, s=slots, b=b: jnp.sum(pg.upge_surrogate(x, *s, b["mask"])))(b["policy"])
        if name in PER_SEQUENCE:
            got = got / jnp.sum(b["mask"], -1, keepdims=True)
        expected = jax.grad(lambda x, b=b, a=a, t=tokens: jnp.sum(kernel(x, b, a, t)))(b["policy"])
        assert np.abs(expected).max() > 1e-3
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)


def test_every_row_of_the_table_has_its_kernel_compared_or_none_to_compare():
    """dft is the offline row with advantage one, and rloo_clipped a mixture of rloo and ppo."""
    assert set(TABLE) - set(DIRECT) == {"dft", "rloo_clipped"}


@pytest.mark.parametrize("name", ["ppo", "grpo", "dr_grpo", "dapo", "cispo", "gspo", "gmpo"])
def test_on_the_policys_own_samples_every_ratio_method_is_reinforce(name):
    b = batch(noise=0.0)
    advantages = np.broadcast_to(TABLE[name][1](b)[:, None], (N, T))
    np.testing.assert_allclose(coefficients(b, name), np.where(b["mask"], advantages, 0.0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["ppo", "gspo", "gmpo"])
def test_the_clips_of_these_batches_bind_and_let_pass(name):
    """Or the table above would be tested on its easy half alone."""
    b = batch(1, noise=1.0)
    stopped = (np.asarray(coefficients(b, name)) == 0) & np.asarray(b["mask"])
    assert stopped.any() and not stopped[np.asarray(b["mask"])].all()


def test_sft_is_reinforce_with_advantage_one():
    b = batch()
    np.testing.assert_allclose(coefficients(b, "sft"), np.where(b["mask"], 1.0, 0.0), rtol=1e-6)


def test_dft_is_the_offline_row_with_advantage_one():
    b = batch()
    np.testing.assert_allclose(coefficients(b, "dft"), np.where(b["mask"], np.exp(b["policy"]), 0.0), rtol=1e-5)


def shaping_coefficients(probabilities, gamma):
    logps = jnp.log(jnp.asarray(probabilities, jnp.float32))
    mask, a = jnp.ones(logps.shape, bool), jnp.ones(logps.shape)
    log_ref = pg.upge_shaped_denominator(logps, mask, gamma=gamma)
    return -jax.grad(lambda x: jnp.sum(pg.upge_surrogate(x, log_ref, a, a, mask)))(logps)


def test_luffys_coefficient_is_the_derivative_of_its_shaping():
    p = jnp.linspace(0.01, 1.0, 100)
    derivative = jax.vmap(jax.grad(lambda x: jnp.exp(x) / (jnp.exp(x) + GAMMA)))(jnp.log(p))
    np.testing.assert_allclose(shaping_coefficients(p, GAMMA), derivative, rtol=1e-4)


def test_luffys_coefficient_is_largest_at_gamma_and_known_at_both_ends():
    p = np.linspace(0.001, 1.0, 1000)
    assert abs(p[np.argmax(shaping_coefficients(p, GAMMA))] - GAMMA) < 1e-3
    np.testing.assert_allclose(shaping_coefficients([1e-6], GAMMA), [1e-6 / GAMMA], rtol=1e-3)
    np.testing.assert_allclose(shaping_coefficients([1.0], 1e-3), [1e-3], rtol=3e-3)


def demonstrations(seed=0):
    b = batch(seed)
    shown = np.zeros((N, T), bool)
    shown[:2] = True
    return b, jnp.asarray(shown)


def test_the_unified_advantage_adds_imitation_on_demonstrations_alone():
    b, shown = demonstrations()
    a = jnp.ones((N, T))
    got = pg.upge_advantages(b["policy"], b["behaviour"], a, shown, b["mask"], mu=0.7)
    extra = 0.7 * np.exp(np.asarray(b["behaviour"]) - np.asarray(b["policy"]))
    np.testing.assert_allclose(got, np.where(b["mask"], 1 + np.where(shown, extra, 0.0), 0.0), rtol=1e-5)


def test_unified_objective_has_the_gradient_of_its_four_slots():
    b, shown = demonstrations()
    a = jnp.broadcast_to(jnp.asarray(z_score(b), jnp.float32)[:, None], (N, T))
    stable = jnp.where(shown, 1.0, ppo_clip(b, a))
    unified = pg.upge_advantages(b["policy"], b["behaviour"], a, shown, b["mask"], mu=0.7)
    slots = by_behaviour(b, a), unified, stable, b["mask"]
    expected = jax.grad(lambda x: jnp.sum(pg.upge_surrogate(x, *slots)))(b["policy"])
    got = jax.grad(lambda x: jnp.sum(pg.upge(x, b["behaviour"], a, shown, b["mask"], mu=0.7)))(b["policy"])
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_unified_objective_without_demonstrations_is_ppo():
    b, _ = demonstrations()
    a = jnp.broadcast_to(jnp.asarray(z_score(b), jnp.float32)[:, None], (N, T))
    nothing = jnp.zeros((N, T), bool)

    def grad(loss):
        return jax.grad(lambda x: jnp.sum(loss(x)))(b["policy"])

    got = grad(lambda x: pg.upge(x, b["behaviour"], a, nothing, b["mask"]))
    expected = grad(lambda x: jnp.where(b["mask"], ppo(x, b, a), 0.0))
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_demonstrations_of_an_unknown_policy_are_imitated_and_weighed_by_pi_however_unlikely():
    logps, mask = jnp.array([[-1.0, -60.0]]), jnp.ones((1, 2), bool)
    a = jnp.full((1, 2), 0.5)
    got = jax.grad(lambda x: jnp.sum(pg.upge(x, jnp.zeros((1, 2)), a, mask, mask, mu=2.0)))(logps)
    np.testing.assert_allclose(got, -(0.5 * np.exp([[-1.0, -60.0]]) + 2.0), rtol=1e-5)
