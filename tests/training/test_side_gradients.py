"""Gradients of the two sides of every pair: against plain autodiff, as a diagnostic, and as a step."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny_steps
from jax.flatten_util import ravel_pytree

import alignment.losses
from alignment import analysis, objective
from alignment.training import side_gradients

DPO = {"dpo": {"weight": 1.0, "beta": 0.5}}
OBJECTIVES = {
    "dpo": DPO,
    "ipo, twice dpo": {
        "ipo": {"weight": 0.3, "tau": 0.2},
        **DPO,
        "more": {"kernel": "dpo", "weight": 2.0, "beta": 0.1},
    },
    "ipo_length_normalized": {"ipo_length_normalized": {"weight": 1.0, "tau": 0.2}},
    "lcpo": {"lcpo": {"weight": 1.0, "beta": 0.5, "num_annotators": 3}},
}
METRICS = {"reward_accuracy": {}, "token_nll": {"side": "rejected"}}


def bound(spec):
    return objective.bind(spec, alignment.losses, "objective", tiny_steps.SIDES, tiny_steps.COLUMNS)


@functools.cache
def _oracle(size):
    """Log-probs [B, 2] and flat gradients [B, 2, P]: a plain forward pass with all logits, one backward pass each."""
    batch = tiny_steps.batch(size)
    params, reference = tiny_steps.params_and_reference()
    flat, unravel = ravel_pytree(params)

    def logps(p):
        p = unravel(p)
        hidden, _ = tiny_steps.MODEL.hidden(p, batch["tokens"], batch["positions"], batch["segment_ids"])
        logp = jax.nn.log_softmax(tiny_steps.MODEL.unembed(p, hidden))
        rows = np.arange(size)[:, None, None]
        return jnp.where(batch["mask"], logp[rows, batch["predict_from"], batch["targets"]], 0.0).sum(-1)

    logps = jax.jit(logps)
    # Not jacrev: its vmapped backward pass through the decoder gave wrong gradients of the embedding (jax 0.10.2).
    gradient = jax.jit(jax.grad(lambda p, row, side: logps(p)[row, side]))
    gradients = jnp.stack([jnp.stack([gradient(flat, row, side) for side in (0, 1)]) for row in range(size)])
    return logps(flat), logps(ravel_pytree(reference)[0]), gradients, unravel, logps, flat


def found(spec, size=4, **keys):
    params, reference = tiny_steps.params_and_reference()
    terms = bound(spec)
    measure = side_gradients.make_entanglement(
        tiny_steps.MODEL, {"reference": tiny_steps.MODEL}, terms, tiny_steps.SIDES
    )
    batch = tiny_steps.batch(size, **keys)
    return jax.jit(measure)(params, {"reference": reference}, objective.initial_states(terms), batch)


def test_products_are_those_of_plain_autodiff():
    values, reference, gradients, *_ = _oracle(4)
    d_w, d_l = analysis.margin_coefficients(
        lambda w, l: alignment.losses.dpo(w, l, reference[:, 0], reference[:, 1], beta=0.5), *values.T
    )
    want = analysis.gradient_entanglement(gradients[:, 0], gradients[:, 1], d_w, d_l)
    for name, got, expected in zip(want._fields, found(DPO), want, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4, err_msg=name)


def test_the_coefficients_are_those_of_all_terms_with_their_weights():
    """By the two changes: they are linear in d_w and d_l, and the products are known."""
    values, reference, gradients, *_ = _oracle(4)
    lengths = tiny_steps.batch(4)["mask"].sum(-1)

    def loss(name):
        pairs = (reference[:, 0], reference[:, 1])
        return {
            "ipo, twice dpo": lambda w, l: (
                0.3 * alignment.losses.ipo(w, l, *pairs, tau=0.2)
                + alignment.losses.dpo(w, l, *pairs, beta=0.5)
                + 2 * alignment.losses.dpo(w, l, *pairs, beta=0.1)
            ),
            "ipo_length_normalized": lambda w, l: alignment.losses.ipo_length_normalized(
                w, l, *pairs, *map(jnp.asarray, lengths.T), tau=0.2
            ),
        }[name]

    for name in ("ipo, twice dpo", "ipo_length_normalized"):
        d = analysis.margin_coefficients(loss(name), *values.T)
        want = analysis.gradient_entanglement(gradients[:, 0], gradients[:, 1], *d)
        got = found(OBJECTIVES[name])
        np.testing.assert_allclose(got.chosen_change, want.chosen_change, rtol=1e-3)
        np.testing.assert_allclose(got.rejected_change, want.rejected_change, rtol=1e-3)


def test_predicted_changes_are_those_of_a_small_step_to_second_order():
    """Plain gradient descent on one pair: the error of the prediction falls with the square of the rate."""
    values, reference, gradients, _, logps, flat = _oracle(4)
    got = found(DPO)
    errors = []
    for rate in (2e-3, 1e-3, 5e-4):
        error = []
        for i in range(4):
            d = 0.5 * jax.nn.sigmoid(-0.5 * ((values[i] - reference[i]) @ jnp.array([1.0, -1.0])))
            moved = logps(flat + rate * d * (gradients[i, 0] - gradients[i, 1]))[i]
            predicted = rate * jnp.stack([got.chosen_change[i], got.rejected_change[i]])
            assert np.all(np.sign(moved - values[i]) == np.sign(predicted))
            error.append(np.abs(moved - values[i] - predicted))
        errors.append(np.mean(error))
    assert errors[0] / errors[1] > 3 and errors[1] / errors[2] > 3, errors


def test_padding_counts_in_no_mean():
    terms = bound(DPO)
    params, reference = tiny_steps.params_and_reference()
    evaluate = side_gradients.make_evaluation(
        tiny_steps.MODEL, {"reference": tiny_steps.MODEL}, terms, tiny_steps.SIDES
    )
    means = []
    for batch in (tiny_steps.batch(4), tiny_steps.batch(6, padding=2)):
        sums, weights = jax.jit(evaluate)(params, {"reference": reference}, {}, batch)
        means.append({k: float(sums[k] / weights[k]) for k in sums})
        cases = sum(means[-1][f"entanglement/{n}"] for n in ("ideal", "both_up", "both_down", "reversed"))
        np.testing.assert_allclose(cases, 1.0, rtol=1e-6)
    for key, value in means[0].items():
        np.testing.assert_allclose(means[1][key], value, rtol=1e-4, err_msg=key)


# --- the step ---------------------------------------------------------------------------------------------------------


def test_the_step_is_the_mean_of_the_pairs_directions():
    values, reference, gradients, unravel, *_ = _oracle(4)
    d = 0.5 * jax.nn.sigmoid(-0.5 * ((values - reference) @ jnp.array([1.0, -1.0])))
    direction = analysis.pairwise_normalized_direction(gradients[:, 0], gradients[:, 1], d)
    before, after, _ = tiny_steps.take(DPO, tiny_steps.batch(4), pairwise=True)
    # Gradient descent at rate 1: what is taken off the parameters is minus the ascent.
    tiny_steps.assert_equal_up_to(
        jax.tree.map(np.negative, tiny_steps.difference(before, after)), unravel(direction.mean(0)), 5e-3
    )


def test_one_pair_moves_both_sides_the_right_way():
    before, after, _ = tiny_steps.take(DPO, tiny_steps.batch(1), pairwise=True, optimizer=optax.sgd(1e-2))
    values = []
    for params in (before.params, after.params):
        *_, logps, _ = _oracle(4)
        values.append(logps(ravel_pytree(params)[0])[0])
    change = np.asarray(values[1] - values[0])
    assert change[0] > 0 > change[1]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_losses_metrics_and_method_state_are_those_of_the_ordinary_step(name):
    batch = tiny_steps.batch(6, padding=2)
    _, ordinary, want = tiny_steps.take(OBJECTIVES[name], batch, metrics=METRICS)
    _, after, got = tiny_steps.take(OBJECTIVES[name], batch, metrics=METRICS, pairwise=True)
    assert set(got) == set(want)
    for key in set(want) - {"grad_norm"}:
        np.testing.assert_allclose(got[key], want[key], rtol=1e-5, atol=1e-6, err_msg=key)
    for x, y in zip(jax.tree.leaves(after.method_state), jax.tree.leaves(ordinary.method_state), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5)
    assert 0 < got["grad_norm"] != want["grad_norm"]


@pytest.mark.parametrize("name", ["ipo, twice dpo", "lcpo"])
def test_micro_batches_and_devices_give_the_one_batch(name):
    batch = tiny_steps.batch(8, padding=2)
    take = functools.partial(tiny_steps.take, OBJECTIVES[name], batch, metrics=METRICS, pairwise=True)
    before, whole, logs = take()
    gradient = tiny_steps.difference(before, whole)
    assert all(np.abs(g).max() > 0 for g in jax.tree.leaves(gradient))
    for other in ({"accumulate": 4}, {"devices": 2, "shape": {"data": 1, "fsdp": 2}}):
        _, split, split_logs = take(**other)
        for key, value in logs.items():
            np.testing.assert_allclose(split_logs[key], value, rtol=2e-5, atol=1e-6, err_msg=f"{key} {other}")
        tiny_steps.assert_equal_up_to(tiny_steps.difference(before, split), gradient, 1e-3)


def test_rows_that_only_pad_change_nothing():
    _, want, _ = tiny_steps.take(DPO, tiny_steps.batch(4), pairwise=True)
    before, got, _ = tiny_steps.take(DPO, tiny_steps.batch(6, padding=2), pairwise=True)
    tiny_steps.assert_equal_up_to(tiny_steps.difference(before, got), tiny_steps.difference(before, want), 1e-3)


def test_a_step_that_is_not_finite_changes_nothing():
    params, _ = tiny_steps.params_and_reference()
    before, after, _ = tiny_steps.take(DPO, tiny_steps.batch(4), params=tiny_steps.poisoned(params), pairwise=True)
    for got, want in zip(jax.tree.leaves(after.params), jax.tree.leaves(before.params), strict=True):
        np.testing.assert_array_equal(got, want)
    assert int(after.skipped) == 1


@pytest.mark.parametrize(
    "spec,words",
    [
        (DPO | {"sft": {"weight": 0.1, "side": "chosen"}}, "'sft' trains 'policy_chosen_token_logps'"),
        ({"tdpo1": {"weight": 1.0}}, "'tdpo1' trains 'policy_chosen_token_forward_kls'"),
        ({"bt_reward_loss": {"weight": 1.0}}, "'bt_reward_loss' trains 'chosen_rewards'"),
    ],
)
def test_an_objective_that_reads_more_of_the_policy_is_refused(spec, words):
    for make, key in (
        (lambda t: side_gradients.make_gradient(None, {}, t, (), tiny_steps.SIDES), "config.training.gradient"),
        (lambda t: side_gradients.make_entanglement(None, {}, t, tiny_steps.SIDES), "gradient_entanglement"),
    ):
        with pytest.raises(ValueError, match=rf"{key}: {words}"):
            make(bound(spec))
