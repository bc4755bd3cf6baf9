"""Yes/no questions: meta-tuning, substituted tokens and the Dice family against their identities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment import analysis, losses

RNG = np.random.default_rng(0)
SHAPE = (4, 6)
SCORES = jnp.asarray(2 * RNG.normal(size=SHAPE), jnp.float32)
LABELS = jnp.asarray(RNG.random(SHAPE) < 0.6 * jax.nn.sigmoid(SCORES), jnp.float32)
MASK = jnp.asarray(RNG.random(SHAPE) < 0.8)
VALID = jnp.ones(4, bool)
P, Y = (np.asarray(x, np.float64)[np.asarray(MASK)] for x in (jax.nn.sigmoid(SCORES), LABELS))
SETS = (losses.dice_loss, losses.self_adjusting_dice_loss, losses.tversky_loss)


def meta(logits, yes=2, no=4):
    logps, one = jax.nn.log_softmax(logits), jnp.ones((len(logits), 1), bool)
    return losses.meta_tuning(logps[:, yes, None], logps[:, no, None], one, one)


def test_meta_tuning_looks_at_two_logits_alone():
    logits = jnp.asarray(RNG.normal(size=(5, 7)), jnp.float32)
    np.testing.assert_allclose(meta(logits), jax.nn.softplus(logits[:, 4] - logits[:, 2]), rtol=1e-5)
    np.testing.assert_allclose(meta(logits + 3.0), meta(logits), rtol=1e-5)
    np.testing.assert_allclose(meta(logits.at[:, 6].add(9.0)), meta(logits), rtol=1e-5)
    np.testing.assert_allclose(meta(logits.at[:, 2].set(logits[:, 4])), np.log(2), rtol=1e-6)
    others = jax.grad(lambda x: meta(x).sum())(logits)[:, jnp.array([0, 1, 3, 5, 6])]
    np.testing.assert_allclose(others, 0.0, atol=1e-6)


def test_the_area_under_the_curve_counts_ordered_pairs():
    scores, labels = jnp.array([0.1, 0.4, 0.4, 0.9]), jnp.array([False, True, False, True])
    np.testing.assert_allclose(analysis.roc_auc(scores, labels), 3.5 / 4)  # one tie
    scores, labels = jnp.asarray(RNG.normal(size=(3, 20))), jnp.asarray(RNG.random((3, 20)) < 0.4)
    area = analysis.roc_auc(scores, labels)
    np.testing.assert_allclose(analysis.roc_auc(jnp.exp(2 * scores), labels), area, rtol=1e-6)
    np.testing.assert_allclose(area + analysis.roc_auc(-scores, labels), 1.0, rtol=1e-6)


def test_substituted_tokens_are_a_two_class_cross_entropy():
    replaced, mask = LABELS.astype(bool), jnp.ones(SHAPE, bool)
    np.testing.assert_allclose(losses.rts(jnp.zeros(SHAPE), replaced, mask), np.log(2), rtol=1e-6)
    two = jax.nn.log_softmax(jnp.stack([jnp.zeros(SHAPE), SCORES], -1))
    expected = -jnp.take_along_axis(two, replaced[..., None].astype(int), -1)[..., 0]
    np.testing.assert_allclose(losses.rts(SCORES, replaced, mask), expected, rtol=1e-5)


def whole(loss, scores=SCORES, **hyper):
    """The one number of a loss of sets, which stands at every counted token and nowhere else."""
    values = loss(scores, LABELS, MASK, VALID, **hyper)
    np.testing.assert_array_equal(np.asarray(values)[~np.asarray(MASK)], 0.0)
    (value,) = set(np.asarray(values)[np.asarray(MASK)].tolist())
    return value


@pytest.mark.parametrize("loss", SETS)
def test_certain_and_right_costs_nothing(loss):
    hyper = {"alpha": 0.0} if loss is losses.self_adjusting_dice_loss else {}
    np.testing.assert_allclose(whole(loss, 100 * (2 * LABELS - 1), **hyper), 0.0, atol=1e-6)


def test_dice_of_hard_answers_without_smoothing_is_one_less_f1():
    hard = P > 0.5
    f1 = 2 * (hard * Y).sum() / (hard.sum() + Y.sum())
    scores = 100 * jnp.sign(SCORES)
    assert 0.1 < f1 < 0.9
    for loss, hyper in ((SETS[0], {}), (SETS[1], {"alpha": 0.0})):
        np.testing.assert_allclose(whole(loss, scores, smoothing=0.0, **hyper), 1 - f1, rtol=1e-5)


def test_dice_has_squares_below():
    expected = 1 - (2 * (P * Y).sum() + 0.3) / ((P**2).sum() + (Y**2).sum() + 0.3)
    np.testing.assert_allclose(whole(SETS[0], smoothing=0.3), expected, rtol=1e-5)


def test_self_adjusting_dice_without_adjusting_has_a_linear_denominator():
    expected = 1 - (2 * (P * Y).sum() + 0.3) / (P.sum() + Y.sum() + 0.3)
    np.testing.assert_allclose(whole(SETS[1], smoothing=0.3, alpha=0.0), expected, rtol=1e-5)
    q = (1 - P) ** 0.7 * P
    expected = 1 - (2 * (q * Y).sum() + 0.3) / (q.sum() + Y.sum() + 0.3)
    np.testing.assert_allclose(whole(SETS[1], smoothing=0.3, alpha=0.7), expected, rtol=1e-5)


def test_tversky_of_even_prices_is_linear_dice_with_twice_the_smoothing():
    linear = whole(SETS[1], smoothing=0.6, alpha=0.0)
    np.testing.assert_allclose(whole(SETS[2], smoothing=0.3), linear, rtol=1e-5)


def test_the_form_per_token_is_that_of_a_set_of_one():
    one = jax.vmap(
        jax.vmap(lambda z, y: SETS[1](z[None, None], y[None, None], jnp.ones((1, 1), bool), VALID[:1])[0, 0])
    )
    got = losses.self_adjusting_dice_loss_per_token(SCORES, LABELS, jnp.ones(SHAPE, bool))
    np.testing.assert_allclose(got, one(SCORES, LABELS), rtol=1e-6)


def test_focal_loss_without_focus_is_cross_entropy_and_with_it_less():
    mask = jnp.ones(SHAPE, bool)
    plain = losses.focal_tagging_loss(SCORES, LABELS, mask, gamma=0.0)
    np.testing.assert_allclose(plain, losses.rts(SCORES, LABELS.astype(bool), mask), rtol=1e-6)
    right = jnp.where(LABELS > 0, SCORES, -SCORES)
    focused = losses.focal_tagging_loss(SCORES, LABELS, mask, gamma=2.0)
    np.testing.assert_allclose(focused, plain * jax.nn.sigmoid(-right) ** 2, rtol=1e-4)
