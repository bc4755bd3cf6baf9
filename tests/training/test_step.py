"""One step: micro-batches, reductions, method state, and what happens to a step that is not finite."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny_steps

from alignment import objective, statistics
from alignment.losses import reductions
from alignment.training import step

DPO = {"dpo": {"weight": 1.0, "beta": 0.5}}
REDUCTIONS = {
    "token_mean": {"reduction": "token_mean"},
    "sequence_mean": {"reduction": "sequence_mean"},
    "constant": {"reduction": "constant", "reduction_length": 7},
}
OBJECTIVES = {
    "dpo": DPO,
    "lcpo": {"lcpo": {"weight": 1.0, "beta": 0.5, "num_annotators": 3}},
    **{f"dpo+sft {k}": DPO | {"sft": {"weight": 0.7, "side": "chosen", **v}} for k, v in REDUCTIONS.items()},
}
METRICS = {"reward_accuracy": {}, "reward_margin": {}, "token_nll": {"side": "rejected", "reduction": "sequence_mean"}}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_micro_batches_give_the_one_batch(name):
    # Two rows of padding, so that micro-batches weigh differently and a mean of means would be found out.
    batch = tiny_steps.batch(8, padding=2)
    before, whole, logs = tiny_steps.take(OBJECTIVES[name], batch, metrics=METRICS)
    gradient = tiny_steps.difference(before, whole)
    assert all(np.abs(g).max() > 0 for g in jax.tree.leaves(gradient))
    for accumulate in (4,) if name != "dpo" else (2, 4):
        _, split, split_logs = tiny_steps.take(OBJECTIVES[name], batch, metrics=METRICS, accumulate=accumulate)
        for key, value in logs.items():
            np.testing.assert_allclose(split_logs[key], value, rtol=2e-5, atol=1e-6, err_msg=f"{key} {accumulate=}")
        tiny_steps.assert_equal_up_to(tiny_steps.difference(before, split), gradient, 2e-4)
        for got, want in zip(jax.tree.leaves(split.method_state), jax.tree.leaves(whole.method_state), strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-5)


def test_state_of_a_method_moves_and_counts_no_padding():
    spec = OBJECTIVES["lcpo"]
    before, after, _ = tiny_steps.take(spec, tiny_steps.batch(6))
    assert np.all(np.asarray(before.method_state["lcpo"].eta) != np.asarray(after.method_state["lcpo"].eta))


@pytest.mark.parametrize("name", ["dpo", "dpo+sft token_mean", "dpo+sft sequence_mean", "dpo+sft constant"])
def test_rows_that_only_pad_change_nothing(name):
    _, want, want_logs = tiny_steps.take(OBJECTIVES[name], tiny_steps.batch(6), metrics=METRICS)
    before, got, got_logs = tiny_steps.take(OBJECTIVES[name], tiny_steps.batch(8, padding=2), metrics=METRICS)
    np.testing.assert_allclose(got_logs["loss"], want_logs["loss"], rtol=1e-5)
    tiny_steps.assert_equal_up_to(tiny_steps.difference(before, got), tiny_steps.difference(before, want), 2e-4)


@pytest.mark.parametrize("name", REDUCTIONS)
def test_loss_is_the_weighted_sum_of_reduced_terms(name):
    """The division, by hand: log-probs from one plain forward pass, reduced with numpy."""
    batch = tiny_steps.batch(6)
    _, _, logs = tiny_steps.take(OBJECTIVES[f"dpo+sft {name}"], batch)
    params, reference = tiny_steps.params_and_reference()

    def logps(p):
        hidden, _ = tiny_steps.MODEL.hidden(p, batch["tokens"], batch["positions"], batch["segment_ids"])
        logp = np.asarray(jax.nn.log_softmax(tiny_steps.MODEL.unembed(p, hidden)), np.float64)
        rows, sides, _ = np.ogrid[:6, :2, :1]
        del sides
        return np.where(batch["mask"], logp[rows, batch["predict_from"], batch["targets"]], 0.0)

    policy, mask = logps(params), batch["mask"][:, 0]
    ratio = (policy - logps(reference)).sum(-1)
    dpo = np.logaddexp(0, -0.5 * (ratio[:, 0] - ratio[:, 1])).mean()
    nll = -policy[:, 0]
    sft = {
        "token_mean": nll.sum() / mask.sum(),
        "sequence_mean": (nll.sum(-1) / mask.sum(-1)).mean(),
        "constant": nll.sum() / (6 * 7),
    }[name]
    np.testing.assert_allclose(logs["loss/dpo"], dpo, rtol=1e-4)
    np.testing.assert_allclose(logs["loss/sft"], sft, rtol=1e-4)
    np.testing.assert_allclose(logs["loss"], dpo + 0.7 * sft, rtol=1e-4)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_step_that_is_not_finite_changes_nothing_and_is_counted(accumulate):
    params, _ = tiny_steps.params_and_reference()
    before, after, logs = tiny_steps.take(
        OBJECTIVES["lcpo"], tiny_steps.batch(8), accumulate=accumulate, optimizer=optax.adamw(1e-2),
        params=tiny_steps.poisoned(params), steps=2,
    )  # fmt: skip
    for name in ("params", "opt_state", "method_state"):
        for got, want in zip(
            jax.tree.leaves(getattr(after, name)), jax.tree.leaves(getattr(before, name)), strict=True
        ):
            np.testing.assert_array_equal(got, want)
    assert (int(after.step), int(after.skipped), int(after.skipped_in_a_row)) == (2, 2, 2)
    assert logs["skipped"] == logs["skipped_in_a_row"] == 2
    assert not np.array_equal(jax.random.key_data(after.rng), jax.random.key_data(before.rng))


def test_a_gradient_that_is_not_finite_is_enough_to_skip():
    """Finite loss, infinite gradient: d sqrt(x) at 0."""
    terms = (objective.Term("x", None, (), {}, 1.0, reductions.example_mean, "", None, False),)

    def losses(params, frozen, states, rows):
        return {"x": jnp.sqrt(params["w"]) * rows["valid"].sum()}, {}, {}

    from alignment.training import state

    tx = optax.sgd(0.1)
    function = step.make_step(losses, terms, (), ("",), tx)
    batch = {"valid": jnp.ones(2, bool)}
    after, logs = function(state.create({"w": jnp.zeros(())}, tx, {}, jax.random.key(0)), {}, batch)
    assert float(logs["loss"]) == 0.0 and float(after.params["w"]) == 0.0 and int(after.skipped) == 1
    # The count in a row ends with the next good step; the count of all stays.
    after, _ = function(after.replace(params={"w": jnp.ones(())}), {}, batch)
    assert (int(after.skipped), int(after.skipped_in_a_row), int(after.step)) == (1, 0, 2)
    np.testing.assert_allclose(after.params["w"], 0.95)


def test_every_step_has_its_own_key():
    keys = [np.asarray(jax.random.key_data(tiny_steps.take(DPO, tiny_steps.batch(2), steps=k)[1].rng)) for k in (1, 2)]
    assert not np.array_equal(*keys)


def test_only_named_statistics_are_asked_for():
    """No `reference_*` argument, no forward pass of a reference."""
    import alignment.losses

    sft = objective.bind({"sft": {"side": "chosen"}}, alignment.losses, "objective", tiny_steps.SIDES, ())
    assert not statistics.needs_of(objective.names_of(sft)).models
    dpo = objective.bind(DPO, alignment.losses, "objective", tiny_steps.SIDES, ())
    assert statistics.needs_of(objective.names_of(dpo)).models == {"reference"}


def test_evaluation_adds_up_to_the_loss_of_the_whole():
    import alignment.losses
    import alignment.metrics

    terms = objective.bind(OBJECTIVES["dpo+sft token_mean"], alignment.losses, "objective", tiny_steps.SIDES, ())
    shown = objective.bind(METRICS, alignment.metrics, "metrics", tiny_steps.SIDES, ())
    losses = step.make_losses(tiny_steps.MODEL, {"reference": tiny_steps.MODEL}, terms, shown, tiny_steps.SIDES)
    evaluate = jax.jit(step.make_evaluation(losses, terms, shown, tiny_steps.SIDES))
    params, reference = tiny_steps.params_and_reference()
    batch = tiny_steps.batch(6)
    sums, weights = {}, {}
    for rows in (slice(0, 3), slice(3, 6)):
        for total, part in zip(
            (sums, weights),
            evaluate(params, {"reference": reference}, {}, {k: v[rows] for k, v in batch.items()}),
            strict=True,
        ):
            for key, value in part.items():
                total[key] = total.get(key, 0) + float(value)
    _, _, logs = tiny_steps.take(OBJECTIVES["dpo+sft token_mean"], batch, metrics=METRICS)
    for term in ("dpo", "sft"):
        np.testing.assert_allclose(sums[term] / weights[term], logs[f"loss/{term}"], rtol=1e-5)
    for metric in METRICS:
        np.testing.assert_allclose(sums[metric] / weights[metric], logs[metric], rtol=1e-4, atol=1e-6)
