"""Entangled gradients, the pairwise normalised direction and DPO's gradients in probability space: the identities.

None of these gives one value per example of named arrays, so the contract suite has no rows of this package;
`test_package.py` holds them to the promises that apply.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment import analysis, losses

ONE = (np.array([1.0, 0.0]), np.array([1.0, 1.0]))  # |g_w|^2 = 1, |g_l|^2 = 2, <g_w, g_l> = 1


def gradients(seed=0, pairs=500, size=4, alike=0.0):
    """Gradients of very different lengths whose cosine is high for `alike` near 1."""
    rng = np.random.default_rng(seed)
    shared, *own = rng.normal(size=(3, pairs, size))
    w, l = (alike * shared + (1 - alike) * x for x in own)
    return tuple(jnp.asarray(x * np.exp(rng.normal(size=(pairs, 1))), jnp.float32) for x in (w, l))


def coefficients(seed=0, pairs=500):
    return tuple(jnp.asarray(x, jnp.float32) for x in np.random.default_rng(seed).gamma(1.0, size=(2, pairs)))


def test_products_and_changes_by_hand():
    got = analysis.gradient_entanglement(*map(jnp.asarray, ONE), jnp.array(3.0), jnp.array(2.0))
    np.testing.assert_allclose(
        [got.inner_product, got.chosen_norm, got.rejected_norm, got.cosine, got.condition_ratio],
        [1.0, 1.0, np.sqrt(2), np.sqrt(0.5), 1.0], rtol=1e-6,
    )  # fmt: skip
    # 3 * 1 - 2 * 1 = 1 and 3 * 1 - 2 * 2 = -1: ideal
    np.testing.assert_allclose([got.chosen_change, got.rejected_change], [1.0, -1.0], rtol=1e-6)
    assert got.ideal and not (got.both_up or got.both_down or got.reversed)


@pytest.mark.parametrize("d_w,d_l,case", [(3.0, 2.0, "ideal"), (3.0, 1.0, "both_up"), (1.0, 2.0, "both_down")])
def test_each_case_by_hand(d_w, d_l, case):
    got = analysis.gradient_entanglement(*map(jnp.asarray, ONE), jnp.array(d_w), jnp.array(d_l))
    assert [n for n in ("ideal", "both_up", "both_down", "reversed") if getattr(got, n)] == [case]


@pytest.mark.parametrize("alike", [0.0, 0.5, 0.9])
def test_the_cases_partition_all_pairs_and_none_is_reversed(alike):
    got = analysis.gradient_entanglement(*gradients(alike=alike), *coefficients())
    cases = np.stack([got.ideal, got.both_up, got.both_down, got.reversed])
    np.testing.assert_array_equal(cases.sum(0), 1)
    assert not cases[3].any()  # Cauchy-Schwarz
    if alike == 0.9:
        assert all(cases[:3].any(1))  # the test sees every case that there is


@pytest.mark.parametrize("alike", [0.0, 0.9])
def test_the_cases_are_the_papers_conditions_on_the_inner_product(alike):
    g_w, g_l = (np.asarray(g, np.float64) for g in gradients(alike=alike))
    d_w, d_l = (np.asarray(d, np.float64) for d in coefficients())
    got = analysis.gradient_entanglement(*gradients(alike=alike), *coefficients())
    inner, ww, ll = (g_w * g_l).sum(-1), (g_w**2).sum(-1), (g_l**2).sum(-1)
    of_chosen, of_rejected = d_w / d_l * ww, d_l / d_w * ll
    np.testing.assert_array_equal(got.ideal, inner <= np.minimum(of_chosen, of_rejected))
    np.testing.assert_array_equal(got.both_up, (of_rejected < inner) & (inner <= of_chosen))
    np.testing.assert_array_equal(got.both_down, (of_chosen < inner) & (inner <= of_rejected))


def test_equal_coefficients_and_norms_are_always_ideal():
    g_w, g_l = gradients(alike=0.9)
    g_l = g_l * jnp.linalg.norm(g_w, axis=-1, keepdims=True) / jnp.linalg.norm(g_l, axis=-1, keepdims=True) * 0.9999
    d = coefficients()[0]
    got = analysis.gradient_entanglement(g_w, g_l / 0.9999, d, d)
    # Up to the rounding of two products that should be equal: no change has the wrong sign by more.
    slack = 1e-5 * d * got.chosen_norm**2
    assert np.all(got.chosen_change >= -slack) and np.all(got.rejected_change <= slack)


def test_with_equal_coefficients_a_condition_ratio_above_one_is_entangled():
    d = coefficients()[0]
    got = analysis.gradient_entanglement(*gradients(alike=0.7), d, d)
    clear = np.abs(np.asarray(got.condition_ratio) - 1) > 1e-4
    np.testing.assert_array_equal((got.condition_ratio <= 1)[clear], got.ideal[clear])
    assert 10 < got.ideal.sum() < 490


def test_negative_coefficients_reverse_the_ideal_case():
    """IPO past its target pulls the margin back."""
    d = coefficients()[0]
    forth, back = (analysis.gradient_entanglement(*gradients(), x, x) for x in (d, -d))
    np.testing.assert_array_equal(forth.ideal, back.reversed)


def test_a_gradient_of_zero_has_ratios_of_zero():
    got = analysis.gradient_entanglement(jnp.zeros((1, 3)), jnp.ones((1, 3)), jnp.ones(1), jnp.ones(1))
    assert got.cosine == got.condition_ratio == got.chosen_change == 0 and got.ideal


# --- coefficients of the named losses ---------------------------------------------------------------------------------

RNG = np.random.default_rng(7)
W, L, REF_W, REF_L = (RNG.normal(-10, 3, size=50) for _ in range(4))
LEN_W, LEN_L = RNG.integers(1, 9, size=(2, 50))
H = (W - REF_W) - (L - REF_L)


def s(x):
    return 1 / (1 + np.exp(-x))


def hinge(x):
    return jnp.maximum(x, 0.0)


ACTIVE = (1 - (W - L) > 0).astype(float)
ACTIVE_MEAN = (L / LEN_L - W / LEN_W > 0).astype(float)
SIMPO = s(-(2.0 * (W / LEN_W - L / LEN_L) - 0.5))
CPO = 0.1 * s(-0.1 * (W - L))
BELOW = (W < REF_W).astype(float)
DPOP_Z = 0.1 * (H - 5.0 * np.maximum(REF_W - W, 0))
# The catalogue's table, d_w and d_l in numpy, beside the loss as its paper has it.
NAMED = {
    "dpo": (lambda w, l: losses.dpo(w, l, REF_W, REF_L, beta=0.1), 0.1 * s(-0.1 * H), 0.1 * s(-0.1 * H)),
    "ipo": (lambda w, l: losses.ipo(w, l, REF_W, REF_L, tau=0.1), -2 * (H - 5), -2 * (H - 5)),
    "length_regularized_dpo": (
        lambda w, l: jax.nn.softplus(-(0.1 * ((w - REF_W) - (l - REF_L)) - 0.02 * (LEN_W - LEN_L))),
        0.1 * s(-(0.1 * H - 0.02 * (LEN_W - LEN_L))),
        0.1 * s(-(0.1 * H - 0.02 * (LEN_W - LEN_L))),
    ),
    "simpo": (
        lambda w, l: jax.nn.softplus(-(2.0 * (w / LEN_W - l / LEN_L) - 0.5)), 2.0 * SIMPO / LEN_W, 2.0 * SIMPO / LEN_L,
    ),
    "slic_hf": (lambda w, l: hinge(1 - (w - l)) - 0.3 * w, ACTIVE + 0.3, ACTIVE),
    "rrhf": (
        lambda w, l: hinge(l / LEN_L - w / LEN_W) - 0.3 * w, ACTIVE_MEAN / LEN_W + 0.3, ACTIVE_MEAN / LEN_L,
    ),
    "cpo": (lambda w, l: jax.nn.softplus(-0.1 * (w - l)) - 0.3 * w, CPO + 0.3, CPO),
    "dpop": (
        lambda w, l: jax.nn.softplus(-0.1 * ((w - REF_W) - (l - REF_L) - 5.0 * hinge(REF_W - w))),
        0.1 * s(-DPOP_Z) * (1 + 5.0 * BELOW),
        0.1 * s(-DPOP_Z),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NAMED)
def test_coefficients_of_named_losses_are_the_papers(name):
    loss, d_w, d_l = NAMED[name]
    with jax.enable_x64(True):
        got = analysis.margin_coefficients(loss, jnp.asarray(W), jnp.asarray(L))
    np.testing.assert_allclose(got[0], d_w, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(got[1], d_l, rtol=1e-6, atol=1e-12)


def test_simpo_weighs_the_sides_by_the_length_of_the_other():
    d_w, d_l = analysis.margin_coefficients(NAMED["simpo"][0], jnp.asarray(W), jnp.asarray(L))
    np.testing.assert_allclose(d_w / d_l, LEN_L / LEN_W, rtol=1e-4)


# --- the remedy -------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.integers(0, 1000), st.floats(0.0, 0.99))
def test_the_normalised_direction_never_moves_a_side_the_wrong_way(seed, alike):
    g_w, g_l = gradients(seed, 20, alike=alike)
    c = coefficients(seed, 20)[0]
    step = np.asarray(analysis.pairwise_normalized_direction(g_w, g_l, c), np.float64)
    got = analysis.gradient_entanglement(g_w, g_l, c, c)
    rise = 1 - np.asarray(got.cosine, np.float64)
    for norm, side, sign in ((got.chosen_norm, g_w, 1), (got.rejected_norm, g_l, -1)):
        change = (step * np.asarray(side)).sum(-1)
        scale = np.asarray(c * norm)
        np.testing.assert_allclose(change / scale, sign * rise, rtol=1e-4, atol=2e-6)
        assert np.all(sign * change >= -1e-5 * scale)


def test_equal_norms_give_the_ordinary_direction_divided_by_the_norm():
    g_w, g_l = gradients()
    norm = 3.0
    g_w, g_l = (norm * g / jnp.linalg.norm(g, axis=-1, keepdims=True) for g in (g_w, g_l))
    c = coefficients()[0]
    np.testing.assert_allclose(
        analysis.pairwise_normalized_direction(g_w, g_l, c), c[:, None] * (g_w - g_l) / norm, rtol=1e-4, atol=1e-5
    )


def test_parallel_gradients_cancel_and_a_zero_gradient_stays_zero():
    g, c = gradients()[0], coefficients()[0]
    step = analysis.pairwise_normalized_direction(g, 5 * g, c)
    np.testing.assert_allclose(step / c[:, None], 0, atol=1e-6)
    alone = analysis.pairwise_normalized_direction(jnp.zeros_like(g), g, c)
    np.testing.assert_allclose(jnp.linalg.norm(alone, axis=-1), c, rtol=1e-5)


# --- the gradients of probabilities -----------------------------------------------------------------------------------


def probabilities(seed=0, size=40):
    rng = np.random.default_rng(seed)
    return [jnp.asarray(np.log(rng.dirichlet(np.ones(4), size=size)[:, :2]), jnp.float32) for _ in range(2)]


def test_the_two_gradients_differ_by_the_ratio_of_the_probabilities():
    policy, reference = probabilities()
    got = analysis.dpo_probability_gradients(policy[:, 0], policy[:, 1], reference[:, 0], reference[:, 1])
    np.testing.assert_allclose(-got.rejected / got.chosen, np.exp(policy[:, 0] - policy[:, 1]), rtol=1e-4)
    assert np.all(got.chosen < 0) and np.all(got.rejected > 0)


@pytest.mark.parametrize("beta", [0.1, 0.5, 2.0])
def test_they_are_the_numerical_derivatives_of_the_dpo_loss(beta):
    policy, reference = (np.asarray(x, np.float64) for x in probabilities())
    got = analysis.dpo_probability_gradients(*(F(x) for x in (*policy.T, *reference.T)), beta=beta)
    p = np.exp(policy)
    for side, gradient in enumerate((got.chosen, got.rejected)):
        values = []
        for sign in (1, -1):
            moved = p.copy()
            moved[:, side] *= 1 + sign * 1e-5
            z = beta * ((np.log(moved[:, 0]) - reference[:, 0]) - (np.log(moved[:, 1]) - reference[:, 1]))
            values.append(np.logaddexp(0, -z))
        np.testing.assert_allclose(gradient, (values[0] - values[1]) / (2e-5 * p[:, side]), rtol=1e-3)


def F(x):
    return jnp.asarray(x, jnp.float32)


@pytest.mark.parametrize("beta", [0.1, 0.5, 0.9])
def test_as_the_rejected_one_vanishes_its_pull_explodes_and_the_chosen_ones_dies(beta):
    """Drastic drop and degradation, for beta < 1, with the powers of p_l that the paper derives."""
    rejected = jnp.linspace(-60, -1, 60)
    fixed = jnp.full_like(rejected, np.log(0.2))
    got = analysis.dpo_probability_gradients(fixed, rejected, fixed, jnp.full_like(rejected, np.log(0.3)), beta=beta)
    assert np.all(np.diff(got.rejected) < 0) and np.all(np.diff(-got.chosen) > 0)
    slope = {k: np.diff(np.log(np.abs(np.asarray(x)[:2])))[0] for k, x in got._asdict().items()}
    np.testing.assert_allclose(slope["rejected"], beta - 1, atol=0.03)
    np.testing.assert_allclose(slope["chosen"], beta, atol=0.03)


def test_beta_above_one_does_not_explode():
    rejected = jnp.linspace(-60, -3, 50)
    zero = jnp.zeros_like(rejected)
    got = analysis.dpo_probability_gradients(zero, rejected, zero, zero, beta=2.0)
    assert np.all(np.diff(got.rejected) > 0)


def test_weight_and_reciprocal_probability_may_each_be_out_of_range():
    """s(-z) = e^-150 underflows and 1 / p_l = e^100 overflows in float32; their product is an ordinary number."""
    got = analysis.dpo_probability_gradients(F(-1.0), F(-100.0), F(-51.0), F(0.0), beta=1.0)
    np.testing.assert_allclose(got.rejected, np.exp(-50.0), rtol=1e-4)


# --- the toy of correlated embeddings ---------------------------------------------------------------------------------


def train_correlated(rho, method, pairs=200, vocabulary=10, width=8, steps=200, rate=0.5, beta=0.5):
    """A hidden state per pair, trained; output embeddings frozen, those of chosen and rejected at cosine rho.

    Returns the share of pairs whose chosen log-prob fell, and the mean probability of all other tokens.
    """
    rng = np.random.default_rng(0)
    table = rng.normal(size=(pairs, vocabulary, width))
    table /= np.linalg.norm(table, axis=-1, keepdims=True)
    across = table[:, 1] - (table[:, 1] * table[:, 0]).sum(-1, keepdims=True) * table[:, 0]
    across /= np.linalg.norm(across, axis=-1, keepdims=True)
    table[:, 1] = rho * table[:, 0] + np.sqrt(1 - rho**2) * across
    table = F(table)

    def logps(hidden):
        return jax.nn.log_softmax(jnp.einsum("pvd,pd->pv", table, hidden))

    start = F(rng.normal(size=(pairs, width)))
    reference = logps(start)

    def step(hidden, _):
        now = logps(hidden)
        mean = jnp.einsum("pv,pvd->pd", jnp.exp(now), table)
        g_w, g_l = table[:, 0] - mean, table[:, 1] - mean
        d, _ = analysis.margin_coefficients(
            lambda w, l: losses.dpo(w, l, reference[:, 0], reference[:, 1], beta=beta), now[:, 0], now[:, 1]
        )
        direction = {
            "dpo": lambda: d[:, None] * (g_w - g_l),
            "sft_dpo": lambda: d[:, None] * (g_w - g_l) + 0.1 * g_w,
            "normalised": lambda: analysis.pairwise_normalized_direction(g_w, g_l, d),
        }[method]()
        return hidden + rate * direction, None

    after = logps(jax.lax.scan(step, start, None, length=steps)[0])
    fell = float(jnp.mean(after[:, 0] < reference[:, 0]))
    return fell, float(jnp.mean(1 - jnp.exp(after[:, 0]) - jnp.exp(after[:, 1])))


def test_the_more_alike_the_sides_the_more_chosen_answers_lose_probability():
    """The paper's pitfall as numbers: about 0, 0.07, 0.58 and 0.67 of the pairs; none with normalised gradients."""
    shares = [train_correlated(rho, "dpo")[0] for rho in (0.0, 0.5, 0.9, 0.99)]
    assert all(np.diff(shares) >= 0) and shares[0] < 0.05 and shares[1] < 0.25 and shares[2] > 0.4
    assert [train_correlated(rho, "normalised")[0] for rho in (0.0, 0.9, 0.99)] == [0.0, 0.0, 0.0]


def test_probability_disperses_to_unseen_answers_unless_the_chosen_one_is_taught_too():
    """3D: with alike sides DPO leaves most mass on answers that are in no pair; an SFT term keeps it (0.86, 0.21)."""
    assert train_correlated(0.99, "dpo")[1] > 0.7 and train_correlated(0.99, "sft_dpo")[1] < 0.4
