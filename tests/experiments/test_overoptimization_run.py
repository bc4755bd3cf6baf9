"""The over-optimisation experiment in small, stage by stage; proxy points of finished runs, and of the bandit."""

import json

import jax
import numpy as np
import pytest
import tiny_runs

from alignment.data import corpus
from configs import overoptimization as config_of
from experiments import constrained_bandit, finetune, overoptimization, proxy_points, reinforce


def tiny():
    config = config_of.get_config()
    tiny_runs.shrink(config.policy)
    tiny_runs.shrink(config.reward_model)
    tiny_runs.shrink_online(config.ppo, 2)
    config.policy.checkpoints.export_hugging_face = True
    config.ppo.checkpoints.every = 1
    config.seeds, config.members, config.optimised, config.pairs = (0,), 2, ("uwo",), 32
    config.best_of_n.samples = config.best_of_n.largest = 4
    config.checkpoint_samples = 24
    return config


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(WORKDIR, points) of a finished experiment."""
    workdir = tmp_path_factory.mktemp("overoptimization")
    with pytest.MonkeyPatch.context() as patch:
        tiny_runs.one_device(patch)
        return workdir, overoptimization.run(tiny(), workdir)


def test_every_curve_begins_at_the_start_and_is_complete(finished):
    workdir, points = finished
    curves = {}
    for p in points:
        assert all(np.isfinite(p[key]) for key in ("kl", "proxy", "gold"))
        curves.setdefault((p["method"], p["reward"]), []).append(p)
    assert set(curves) == {("best_of_n", r) for r in ("single", "mean", "wco", "uwo")} | {("ppo", "uwo")}
    for curve in curves.values():
        assert [curve[0][k] for k in ("kl", "proxy", "gold")] == pytest.approx([0, 0, 0], abs=1e-4)
    for (method, _), curve in curves.items():
        if method == "best_of_n":
            assert [p["n"] for p in curve] == [1, 2, 4]
            assert np.all(np.diff([p["proxy"] for p in curve]) > 0)
        else:
            assert [p["iteration"] for p in curve] == [0, 1, 2] and curve[-1]["kl"] > 0
    assert (workdir / "figure.png").stat().st_size > 5000
    assert (workdir / "table.md").read_text().count("\n") == 2 + len(curves)


def test_members_see_the_same_pairs_and_differ_all_the_same(finished):
    workdir, _ = finished
    configs = [json.loads((workdir / f"seed0/member{k}/result.json").read_text())["config"] for k in (0, 1)]
    assert configs[0]["data"] == configs[1]["data"] and configs[0]["seed"] != configs[1]["seed"]
    with np.load(workdir / "seed0" / "pool_scores.npz") as stored:
        scores = stored["scores"]
    assert scores.shape == (4 * len(corpus.prompts("test")), 2)
    assert np.abs(scores[:, 0] - scores[:, 1]).max() > 1e-2


def test_labels_follow_the_gold_reward_but_for_the_flips(finished):
    """On held-out prompts all labels are right; on training prompts about a quarter is not."""
    workdir, _ = finished

    def right(path):
        pairs = [json.loads(line) for line in path.read_text().splitlines()]
        return [
            corpus.gold_reward(p["prompt"], p["chosen"]) > corpus.gold_reward(p["prompt"], p["rejected"]) for p in pairs
        ]

    assert all(right(workdir / "evaluation_pairs.jsonl"))
    assert 0 < np.mean(np.logical_not(right(workdir / "seed0" / "pairs.jsonl"))) < 0.6


def test_finished_stages_are_not_done_again_and_another_config_is_refused(finished, monkeypatch):
    workdir, points = finished
    tiny_runs.one_device(monkeypatch)
    for script in (finetune, reinforce):
        monkeypatch.setattr(script, "_run", lambda *_: pytest.fail("a finished stage was run again"))
    monkeypatch.setattr(
        overoptimization.gold_reward, "sample", lambda *_, **__: pytest.fail("samples were drawn again")
    )
    assert overoptimization.run(tiny(), workdir) == points
    other = tiny()
    other.label_noise = 0.1
    with pytest.raises(ValueError, match="belongs to a config with other label_noise"):
        overoptimization.run(other, workdir)


def test_a_proxy_that_is_gold_is_never_overoptimised_and_noise_is():
    rng = np.random.default_rng(0)
    gold = rng.normal(size=(60, 64))
    blind = rng.normal(size=(60, 64))
    scores = np.stack([gold, blind], axis=-1)
    combinations = {"gold": lambda s: s[..., 0], "blind": lambda s: s[..., 1]}
    points = overoptimization.best_of_n_points(scores, gold, combinations, 32)
    of = {name: [p for p in points if p["reward"] == name] for name in ("gold", "blind", "single")}
    assert all(p["proxy"] == pytest.approx(p["gold"]) for p in of["gold"])
    assert abs(of["blind"][-1]["gold"]) < 0.3 < 1.5 < of["blind"][-1]["proxy"]
    means = [np.mean([of[n][i]["gold"] for n in ("gold", "blind")]) for i in range(6)]
    np.testing.assert_allclose([p["gold"] for p in of["single"]], means, rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seeds": (1, 1)}, r"config\.seeds: must be different"),
        ({"members": 1}, r"config\.members: an ensemble has at least 2"),
        ({"optimised": ("wcoo",)}, r"config\.optimised: 'wcoo' is not one of single, mean, uwo, wco"),
        ({"ensembles.wco.combine": "worst_cse"}, r"config\.ensembles\.wco\.combine: no such function.*worst_case"),
        ({"ensembles.wco.combine": ""}, r"config\.ensembles\.wco\.combine: missing"),
        ({"ensembles.single": {"combine": "worst_case"}}, r"config\.ensembles\.single"),
        ({"best_of_n.largest": 8}, r"config\.best_of_n\.largest: must lie in \[1, 4\]"),
        ({"ppo.checkpoints.keep_last": 1}, r"config\.ppo\.checkpoints\.keep_last"),
        ({"ppo.rewards": {"x": {}}}, r"config\.ppo\.rewards: is decided by the script"),
        ({"policy.checkpoints.export_hugging_face": False}, "export_hugging_face"),
        ({"pairz": 3}, r"config\.pairz: unknown key; nearest: pairs"),
    ],
)
def test_what_a_config_gets_wrong_is_said_before_anything_is_trained(tmp_path, change, said):
    config = tiny()
    for key, value in change.items():
        *sections, last = key.split(".")
        section = config
        for name in sections:
            section = section[name]
        section[last] = value
    with pytest.raises(ValueError, match=said):
        overoptimization.run(config, tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


# --- proxy points of finished runs -----------------------------------------------------------------------------------


def run_with(directory, rows, rewards=None):
    """A finished run as far as the search looks at it: its rewards and its evaluations."""
    directory.mkdir()
    rewards = rewards or {"a": {}, "b": {"weight": 0.5}, "gold": {"weight": 0.0}}
    (directory / "result.json").write_text(json.dumps({"config": {"rewards": rewards}}))
    lines = [{"step": i, "split": "eval", **row} for i, row in enumerate(rows)]
    (directory / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(directory)


def planted(count=30):
    """Evaluations of runs that pass the point (1.0, 0.6), where gold is best."""
    rng = np.random.default_rng(0)
    a, b = rng.uniform(0, 2, size=(2, count))
    return [
        {"reward_a": x, "reward_b": y, "reward_gold": -((x - 1) ** 2) - (y - 0.6) ** 2}
        for x, y in zip(a, b, strict=True)
    ]


def test_the_proxy_point_of_runs_is_where_the_trusted_reward_was_best(tmp_path):
    rows = planted()
    runs = [run_with(tmp_path / "r0", rows[:15]), run_with(tmp_path / "r1", rows[15:])]
    found = proxy_points.run(runs, "gold", tmp_path / "out")
    best = max(rows, key=lambda r: r["reward_gold"])
    assert found["thresholds"] == pytest.approx({"a": best["reward_a"], "b": best["reward_b"]})
    assert not any(found["at_the_end_of_what_was_seen"].values())
    assert json.loads((tmp_path / "out" / "proxy_points.json").read_text()) == found
    assert (tmp_path / "out" / "proxy_points.png").stat().st_size > 5000


def test_a_point_at_the_end_of_the_runs_is_said_to_lie_there(tmp_path, capsys):
    rows = [{**row, "reward_gold": row["reward_a"]} for row in planted()]
    found = proxy_points.run([run_with(tmp_path / "r", rows)], "gold", tmp_path / "out")
    assert found["thresholds"]["a"] == max(row["reward_a"] for row in rows)
    assert found["at_the_end_of_what_was_seen"] == {"a": True, "b": False}
    assert "a: no run went beyond the point" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("rewards", "metric", "said"),
    [
        (None, "gould", "has no reward 'gould'; it has: a, b, gold"),
        ({"a": {}, "gold": {}}, "gold", r"was trained on gold \(weight 1\)"),
        ({"gold": {"weight": 0.0}}, "gold", "has no reward beside gold"),
        (None, "gold", "a quadratic of 2 rewards needs 6 points or more, got 2; .*eval_every"),
    ],
)
def test_runs_that_cannot_tell_a_proxy_point_are_refused(tmp_path, rewards, metric, said):
    with pytest.raises(ValueError, match=said):
        proxy_points.run([run_with(tmp_path / "r", planted(2), rewards)], metric, tmp_path / "out")
    with pytest.raises(ValueError, match=r"no result\.json"):
        proxy_points.run([str(tmp_path)], metric, tmp_path / "out")


# --- the bandit ------------------------------------------------------------------------------------------------------


def test_the_bandit_runs_from_its_command(tmp_path, monkeypatch):
    for name, value in {"_STATES": 4, "_ARMS": 8, "_STEPS": 60, "_BLOCK": 5, "_CALLS": 4}.items():
        monkeypatch.setattr(constrained_bandit, name, value)
    lines = constrained_bandit.run(tmp_path, 2)
    assert {name: len(runs) for name, runs in lines.items()} == {"sum of rewards": 2, "mu": 2, "xi": 2, "search": 2}
    assert all(np.isfinite([*r["returns"], r["best"], r["last"]]).all() for runs in lines.values() for r in runs)
    assert (tmp_path / "figure.png").stat().st_size > 5000
    jax.clear_caches()
