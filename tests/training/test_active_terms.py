"""Terms of an objective that are active in a part of the training: which count, when, and what is refused."""

import jax.numpy as jnp
import numpy as np
import pytest
import tiny_steps

import alignment.losses
import alignment.metrics
import alignment.policy_gradients
from alignment import objective
from alignment.losses import reductions
from alignment.losses.stateful import StatefulKernel

DPO, SFT = {"beta": 0.5}, {"side": "chosen", "weight": 0.7}


def bind(spec, steps, namespace=alignment.losses, kind="objective"):
    return objective.bind(spec, namespace, kind, tiny_steps.SIDES, (), steps=steps)


def in_turn(first, second):
    return {"dpo": {**DPO, "active": first}, "sft": {**SFT, "active": second}}


def test_the_steps_before_and_after_a_switch_are_those_of_each_term_alone():
    """Also where the batch is taken in micro-batches, which the single terms are not."""
    batch = tiny_steps.batch(8, padding=2)
    before, first, dpo = tiny_steps.take({"dpo": DPO}, batch)
    _, second, sft = tiny_steps.take({"sft": SFT}, batch, params=first.params)
    spec = in_turn((0.0, 0.5), (0.5, 1.0))
    for steps, want, alone in ((1, first, dpo), (2, second, sft)):
        _, got, logs = tiny_steps.take(spec, batch, accumulate=2, steps=steps, total=2)
        np.testing.assert_allclose(logs["loss"], alone["loss"], rtol=2e-5)
        tiny_steps.assert_equal_up_to(tiny_steps.difference(before, got), tiny_steps.difference(before, want), 2e-4)
    assert logs["loss/dpo"] > 0 and logs["loss"] == pytest.approx(0.7 * logs["loss/sft"])  # both are shown at all times


def test_the_loss_is_the_sum_of_the_terms_whose_interval_holds_the_step():
    spec = {
        "dpo": {**DPO, "weight": 2.0, "active": (0.0, 0.3)},
        "sft": {**SFT, "active": [0.1, 1]},
        "again": {"kernel": "sft", "side": "rejected", "weight": 5.0},
        "whole": {"kernel": "sft", "side": "rejected", "active": (0.0, 1.0)},
    }
    terms = bind(spec, 10)
    assert [t.active for t in terms] == [(0, 3), (1, 10), None, None]
    parts = {"dpo": 1.0, "sft": 10.0, "again": 100.0, "whole": 1000.0}
    for step in range(10):
        want = 1500.0 + 2.0 * (step < 3) + 7.0 * (step >= 1)
        assert float(objective.total(terms, parts, step)) == pytest.approx(want)
        assert float(objective.total(terms, parts, jnp.int32(step))) == pytest.approx(want)
    later = float(objective.total(terms, parts | {"dpo": float("nan")}, 5))
    assert later == pytest.approx(1507.0)  # what is not active is no part of the loss, whatever its value


@pytest.mark.parametrize("steps", [2, 7, 30, 999])
def test_neighbours_that_share_an_end_leave_no_step_out_and_none_to_both(steps):
    for share in (0.3, 0.5, 0.7):
        dpo, sft = bind(in_turn((0.0, share), (share, 1.0)), steps)
        assert dpo.active[0] == 0 and dpo.active[1] == sft.active[0] and sft.active[1] == steps


def test_the_memory_of_a_method_rests_while_its_term_does():
    method = StatefulKernel(lambda: jnp.zeros(()), None, lambda state, aux: state + aux)
    term = objective.Term("x", None, (), {}, 1.0, reductions.example_mean, "", method, False, (1, 2))
    states, kept = {"x": jnp.float32(3.0), "other": jnp.float32(1.0)}, {"x": jnp.float32(4.0)}
    for step, want in enumerate((3.0, 7.0, 3.0)):
        moved = objective.update_states((term,), states, kept, jnp.int32(step))
        assert (float(moved["x"]), float(moved["other"])) == (want, 1.0)


@pytest.mark.parametrize(
    "active", [(0.5, 0.5), (0.7, 0.2), (-0.1, 0.5), (0.5, 1.1), (0.5,), 0.5, "ab", (0.0, float("nan")), (False, True)]
)
def test_an_interval_that_is_none_is_named(active):
    with pytest.raises(ValueError, match=r"config.objective.sft.active: must be two shares of the training, 0 <= from"):
        bind({"dpo": DPO, "sft": {**SFT, "active": active}}, 10)


def test_an_interval_without_a_step_is_named():
    with pytest.raises(ValueError, match=r"sft.active: \(0.0, 0.1\) is no whole step of the 4 of this run"):
        bind({"dpo": DPO, "sft": {**SFT, "active": (0.0, 0.1)}}, 4)


@pytest.mark.parametrize(
    ("first", "second", "step"), [((0.1, 1.0), (0.2, 0.3), 0), ((0.0, 0.4), (0.5, 1.0), 4), ((0.0, 0.8), (0.2, 0.9), 9)]
)
def test_a_moment_without_a_term_is_named(first, second, step):
    with pytest.raises(ValueError, match=rf"config.objective: no term is active at step {step} of 10, from 0"):
        bind(in_turn(first, second), 10)


def test_who_does_not_know_how_long_it_trains_refuses_the_key():
    with pytest.raises(ValueError, match=r"objective.dpo.active: only terms of the objective of experiments.finetune"):
        bind(in_turn((0.0, 0.5), (0.5, 1.0)), None)
    with pytest.raises(ValueError, match=r"metrics.token_nll.active: only terms of the objective"):
        bind({"token_nll": {"side": "chosen", "active": (0.0, 0.5)}}, None, alignment.metrics, "metrics")
    with pytest.raises(ValueError, match=r"advantages.grpo_advantages.active: belongs to terms of an objective"):
        objective.bind_estimators(
            {"grpo_advantages": {"active": (0.0, 0.5)}}, alignment.policy_gradients, "advantages",
            ("advantages", "token_advantages"), ["rewards", "group_ids", "valid"],
        )  # fmt: skip
