"""Contrastive losses on a reward model's features against their identities in the catalogue."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment.losses import (
    goal_contrastive_loss,
    goal_contrastive_mean_log_loss,
    rm_simcse_difference_loss,
    rm_simcse_loss,
    rm_swav_loss,
)
from alignment.losses.reward_features import _codes, _offsets

RNG = np.random.default_rng(0)
CONTRASTS = pytest.mark.parametrize("loss", [rm_simcse_loss, rm_simcse_difference_loss])


def draw(*shape):
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


def valid(count):
    return jnp.ones(count, bool)


def test_only_the_direction_of_a_row_counts():
    views, scales = [draw(4, 6) for _ in range(4)], [jnp.asarray(RNG.uniform(0.1, 9, (4, 1))) for _ in range(4)]
    scaled = [v * s for v, s in zip(views, scales, strict=True)]
    np.testing.assert_allclose(rm_simcse_loss(*scaled, valid(4)), rm_simcse_loss(*views, valid(4)), rtol=1e-4)


def test_orthonormal_identical_views_cost_log_e_plus_the_others_less_one():
    rows = jnp.eye(6)
    got = rm_simcse_loss(rows[:3], rows[3:], rows[:3], rows[3:], valid(3), tau=1.0)
    np.testing.assert_allclose(got, np.log(np.e + 6 - 1) - 1, rtol=1e-6)


def test_equal_rows_cost_the_logarithm_of_their_number():
    rows = jnp.ones((3, 4))
    np.testing.assert_allclose(rm_simcse_loss(rows, rows, rows, rows, valid(3)), np.log(6), rtol=1e-5)


def test_differences_are_closed_under_negation():
    views = [draw(4, 6) for _ in range(4)]
    chosen, rejected, chosen_second, rejected_second = views
    swapped = rm_simcse_difference_loss(rejected, chosen, rejected_second, chosen_second, valid(4))
    np.testing.assert_allclose(swapped, rm_simcse_difference_loss(*views, valid(4)), rtol=1e-5)


def test_a_difference_alone_has_its_negation_as_the_only_negative():
    view = draw(1, 5)
    got = rm_simcse_difference_loss(view, -view, view, -view, valid(1), tau=0.5)
    np.testing.assert_allclose(got, np.log1p(np.exp(-4.0)), rtol=1e-4)


# --- SwAV ------------------------------------------------------------------------------------------------------------


def test_swav_does_not_know_which_view_is_the_first():
    views, heads = [draw(4, 6) for _ in range(4)], draw(4, 6)
    other = [*views[2:], *views[:2]]
    np.testing.assert_allclose(
        rm_swav_loss(*other, heads, valid(4)), rm_swav_loss(*views, heads, valid(4)), rtol=1e-4, atol=1e-5
    )


def test_codes_sum_to_one_per_sample_and_after_many_rounds_are_balanced():
    scores = draw(12, 3) / 0.3
    np.testing.assert_allclose(_codes(scores, valid(12), 3).sum(axis=1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(_codes(scores, valid(12), 200).sum(axis=0), 12 / 3, rtol=1e-3)


def test_codes_are_finite_where_the_exponentials_are_not():
    assert np.isfinite(_codes(draw(8, 3) * 1e4, valid(8), 3)).all()


def test_rotating_features_and_prototypes_together_changes_nothing():
    views, heads = [draw(4, 6) for _ in range(4)], draw(4, 6)
    turn = jnp.asarray(np.linalg.qr(RNG.normal(size=(6, 6)))[0], jnp.float32)
    np.testing.assert_allclose(
        rm_swav_loss(*(v @ turn for v in views), heads @ turn, valid(4)),
        rm_swav_loss(*views, heads, valid(4)),
        rtol=1e-3,
        atol=1e-4,
    )


def test_the_reward_heads_own_row_is_no_prototype():
    views, heads = [draw(4, 6) for _ in range(4)], draw(4, 6)
    gradient = jax.grad(lambda h: rm_swav_loss(*views, h, valid(4)).sum())(heads)
    assert not gradient[0].any() and np.abs(gradient[1:]).max() > 1e-3


# --- goal states -----------------------------------------------------------------------------------------------------

MASK = jnp.array([[1, 1, 1, 1, 0], [1, 1, 0, 0, 0], [1, 1, 1, 1, 1]], bool)
BITS = jnp.array([3, 1, 4])


def test_an_earlier_draw_is_a_place_no_later_in_the_text():
    draws = jnp.sort(jnp.asarray(RNG.random((3, 50, 2)), jnp.float32), axis=-1)
    lengths = MASK.sum(axis=1)[:, None]
    source, goal = _offsets(draws[..., 0], lengths, 0.0), _offsets(draws[..., 1], lengths, 0.0)
    assert (source >= goal).all() and (goal >= 1).all() and (source <= lengths).all()
    assert set(np.asarray(source[0]).tolist()) == {1, 2, 3, 4}  # anywhere in the response


def test_a_percentile_keeps_draws_away_from_the_end():
    offsets = _offsets(jnp.linspace(0, 0.999, 100)[None], jnp.array([[10]]), 0.5)
    assert offsets.min() >= 6


@pytest.mark.parametrize("loss", ["code", "paper"])
def test_only_the_direction_of_a_state_counts(loss):
    chosen, rejected = draw(3, 5, 4), draw(3, 5, 4)
    scale = jnp.asarray(RNG.uniform(0.2, 5, (3, 5, 1)), jnp.float32)
    np.testing.assert_allclose(value(loss, chosen * scale, rejected * scale), value(loss, chosen, rejected), rtol=1e-4)


def value(which, chosen, rejected):
    if which == "code":
        return goal_contrastive_loss(chosen, rejected, MASK, MASK, BITS, valid(3))
    return goal_contrastive_mean_log_loss(chosen, rejected, MASK, MASK, BITS)


@pytest.mark.parametrize("loss", ["code", "paper"])
def test_the_floor_is_where_all_agree_and_all_oppose(loss):
    same = jnp.broadcast_to(draw(4), (3, 5, 4))
    np.testing.assert_allclose(value(loss, same, -same), -2 * 0.5 * jax.nn.log_sigmoid(1.0), rtol=1e-5)
    assert value(loss, draw(3, 5, 4), draw(3, 5, 4)).mean() > 0.5 * 0.627


def test_the_codes_form_is_never_above_the_papers_and_equal_for_equal_cosines():
    for _ in range(5):
        chosen, rejected = draw(3, 5, 4), draw(3, 5, 4)
        assert value("code", chosen, rejected)[0] <= value("paper", chosen, rejected).mean() + 1e-6
    same = jnp.broadcast_to(draw(4), (3, 5, 4))
    np.testing.assert_allclose(value("code", same, same), value("paper", same, same), rtol=1e-5)
