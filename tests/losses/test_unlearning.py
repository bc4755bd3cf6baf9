"""Unlearning losses against each other, against SFT and DPO, and NPO's slow divergence on a softmax."""

import jax
import jax.numpy as jnp
import numpy as np

from alignment import losses
from alignment.losses import reductions

RNG = np.random.default_rng(0)
POLICY, REFERENCE, OTHER, OTHER_REFERENCE = (jnp.asarray(-10 + 3 * RNG.normal(size=6), jnp.float32) for _ in range(4))
LENGTHS = jnp.arange(1, 7)
MASK = jnp.asarray(RNG.random((3, 5)) < 0.7).at[:, 0].set(True)


def close(a, b, rtol=1e-5):
    np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-6)


def test_gradient_ascent_is_sft_turned_round_and_on_logits_moves_by_one_hot_minus_probability():
    logits, targets = jnp.asarray(RNG.normal(size=(3, 5, 7)), jnp.float32), jnp.asarray(RNG.integers(0, 7, (3, 5)))

    def logps(z):
        return jnp.take_along_axis(jax.nn.log_softmax(z), targets[..., None], -1)[..., 0]

    def mean(z):
        total, weight = reductions.token_mean(losses.grad_ascent(logps(z), MASK), MASK)
        return total / weight

    close(losses.grad_ascent(logps(logits), MASK), -losses.sft(logps(logits), MASK))
    expected = (jax.nn.one_hot(targets, 7) - jax.nn.softmax(logits)) * MASK[..., None] / MASK.sum()
    close(jax.grad(mean)(logits), expected)


def test_the_same_data_on_both_sides_leave_the_difference_of_the_weights_times_sft():
    logps = -jnp.asarray(RNG.gamma(1.0, size=(3, 5)), jnp.float32)
    both = 0.25 * losses.grad_ascent(logps, MASK) + 1.0 * losses.sft(logps, MASK)
    close(both, 0.75 * losses.sft(logps, MASK))


def test_the_retain_divergence_is_that_of_the_reference_and_its_gradient_p_minus_reference():
    z, r = (jnp.asarray(RNG.normal(size=(3, 5, 7)), jnp.float32) for _ in range(2))

    def kls(z):
        return jnp.sum(jax.nn.softmax(r) * (jax.nn.log_softmax(r) - jax.nn.log_softmax(z)), axis=-1)

    gradient = jax.grad(lambda z: losses.kl_retain(kls(z), MASK).sum())(z)
    close(gradient, (jax.nn.softmax(z) - jax.nn.softmax(r)) * MASK[..., None])
    close(losses.kl_retain(kls(r), MASK), 0.0)


def test_npo_at_the_reference_has_value_two_log_two_over_beta_and_the_gradient_of_ascent():
    value, slope = jax.vmap(jax.value_and_grad(lambda p, r: losses.npo(p, r, beta=0.3)))(REFERENCE, REFERENCE)
    close(value, 2 / 0.3 * np.log(2))
    close(slope, 1.0)  # the sum of the log-probs rises by one


def test_the_gradient_of_npo_is_the_adaptive_weight_between_zero_and_two():
    slope = jax.vmap(jax.grad(lambda p, r: losses.npo(p, r, beta=0.3)))(POLICY, REFERENCE)
    pi, ref = jnp.exp(0.3 * POLICY), jnp.exp(0.3 * REFERENCE)
    close(slope, 2 * pi / (pi + ref), 1e-4)


def test_npo_with_a_small_beta_is_gradient_ascent_and_never_below_zero():
    close(losses.npo(POLICY, REFERENCE, beta=1e-3) - 2e3 * np.log(2), POLICY - REFERENCE, 2e-2)
    assert (losses.npo(jnp.full(3, -1e4), jnp.zeros(3)) >= 0).all()


def test_simnpo_is_npo_of_token_means_against_a_reference_of_probability_one():
    means = POLICY / LENGTHS
    close(losses.simnpo(POLICY, LENGTHS, beta=2.0), losses.npo(means, jnp.zeros_like(means), beta=2.0))


def test_simnpo_does_not_change_when_every_token_is_doubled():
    close(losses.simnpo(2 * POLICY, 2 * LENGTHS, gamma=0.2), losses.simnpo(POLICY, LENGTHS, gamma=0.2))


def test_the_gradient_of_simnpo_carries_the_length():
    slope = jax.vmap(jax.grad(lambda p, n: losses.simnpo(p, n, beta=2.0, gamma=0.5)))(POLICY, LENGTHS)
    close(slope, 2 / LENGTHS * jax.nn.sigmoid(-(2.0 * -POLICY / LENGTHS - 0.5)), 1e-4)


def test_dpo_unlearn_is_dpo_times_two_over_beta():
    arrays = (OTHER, POLICY, OTHER_REFERENCE, REFERENCE)
    close(0.4 / 2 * losses.dpo_unlearn(*arrays, beta=0.4), losses.dpo(*arrays, beta=0.4))
    close(losses.dpo_unlearn(OTHER, POLICY, OTHER, POLICY, beta=0.4), 2 / 0.4 * np.log(2))


def test_dpo_unlearn_with_the_other_answer_as_likely_as_before_is_npo():
    close(losses.dpo_unlearn(OTHER, POLICY, OTHER, REFERENCE, beta=0.4), losses.npo(POLICY, REFERENCE, beta=0.4))


def test_ascent_moves_in_proportion_to_the_steps_and_npo_with_their_logarithm():
    """The theorem on a softmax of three classes: distance from the start after 200 and after 1600 steps."""
    start = jnp.zeros(3)
    objectives = {
        "ascent": lambda logp: logp,
        "npo": lambda logp: losses.npo(logp, jax.nn.log_softmax(start)[0], beta=1.0),
    }

    @jax.jit
    def distances(rate):
        out = {}
        for name, loss in objectives.items():

            def step(theta, _, loss=loss):
                theta = theta - rate * jax.grad(lambda t: loss(jax.nn.log_softmax(t)[0]))(theta)
                return theta, jnp.linalg.norm(theta - start)

            out[name] = jax.lax.scan(step, start, None, 1600)[1][jnp.array([199, 1599])]
        return out

    early_and_late = distances(0.1)
    growth = {name: float(d[1] / d[0]) for name, d in early_and_late.items()}
    assert 7 < growth["ascent"] < 9  # eight times the steps
    late, early = early_and_late["npo"][::-1]
    assert growth["npo"] < 2
    # theta grows by log(8) along (-2, 1, 1) / 3 once the gradient is pi / ref, up to what is still before that
    assert abs(float(late - early) - np.log(8) * np.sqrt(6) / 3) < 0.35


def test_rmu_is_zero_where_the_states_are_the_scaled_direction_and_the_direction_has_no_negative_entry():
    zeros, mask = jnp.zeros((2, 3, 8)), jnp.ones((2, 3), bool)
    # Where h = 0 the gradient is -2 c u / d.
    pull = jax.grad(lambda h: losses.rmu_forget(h, mask, coefficient=2.0).sum())(zeros)
    target = -pull * 8 / 2
    assert (target >= 0).all() and jnp.ptp(target[0, 0]) > 0.1
    close(jnp.linalg.norm(target, axis=-1), 2.0)
    close(target, jnp.broadcast_to(target[0, 0], target.shape))
    close(losses.rmu_forget(target, mask, coefficient=2.0), 0.0)
    assert abs(losses.rmu_forget(target, mask, coefficient=2.0, seed=1)).min() > 0.01


def test_rmu_keeps_what_is_where_the_reference_has_it_and_does_not_move_the_reference():
    h, r = (jnp.asarray(RNG.normal(size=(3, 5, 4)), jnp.float32) for _ in range(2))
    close(losses.rmu_retain(h, h, MASK), 0.0)
    ours, theirs = jax.grad(lambda h, r: losses.rmu_retain(h, r, MASK).sum(), argnums=(0, 1))(h, r)
    close(ours, 2 / 4 * (h - r) * MASK[..., None])
    close(theirs, 0.0)


def test_the_uniform_term_is_zero_at_equal_logits_and_its_gradient_probability_minus_uniform():
    z = jnp.asarray(RNG.normal(size=(3, 5, 7)), jnp.float32)

    def kls(z):
        return -jnp.log(7.0) - jax.nn.log_softmax(z).mean(axis=-1)

    close(losses.uniform_retain(kls(jnp.zeros_like(z)), MASK), 0.0)
    gradient = jax.grad(lambda z: losses.uniform_retain(kls(z), MASK).sum())(z)
    close(gradient, (jax.nn.softmax(z) - 1 / 7) * MASK[..., None])
