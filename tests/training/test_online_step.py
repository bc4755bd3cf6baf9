"""The step on minibatches of rollouts: each reduction over ragged completions, alike for micro-batches and devices."""

import functools

import jax
import numpy as np
import optax
import pytest
import tiny_steps

import alignment.policy_gradients
from alignment import objective, statistics
from alignment.training import mesh, rollouts, state, step

PROMPTS, GROUP, WIDTH, T = 8, 3, 6, 5
REDUCTIONS = {
    "token_mean": {"reduction": "token_mean"},
    "sequence_mean": {"reduction": "sequence_mean"},
    "constant": {"reduction": "constant", "reduction_length": 7},
    "sequence_sum": {"reduction": "sequence_sum"},
}
# One objective with a term for each, so that one compilation serves all: their sums are logged apart.
SPEC = {name: {"kernel": "ppo", "weight": 1.0 + i, **r} for i, (name, r) in enumerate(REDUCTIONS.items())}
SPEC |= {"kl": {"kernel": "kl_k3", "weight": 0.5, "reduction": "sequence_mean"}, "gmpo": {"weight": 0.3}}


@functools.cache
def minibatch():
    """Ragged completions, one without a token, some that do not count and a whole group of those."""
    rng = np.random.default_rng(0)
    prompt_mask = np.arange(WIDTH) >= rng.integers(0, WIDTH - 1, PROMPTS)[:, None]
    prompts = np.where(prompt_mask, rng.integers(0, 256, (PROMPTS, WIDTH)), 0)
    mask = np.arange(T) < rng.integers(1, T + 1, PROMPTS * GROUP)[:, None]
    mask[4] = False
    drawn = rollouts.Rollout(rng.integers(0, 256, mask.shape), mask, -rng.gamma(2.0, 2.0, mask.shape))
    batch = rollouts.to_rows(prompts, prompt_mask, drawn, GROUP, np.arange(PROMPTS))
    # Near enough to the policy's own for ratios on both sides of the clip.
    own = statistics.compute(
        statistics.Needs(frozenset({"token_logps"}), {}, frozenset()), tiny_steps.MODEL, params(), {}, batch
    )["policy_token_logps"]
    for name in ("behaviour_token_logps", "reference_token_logps"):
        noise = 0.4 * rng.normal(size=own.shape)
        batch[name] = np.where(batch["mask"], own + noise, 0.0).astype(np.float32)
    batch["advantages"] = rng.normal(size=own.shape[:2]).astype(np.float32)
    batch["token_advantages"] = np.where(batch["mask"], rng.normal(size=own.shape), 0.0).astype(np.float32)
    batch["valid"] = rng.random((PROMPTS, GROUP)) < 0.8
    batch["valid"][5] = False
    return batch, np.asarray(own, np.float64)


def params():
    return tiny_steps.MODEL.init(jax.random.key(0))


def take(batch, *, accumulate=1, shape=None, devices=1):
    """One step of plain gradient descent; (logs, gradient)."""
    terms = objective.bind(SPEC, alignment.policy_gradients, "objective", statistics.EACH, list(batch))
    losses = step.make_losses(tiny_steps.MODEL, {}, terms, (), statistics.EACH)
    optimizer = optax.sgd(1.0)
    function = step.make_step(losses, terms, (), statistics.EACH, optimizer, accumulate=accumulate)
    before = state.create(params(), optimizer, {}, jax.random.key(5))
    device_mesh = mesh.make_mesh(shape or {"data": 1}, jax.devices()[:devices])
    shardings = mesh.parameter_sharding(device_mesh, jax.eval_shape(lambda: before))
    run = jax.jit(function, out_shardings=(shardings, mesh.replicated(device_mesh)))
    after, logs = run(jax.device_put(before, shardings), {}, mesh.put_batch(device_mesh, batch))
    return {k: float(v) for k, v in logs.items()}, tiny_steps.difference(before, after)


@functools.cache
def whole():
    return take(minibatch()[0])


def test_each_reduction_is_the_one_taken_by_hand():
    batch, own = minibatch()
    ratio = np.exp(own - batch["behaviour_token_logps"])
    advantages = batch["token_advantages"]
    values = -np.minimum(ratio * advantages, np.clip(ratio, 0.8, 1.2) * advantages)
    counts = batch["mask"] & batch["valid"][..., None]
    sums, lengths = np.where(counts, values, 0.0).sum(-1), counts.sum(-1)
    rows = (lengths > 0).sum()
    by_hand = {
        "token_mean": sums.sum() / counts.sum(),
        "sequence_mean": (sums / np.maximum(lengths, 1)).sum() / rows,
        "constant": sums.sum() / (7 * rows),
        "sequence_sum": sums.sum() / rows,
    }
    for name, expected in by_hand.items():
        np.testing.assert_allclose(whole()[0][f"loss/{name}"], expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("accumulate", "shape"),
    [(4, None), (1, {"data": 8}), (2, {"data": 2, "fsdp": 2, "tensor": 2})],
    ids=["accumulate4", "data8", "data2-fsdp2-tensor2-accumulate2"],
)
def test_micro_batches_and_eight_devices_equal_the_one_batch(accumulate, shape):
    logs, gradient = whole()
    assert all(np.abs(g).max() > 0 for g in jax.tree.leaves(gradient))
    split_logs, split = take(minibatch()[0], accumulate=accumulate, shape=shape, devices=8 if shape else 1)
    for key, value in logs.items():
        np.testing.assert_allclose(split_logs[key], value, rtol=3e-5, atol=1e-6, err_msg=key)
    tiny_steps.assert_equal_up_to(split, gradient, 3e-4)


def test_what_does_not_count_has_no_say():
    """Completions that are not valid may hold anything."""
    batch = dict(minibatch()[0])
    out = ~batch["valid"]
    for name in ("behaviour_token_logps", "reference_token_logps", "token_advantages"):
        batch[name] = np.where(out[..., None], 9.0, batch[name]).astype(np.float32)
    batch["advantages"] = np.where(out, -9.0, batch["advantages"]).astype(np.float32)
    logs, gradient = take(batch)
    assert logs["loss"] == whole()[0]["loss"]
    tiny_steps.assert_equal_up_to(gradient, whole()[1], 0.0)
