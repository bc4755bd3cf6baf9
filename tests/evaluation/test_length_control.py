"""Length-controlled win rate: planted coefficients, symmetry, and a judge that likes long answers."""

import numpy as np
import pytest

from alignment import evaluation as ev
from alignment.evaluation import length_control

N = 300


def data(theta=0.6, psi=-0.8, phi=1.2, n=N):
    rng = np.random.default_rng(0)
    lengths, base = rng.integers(100, 900, n), rng.integers(100, 900, n)
    difficulty = rng.normal(size=n)
    delta = lengths - base
    feature = np.tanh(delta / delta.std(ddof=1))
    outcomes = 1 / (1 + np.exp(-(theta + psi * difficulty + phi * feature)))
    return outcomes, lengths, base, difficulty


def control(outcomes, lengths, base, difficulty, gamed=None, models=None, **hyper):
    models = ["m"] * len(outcomes) if models is None else models
    gamed = np.zeros(len(outcomes), bool) if gamed is None else gamed
    return ev.length_controlled_win_rate(models, outcomes, lengths, base, difficulty, gamed, rounds=3, **hyper)


def test_planted_coefficients_are_recovered():
    outcomes, lengths, base, difficulty = data()
    got = control(outcomes, lengths, base, difficulty)
    # The penalty at its weakest (C = 1e4) shrinks by no more than this.
    np.testing.assert_allclose([got.model_effect[0], got.difficulty_effect[0], got.length_effect[0]],
                               [0.6, -0.8, 1.2], atol=1e-3)  # fmt: skip
    want = np.mean(1 / (1 + np.exp(-(0.6 - 0.8 * difficulty))))
    assert got.win_rate[0] == pytest.approx(want, abs=1e-4)


def test_the_scale_of_lengths_is_the_sample_standard_deviation():
    """With ddof 0 the planted coefficient of twelve prompts would come out 4 % off."""
    got = control(*data(n=12))
    assert got.length_effect[0] == pytest.approx(1.2, rel=0.01)


def test_even_outcomes_are_a_half():
    _, lengths, base, difficulty = data()
    assert control(np.full(N, 0.5), lengths, base, difficulty).win_rate[0] == 0.5


def test_without_an_effect_of_length_it_is_the_raw_win_rate():
    outcomes, lengths, base, difficulty = data(phi=0.0)
    got = control(outcomes, lengths, base, difficulty)
    assert got.win_rate[0] == pytest.approx(got.raw_win_rate[0], abs=1e-3)


def test_both_directions_sum_to_one():
    outcomes, lengths, base, difficulty = data()
    outcomes = (np.random.default_rng(1).random(N) < outcomes).astype(float)
    one, other = control(outcomes, lengths, base, difficulty), control(1 - outcomes, base, lengths, difficulty)
    assert one.win_rate[0] + other.win_rate[0] == pytest.approx(1, abs=1e-6)


def test_the_unit_of_length_does_not_matter():
    outcomes, lengths, base, difficulty = data()
    one, other = control(outcomes, lengths, base, difficulty), control(outcomes, lengths * 4.0, base * 4.0, difficulty)
    assert one.win_rate[0] == pytest.approx(other.win_rate[0], abs=1e-9)


def test_verbosity_raises_the_raw_win_rate_only():
    rng = np.random.default_rng(0)
    columns = {k: [] for k in ("models", "outcomes", "lengths", "base")}
    for more in (0, 150, 300):
        lengths, base = rng.integers(100, 900, N) + more, rng.integers(100, 900, N)
        # The judge looks at characters, with one scale for all: 300 of them.
        outcomes = 1 / (1 + np.exp(-2 * np.tanh((lengths - base) / 300)))
        for key, values in zip(columns, ([f"+{more}"] * N, outcomes, lengths, base), strict=True):
            columns[key].extend(values)
    got = control(columns["outcomes"], columns["lengths"], columns["base"], np.zeros(3 * N), models=columns["models"])
    assert got.model == ["+0", "+150", "+300"]
    assert got.raw_win_rate[2] - got.raw_win_rate[0] > 0.2
    assert abs(got.win_rate[2] - got.win_rate[0]) < 0.06
    np.testing.assert_array_equal(got.difficulty_effect, 0)  # a column of zeros leaves the term out


def test_gamed_baselines_tell_length_from_quality_where_the_model_is_always_longer():
    """Without them the sign of a constant difference is collinear with the model's own effect."""
    outcomes, difficulty = np.full(N, 0.8), np.zeros(N)
    lengths, base = np.full(N, 900.0), np.full(N, 300.0)
    alone = control(outcomes, lengths, base, difficulty)
    judge = 1 / (1 + np.exp(-2.0 * np.array([1, -1])))
    gamed_outcomes = np.repeat(judge, N)
    gamed_lengths = np.repeat([900.0, 50.0], N)
    all_columns = (
        np.concatenate([outcomes, gamed_outcomes]), np.concatenate([lengths, gamed_lengths]),
        np.full(3 * N, 300.0), np.zeros(3 * N),
    )  # fmt: skip
    names = ["m"] * N + ["longer"] * N + ["shorter"] * N
    helped = control(*all_columns, gamed=np.arange(3 * N) >= N, models=names, gamed_weight=10.0)
    assert helped.model == ["m"] and helped.win_rate[0] < 0.4 < alone.win_rate[0]


def test_the_l1_fit_meets_its_conditions_of_optimality():
    rng = np.random.default_rng(0)
    design, weights = rng.normal(size=(60, 3)), rng.uniform(0.1, 1, 60)
    outcomes = 1 / (1 + np.exp(-design @ [1.0, 0.0, -2.0]))
    for strength in (0.05, 0.3, 10.0):
        beta = length_control.l1_logistic(design, outcomes, strength * weights)
        pull = design.T @ (strength * weights * (outcomes - 1 / (1 + np.exp(-design @ beta))))
        moved = beta != 0
        np.testing.assert_allclose(pull[moved], np.sign(beta[moved]), atol=1e-5)
        assert (np.abs(pull[~moved]) <= 1 + 1e-6).all()
    assert moved.any()


def test_separable_outcomes_stay_finite():
    got = control(np.ones(20), np.arange(20.0), np.arange(20.0)[::-1], np.zeros(20))
    assert np.isfinite(got.win_rate).all() and got.win_rate[0] > 0.9


@pytest.mark.parametrize(
    "change,message",
    [
        ({"outcomes": [1.0] * 3}, "lengths differ"),
        ({"outcomes": [2.0] * 4}, "outcomes must lie in"),
        ({"gamed": [True] * 4}, "gamed is true of every outcome"),
        ({"folds": 5}, "m has 4 outcomes, fewer than folds=5"),
        ({"folds": 1}, "folds must lie in"),
        ({"gamed_weight": -1.0}, "gamed_weight must lie in"),
    ],
)
def test_bad_input_is_named(change, message):
    good = {"models": ["m"] * 4, "outcomes": [1.0] * 4, "lengths": [1.0] * 4, "baseline_lengths": [2.0] * 4}
    good |= {"difficulties": [0.0] * 4, "gamed": [False] * 4, "folds": 2}
    with pytest.raises(ValueError, match=message):
        ev.length_controlled_win_rate(**{**good, **change})
