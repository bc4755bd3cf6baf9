"""Bradley-Terry ratings: closed forms, symmetries, planted strengths, and models that win or lose everything."""

import numpy as np
import pytest

from alignment import evaluation as ev


def rate(battles, anchor="a", prompts=None, **hyper):
    models, opponents, outcomes = zip(*battles, strict=True)
    prompts = range(len(battles)) if prompts is None else prompts
    return ev.bradley_terry_elo(models, opponents, outcomes, np.ones(len(battles)), prompts, anchor=anchor, **hyper)


def ratings(result):
    return dict(zip(result.model, result.rating, strict=True))


def test_two_models_have_the_log_odds_of_their_win_rate():
    got = rate([("b", "a", 1)] * 3 + [("b", "a", 0)])
    assert ratings(got)["b"] == pytest.approx(1000 + 400 * np.log10(3)) and ratings(got)["a"] == 1000
    scores = dict(zip(got.model, got.score, strict=True))
    assert scores == {"b": pytest.approx(75), "a": 50} and got.model == ["b", "a"]


def test_a_tie_is_half_a_win_and_weights_are_battles():
    halves = rate([("b", "a", 0.5), ("b", "a", 1)])
    assert ratings(halves)["b"] == pytest.approx(1000 + 400 * np.log10(3))  # 1.5 of 2
    weighted = ev.bradley_terry_elo(["b", "b"], ["a", "a"], [1, 0], [3, 1], [0, 1], anchor="a", rounds=3)
    assert ratings(weighted)["b"] == pytest.approx(1000 + 400 * np.log10(3))


def test_models_that_only_play_the_anchor_keep_their_mean_outcome():
    battles = [(m, "a", o) for m, k in (("b", 7), ("c", 2)) for o in [1] * k + [0] * (10 - k)]
    got = rate(battles)
    assert dict(zip(got.model, got.score, strict=True)) == {
        "b": pytest.approx(70), "c": pytest.approx(20), "a": 50,
    }  # fmt: skip
    assert dict(zip(got.model, got.battles, strict=True)) == {"a": 20, "b": 10, "c": 10}


def simulate(strengths, battles, seed):
    rng = np.random.default_rng(seed)
    names = list(strengths)
    pairs = [rng.choice(len(names), 2, replace=False) for _ in range(battles)]
    theta = np.array(list(strengths.values()))
    won = [rng.random() < 1 / (1 + np.exp(theta[j] - theta[i])) for i, j in pairs]
    return [(names[i], names[j], float(w)) for (i, j), w in zip(pairs, won, strict=True)]


def test_order_and_direction_of_battles_do_not_matter():
    battles = simulate({"a": 0.0, "b": 0.7, "c": -0.4}, 100, 0)
    turned = [(b, a, 1 - o) for a, b, o in battles[::-1]]
    for name, value in ratings(rate(battles)).items():
        assert ratings(rate(turned))[name] == pytest.approx(value, abs=1e-6)


def test_the_gradient_of_the_likelihood_is_zero_at_the_ratings():
    battles = simulate({"a": 0.0, "b": 1.0, "c": -1.0, "d": 0.3}, 300, 1)
    got = ratings(rate(battles, rounds=1))
    residual = dict.fromkeys(got, 0.0)
    for one, other, outcome in battles:
        expected = 1 / (1 + 10 ** ((got[other] - got[one]) / 400))
        residual[one] += outcome - expected
        residual[other] -= outcome - expected
    assert all(abs(r) < 1e-6 for r in residual.values())


def test_planted_ratings_are_recovered_and_lie_in_their_intervals():
    planted, inside, count = {"a": 0.0, "b": 1.0, "c": -0.8}, 0, 0
    for seed in range(20):
        got = rate(simulate(planted, 300, seed), rounds=60, seed=seed)
        for name, low, high in zip(got.model, got.low, got.high, strict=True):
            if name != "a":
                inside += low <= 1000 + 400 / np.log(10) * planted[name] <= high
                count += 1
    assert inside / count >= 0.85  # 95 % but for the small samples' bootstrap: 40 intervals
    many = ratings(rate(simulate(planted, 20_000, 0), rounds=1))
    assert many["b"] == pytest.approx(1000 + 400 / np.log(10), abs=12)


def test_the_two_orders_of_a_prompt_are_drawn_together():
    """Asked twice with the same answer, a judge is no surer: duplicates that share a prompt leave the interval."""
    battles = simulate({"a": 0.0, "b": 0.5}, 60, 3)
    once = rate(battles, prompts=range(60))
    twice = rate([*battles, *battles], prompts=[*range(60), *range(60)])
    np.testing.assert_allclose(twice.low, once.low, atol=1e-6)
    np.testing.assert_allclose(twice.high, once.high, atol=1e-6)


def test_a_model_that_never_wins_or_never_loses_has_an_infinite_rating_and_says_so():
    battles = [("b", "a", 1), ("b", "a", 0), ("loser", "a", 0), ("loser", "b", 0), ("winner", "b", 1)]
    battles += [("far", "farther", 1)]
    got = rate(battles, rounds=5)
    assert ratings(got)["b"] == 1000  # the others do not touch the fit among those with a finite rating
    assert ratings(got)["loser"] == -np.inf and ratings(got)["winner"] == np.inf
    status = dict(zip(got.model, got.status, strict=True))
    assert status["loser"] == "never wins" and status["winner"] == "never loses" and status["a"] == ""
    assert status["far"] == status["farther"] == "never met the anchor" and np.isnan(ratings(got)["far"])
    assert got.model[0] == "winner"


def test_a_prior_makes_every_rating_finite():
    got = rate([("b", "a", 1)] * 4 + [("c", "d", 1)], prior=1.0, rounds=5)
    assert np.isfinite(got.rating).all() and not any(got.status)
    assert ratings(got)["b"] == pytest.approx(1000 + 400 * np.log10(4.5 / 0.5))


def test_style_control_takes_back_what_length_gave():
    rng = np.random.default_rng(0)
    n, own, base = 4000, rng.integers(50, 400, 4000), rng.integers(50, 400, 4000)
    share = (own - base) / (own + base)
    won = rng.random(n) < 1 / (1 + np.exp(-(0.4 + 2.0 * share)))
    arguments = (["b"] * n, ["a"] * n, won, np.ones(n), range(n), own, base)
    controlled = ev.length_controlled_elo(*arguments, anchor="a", rounds=2)
    assert ratings(controlled)["b"] == pytest.approx(1000 + 400 / np.log(10) * 0.4, abs=20)
    equal = ev.length_controlled_elo(*arguments[:5], np.full(n, 9), np.full(n, 9), anchor="a", rounds=2)
    plain = ev.bradley_terry_elo(*arguments[:5], anchor="a", rounds=2)
    np.testing.assert_allclose(equal.rating, plain.rating)
    with pytest.raises(ValueError, match="no finite value"):
        ev.length_controlled_elo(["b"] * 4, ["a"] * 4, [1, 0, 1, 0], np.ones(4), range(4), [9, 1, 8, 2],
                                 [3, 3, 3, 3], anchor="a", rounds=2)  # fmt: skip


@pytest.mark.parametrize(
    "change,message",
    [
        ({"anchor": "z"}, "anchor 'z' has no battle; there are: b, a"),
        ({"outcomes": [2.0]}, "outcomes must lie in"),
        ({"weights": [0.0]}, r"weights must lie in \(0, inf\)"),
        ({"opponents": ["b"], "anchor": "b"}, "battle of b with itself"),
        ({"prompts": []}, "lengths differ"),
        ({"prior": -1.0}, "prior must lie in"),
    ],
)
def test_bad_input_is_named(change, message):
    good = {"models": ["b"], "opponents": ["a"], "outcomes": [1.0], "weights": [1.0], "prompts": [0], "anchor": "a"}
    with pytest.raises(ValueError, match=message):
        ev.bradley_terry_elo(**{**good, **change})
