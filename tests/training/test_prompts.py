"""Passes over prompts alone: the same numbers as a rollout gives at the prompt's end, whatever the padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment import statistics
from alignment.models import decoder, heads
from alignment.training import prompts, rollouts

CONFIG = decoder.DecoderConfig(
    vocab_size=24, hidden_size=32, intermediate_size=32, num_layers=2, num_heads=4, num_kv_heads=2,
    max_position_embeddings=32,
)  # fmt: skip
MODEL = decoder.build(CONFIG)
PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12]]


@pytest.fixture(scope="module")
def params():
    params = jax.tree.map(lambda a: 8 * a if a.ndim > 1 else a, MODEL.init(jax.random.key(0)))
    return heads.add_reward_heads(CONFIG, params, jax.random.key(1))[1]


def test_values_are_the_first_token_values_of_a_rollout_of_the_prompt(params):
    tokens, mask = rollouts.pad_prompts(PROMPTS, 5, 0)
    drawn = np.full((6, 3), 4, np.int32)
    rollout = rollouts.Rollout(drawn, drawn > 0, np.zeros(drawn.shape, np.float32))
    batch = rollouts.to_rows(tokens, mask, rollout, 2, np.arange(3))
    needs = statistics.needs_of(["prompt_values"])
    assert needs.head == {"token_values"}
    computed = statistics.compute(needs, MODEL, params, {}, batch)
    got = statistics.deliver("prompt_values", statistics.EACH, computed, batch)
    want = prompts.values(MODEL, params, tokens, mask)
    np.testing.assert_allclose(got, np.repeat(want, 2), atol=1e-5)
    assert np.ptp(want) > 1e-3
    both = heads.policy_params(params) | {heads.VALUE_MODEL: params}
    np.testing.assert_array_equal(prompts.values(MODEL, both, tokens, mask), want)


def test_gradients_of_the_last_up_projection_lie_in_the_span_of_its_inputs(params):
    """The gradient of a linear layer is the sum over tokens of x g^T, whatever is made of its outputs."""
    for prompt in PROMPTS:
        tokens, mask = rollouts.pad_prompts([prompt], len(prompt), 0)
        inputs = np.asarray(prompts.last_mlp_inputs(MODEL, params, tokens, mask))[0]
        noise = jax.random.normal(jax.random.key(2), (1, len(prompt), CONFIG.hidden_size))

        def output(up, tokens=tokens, mask=mask, noise=noise):
            layers = {**params["layers"], "up": params["layers"]["up"].at[-1].set(up)}
            return jnp.sum(prompts._hidden(MODEL, {**params, "layers": layers}, tokens, mask) * noise)

        gradient = np.asarray(jax.grad(output)(params["layers"]["up"][-1]))
        basis, _ = np.linalg.qr(inputs.T)
        beyond = gradient - basis @ (basis.T @ gradient)
        assert np.abs(gradient).max() > 1e-3
        assert np.abs(beyond).max() < 1e-5 * np.abs(gradient).max()


def test_concentrations_do_not_depend_on_padding_and_are_one_for_a_single_token(params):
    tight = [prompts.concentrations(MODEL, params, *rollouts.pad_prompts([p], len(p), 0))[0] for p in PROMPTS]
    wide = prompts.concentrations(MODEL, params, *rollouts.pad_prompts(PROMPTS, 7, 3))
    np.testing.assert_allclose(wide, tight, atol=1e-5)
    assert wide[1] == pytest.approx(1.0, abs=1e-6)
    assert np.ptp(wide) > 1e-3
