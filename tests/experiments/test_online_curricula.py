"""Online runs whose prompts a curriculum chooses, and the other things that an online run may remember or redraw."""

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
import test_reinforce
import tiny_runs

from alignment.models import heads
from alignment.training import last_completions, mesh, references, rollouts
from alignment.training.logging import read_metrics
from experiments import prompt_sets, reinforce, rolling_out

PPO = {"ppo": {"weight": 1.0, "reduction": "token_mean"}}
VALUES = {**PPO, "ppo_value_loss": {"weight": 0.1, "reduction": "token_mean"}}


@pytest.fixture(autouse=True)
def _one_device(monkeypatch):
    tiny_runs.one_device(monkeypatch)


def tiny(iterations=4, reward="test_online_curricula:right", **changes):
    config = test_reinforce.tiny(iterations, reward, **changes)
    config.objective = PPO
    config.data.eval_size = 1
    config.evaluation.samples = 1
    return config


def right(prompt, completion, record):
    """0 or 1, each about half of the time, also for a model that has learnt nothing."""
    return float(len(completion) % 2)


def spo():
    config = tiny(advantages={"spo": {}})
    config.advantages = {"spo": {}}
    config.rollout.prompts, config.rollout.group_size = 8, 1
    config.curriculum = {"spo": {"prior_samples": 2}}
    return config


def knapsack():
    config = tiny()
    config.rollout.prompts, config.rollout.group_size = 8, 2
    config.data.size = 8
    config.curriculum = {"knapsack_rl": {"rows_per_prompt": 2, "clamp": 0.05}}
    return config


def gain():
    config = tiny()
    config.curriculum = {"gain_rl": {"samples_per_epoch": 8, "sigma": 8.0}}
    return config


def rows(workdir, split="train"):
    return [r for r in read_metrics(workdir / "metrics.jsonl") if r["split"] == split]


def state_of(config, workdir):
    with ocp.StandardCheckpointer() as reader:
        return reader.restore(workdir / "checkpoints" / str(config.training.iterations) / "state")


@pytest.fixture
def chosen(monkeypatch):
    """The prompts' ids of every rollout, in the order of the calls."""
    seen, make = [], rollouts.to_rows

    def recorded(tokens, mask, rollout, group_size, ids):
        seen.append(np.array(ids).tolist())
        return make(tokens, mask, rollout, group_size, ids)

    monkeypatch.setattr(rolling_out.rollouts, "to_rows", recorded)
    return seen


class Killed(RuntimeError):
    pass


@pytest.mark.parametrize("make", [spo, knapsack, gain], ids=lambda f: f.__name__)
def test_killed_in_the_middle_of_an_iteration_and_resumed_is_bit_identical(make, tmp_path, monkeypatch, chosen):
    config = make()
    config.checkpoints.every = 2
    reinforce.run(config, tmp_path / "whole")
    if make is gain:  # 16 prompts are two epochs of 8, each prompt once in an epoch
        assert [len(set(chosen[i] + chosen[i + 1])) for i in (0, 2)] == [8, 8]
    with monkeypatch.context() as patch:
        calls = []

        def kill(batch, real=rollouts.silent):
            calls.append(1)
            if len(calls) == 4:  # trackers and curriculum have moved on, the parameters have not
                raise Killed
            return real(batch)

        patch.setattr(rollouts, "silent", kill)
        with pytest.raises(Killed):
            reinforce.run(config, tmp_path / "parts")
    reinforce.run(config, tmp_path / "parts")
    assert test_reinforce.curve(tmp_path / "parts") == test_reinforce.curve(tmp_path / "whole")
    states = [state_of(config, tmp_path / name) for name in ("parts", "whole")]
    assert tiny_runs.digest(states[0]) == tiny_runs.digest(states[1])
    remembered = set(states[0]["method_state"])
    assert (
        remembered
        == {"spo": {"spo", "last_completions"}, "knapsack": {"knapsack_rl"}, "gain": {"gain_rl"}}[make.__name__]
    )
    if make is gain:
        assert 0 < state_of(config, tmp_path / "whole")["method_state"]["gain_rl"]["center"] <= 16


def test_spo_starts_from_its_prior_and_remembers_the_last_completion_of_every_prompt(tmp_path, chosen):
    config = spo()
    config.training.iterations = config.checkpoints.every = 1
    reinforce.run(config, tmp_path)
    prior, first = chosen[:8], chosen[8]
    assert sorted(i for ids in prior[::2] for i in ids) == list(range(32)), "all prompts, twice"
    assert len(set(first)) == 8
    memory = state_of(config, tmp_path)["method_state"]
    evidence = np.asarray(memory["spo"]["successes"]) + np.asarray(memory["spo"]["failures"])
    others = np.setdiff1d(np.arange(32), first)
    np.testing.assert_allclose(evidence[others], 8.0, rtol=1e-5)  # N0 = 1 / (1 - rho_min)
    np.testing.assert_allclose(evidence[first], 8.0 * 0.96 + 1, rtol=1e-5)  # a first visit has no drift
    kept = np.asarray(memory["last_completions"]["mask"])
    assert kept[first].any(axis=1).all() and not kept[others].any()


def test_drifts_are_zero_at_first_and_while_the_policy_stands_still(tmp_path, monkeypatch):
    seen, recall = [], reinforce.alignment.policy_gradients.spo_drifts

    def recorded(now, then, mask):
        seen.append((np.asarray(recall(now, then, mask)), np.asarray(mask).any(axis=1)))
        return seen[-1][0]

    monkeypatch.setattr(reinforce.alignment.policy_gradients, "spo_drifts", recorded)
    for rate in (0.0, 1e-2):
        seen.clear()
        config = spo()
        config.curriculum, config.data.size, config.training.iterations = {}, 8, 2
        config.optimizer.learning_rate = rate
        reinforce.run(config, tmp_path / str(rate))
        (first, known), (second, now_known) = seen
        assert not known.any() and not first.any() and now_known.all()
        assert (second < 1e-4).all() if rate == 0 else (second > 1e-3).all()


def test_knapsack_groups_differ_in_size_by_the_rates_of_the_last_epoch(tmp_path, chosen):
    """Two iterations are an epoch; of each four prompts two are solved always, two every other time."""
    config = knapsack()
    config.rewards = {"reward": {"function": "test_online_curricula:by_prompt"}}
    reinforce.run(config, tmp_path)
    sizes = [sorted(np.unique(ids, return_counts=True)[1]) for ids in chosen]
    assert all(len(ids) == 8 for ids in chosen)
    assert sizes[:2] == [[2] * 4] * 2, "nothing is known in the first epoch"
    assert any(s != [2] * 4 for s in sizes[2:4])


def by_prompt(prompt, completion, record):
    return 1.0 if sum(map(ord, prompt)) % 2 else float(len(completion) % 2)


def test_pcl_trains_on_the_prompts_whose_value_is_nearest_to_tau(tmp_path, chosen, monkeypatch):
    config = tiny(2)
    config.advantages = {"dr_grpo_advantages": {}}
    config.objective = {
        "reinforce": {"weight": 1.0, "reduction": "sequence_mean"}, "pcl_value_loss": {"weight": 1.0}
    }  # fmt: skip
    config.value.model = "separate"
    config.curriculum = {"pcl": {"pool_factor": 2, "tau": 0.5}}
    pools, draw = [], prompt_sets.next_prompts
    monkeypatch.setattr(prompt_sets, "next_prompts", lambda *a: pools.append(draw(*a)) or pools[-1])
    reinforce.run(config, tmp_path)
    for pool, ids in zip(pools, chosen, strict=True):
        assert len(pool) == 8 and len(set(ids)) == 4 and set(ids) <= {p.id for p in pool}
    assert all(r["loss/pcl_value_loss"] > 0 for r in rows(tmp_path))


# --- what else an online run remembers, redraws or keeps beside the policy -------------------------------------------


def ppo(**changes):
    config = tiny(2, **changes)
    config.shaping = {"kl_shaped_rewards": {"beta": 0.05}}
    config.advantages, config.objective = {"gae_whitened": {}}, VALUES
    config.metrics = {"clip_fraction": {}, "approx_kl": {}, "explained_variance": {}}
    config.value.model = "separate"
    return config


def test_a_separate_value_model_learns_at_its_own_rate_and_a_still_policy_stays_as_it_was(tmp_path):
    config = ppo()
    config.optimizer.learning_rate, config.value.learning_rate = 0.0, 1e-2
    reinforce.run(config, tmp_path)
    params = state_of(config, tmp_path)["params"]
    policy, value = heads.policy_params(params), heads.value_params(params)
    assert np.abs(value["embedding"] - policy["embedding"]).max() > 1e-3
    for row in rows(tmp_path):
        assert row["approx_kl"] == pytest.approx(0.0, abs=1e-6) and row["clip_fraction"] == 0.0
        assert row["explained_variance"] <= 1.0


def test_resampling_trains_on_as_many_completions_as_there_were(tmp_path, monkeypatch):
    sizes, put = [], mesh.put_rows

    def watched(device_mesh, rows):
        if isinstance(rows, dict):  # rows to train on, and not prompts to sample from
            sizes.append(rows["mask"].shape[:2])
        return put(device_mesh, rows)

    monkeypatch.setattr(mesh, "put_rows", watched)
    config = tiny(1)
    config.advantages = {"grpo_advantages": {}, "pf_bw_weights": {"gives": "sampling_weights"}}
    reinforce.run(config, tmp_path)
    assert sizes == [(4, 4), (8, 1), (8, 1)]


def test_a_reference_that_becomes_the_policy_after_every_step_is_left_by_one_step_only(tmp_path):
    """k3 against it is 0 at every step: each scores the parameters that the step before wrote into both."""
    for every, still in ((0, False), (1, True)):
        config = tiny(3, training__minibatches=1)
        config.objective = test_reinforce.GRPO
        config.reference.update_every, config.reference.update_weight = every, 1.0
        reinforce.run(config, tmp_path / str(every))
        penalties = [r["loss/kl_k3"] for r in rows(tmp_path / str(every))]
        assert penalties[0] == pytest.approx(0.0, abs=1e-6)
        assert all(p == pytest.approx(0.0, abs=1e-6) for p in penalties[1:]) == still


def test_an_auxiliary_policy_is_solved_for_before_the_one_that_plays_and_on_the_same_rollout(tmp_path, monkeypatch):
    """The loss of onpo is eta^2 / 4 where policy and reference agree: at the first step of either half only."""
    config = tiny(3, training__minibatches=1, training__epochs=2, training__auxiliary=True)
    config.advantages, config.objective = {}, {"onpo": {"weight": 1.0, "eta": 1.0}}
    config.rollout.judge, config.rollout.pairs = "rewards", "best_and_worst"
    config.optimizer.learning_rate = 3e-3
    begun, auxiliary = [], references.auxiliary

    def watched(state):
        new = auxiliary(state)
        begun.append([tiny_runs.digest(jax.device_get(x)) for x in (state.params, state.reference, new)])
        return new

    monkeypatch.setattr(references, "auxiliary", watched)
    reinforce.run(config, tmp_path / "two")
    # What is logged is the last step: it begins where the auxiliary policy, solved for by then, stands.
    assert [r["loss"] for r in rows(tmp_path / "two")] == [pytest.approx(0.25, abs=1e-5)] * 3
    assert all(new == reference for _, reference, new in begun)
    assert begun[0][0] == begun[0][1], "the run begins with both alike"
    assert all(played != reference for played, reference, _ in begun[1:])
    assert len({reference for _, reference, _ in begun}) == 3, "the auxiliary policy moves in every iteration"

    config.training.epochs = 4
    reinforce.run(config, tmp_path / "four")
    assert all(r["loss"] < 0.249 for r in rows(tmp_path / "four")), "the second step of a half has moved"


def test_the_kl_controller_moves_its_coefficient_and_keeps_it_in_the_checkpoint(tmp_path):
    config = tiny(3)
    config.shaping = {"adaptive_kl_rewards": {"beta": 0.05, "target": 1e-2, "horizon": 16}}
    config.advantages = {"reinforce_pp_advantages": {}}
    reinforce.run(config, tmp_path)
    state = state_of(config, tmp_path)["method_state"]["adaptive_kl_rewards"]
    # The first rollout is the reference's own, KL 0, and takes a fifth off; the others are far above the target.
    assert state["kl"] > 1e-2
    assert float(state["beta"]) == pytest.approx(0.05 * 0.8 * 1.2 * 1.2, rel=1e-3)


def test_strata_reach_the_estimator(tmp_path):
    config = tiny(1, rollout__strata="alignment.rewards.strata:number_of_characters")
    config.advantages = {"stratified_grpo_advantages": {"alpha": 1.0}}
    config.rewards = {"reward": {"function": "alignment.rewards.strata:number_of_characters"}}
    reinforce.run(config, tmp_path)
    (row,) = rows(tmp_path)
    assert row["zero_gradient_groups"] == 1.0, "within a stratum all rewards are alike"
    assert row["groups_alike"] < 1.0


def not_an_int(prompt, completion, record):
    return "long"


@pytest.mark.parametrize(
    "change,words",
    [
        (lambda c: setattr(c, "curriculum", {"pcll": {}}), "config.curriculum.pcll: no such curriculum; nearest: pcl"),
        (lambda c: setattr(c, "curriculum", {"pcl": {}, "gain_rl": {}}), "one at a time, got gain_rl and pcl"),
        (lambda c: setattr(c, "curriculum", {"pcl": {"taw": 1}}), "config.curriculum.pcl.taw: unknown key"),
        (lambda c: setattr(c, "curriculum", {"pcl": {}}), "config.model.reward_heads: the run reads a value head"),
        (lambda c: setattr(c, "curriculum", {"spo": {}}), "reads the memory of an estimator 'spo'"),
        (
            lambda c: setattr(c, "curriculum", {"knapsack_rl": {"rows_per_prompt": 3}}),
            "config.curriculum.knapsack_rl: rows_per_prompt must divide the 4 rows",
        ),
        (
            lambda c: (setattr(c, "curriculum", {"gain_rl": {}}), c.rollout.update(dynamic_sampling=True)),
            "config.rollout.dynamic_sampling: draws prompts by itself",
        ),
        (lambda c: c.value.update(model="own"), "config.value.model: 'own' is not one of"),
        (lambda c: c.value.update(model="separate"), "config.value.model: no term of the objective trains"),
        (lambda c: c.value.update(learning_rate=0.1), "config.value.learning_rate: is of a separate value model"),
        (
            lambda c: (c.value.update(model="separate"), c.model.update(reward_heads=1)),
            "config.model.reward_heads: a separate value model has a head of its own",
        ),
        (
            lambda c: c.rollout.update(strata="alignment.rewards.strata:number_of_words"),
            "config.rollout.strata: no kernel of this run asks for strata",
        ),
        (lambda c: setattr(c, "advantages", {"stratified_grpo_advantages": {}}), "needs the column 'strata'"),
        (
            lambda c: setattr(c, "advantages", {"spo": {"num_prompts": 3}}),
            "config.advantages.spo.num_prompts: 3 places for prompts numbered up to 31",
        ),
    ],
)
def test_a_config_that_cannot_work_is_refused_before_anything_is_sampled(tmp_path, change, words, monkeypatch):
    monkeypatch.setattr(rollouts, "to_rows", lambda *a: pytest.fail("it was sampled from"))
    config = tiny(2)
    change(config)
    with pytest.raises(ValueError, match=words):
        reinforce.run(config, tmp_path)


@pytest.mark.parametrize("source", ["test_online_curricula:not_an_int", "nowhere:f", "nothing"])
def test_strata_that_are_no_numbers_are_named(tmp_path, source):
    config = tiny(1, rollout__strata=source)
    config.advantages = {"stratified_grpo_advantages": {}}
    with pytest.raises(ValueError, match=r"config\.rollout\.strata"):
        reinforce.run(config, tmp_path)


def test_the_memory_of_completions_is_of_the_length_that_is_sampled():
    assert last_completions.init(3, 7).tokens.shape == (3, 7)
    assert jax.device_count() >= 1
