"""Maskings of a masked diffusion model, their rows, and BGPO's gradient in the memory of one masking."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import alignment.losses
from alignment import objective, policy_gradients, statistics
from alignment.models import decoder
from alignment.training import maskings, rollouts, state, step

P, G, L, W = 2, 3, 4, 5
MASK = 11
MODEL = decoder.build(
    decoder.DecoderConfig(
        vocab_size=12, hidden_size=16, intermediate_size=24, num_layers=1, num_heads=2, num_kv_heads=1, causal=False
    )
)
PARAMS = jax.tree.map(lambda a: 8 * a if a.ndim > 1 else a, MODEL.init(jax.random.key(0)))
OLD = jax.tree.map(lambda a, b: a + 0.1 * b, PARAMS, MODEL.init(jax.random.key(1)))
RNG = np.random.default_rng(0)
RESPONSES = RNG.integers(0, 11, (P * G, L)).astype(np.int32)
PROMPTS, THERE = rollouts.pad_prompts([[1, 2, 3], [4, 5, 6, 7, 8]], W, 0)
BATCH = rollouts.to_rows(
    PROMPTS, THERE, rollouts.Rollout(RESPONSES, np.ones((P * G, L), bool), np.zeros((P * G, L), np.float32)), G,
    np.arange(P),
)  # fmt: skip
NOTHING = jnp.zeros((P, W), bool)


@pytest.mark.parametrize("draw", maskings.DRAWS.values())
def test_maskings_estimate_the_exact_bound(draw):
    """Numbers of any kind in place of the model's log-probs, one for each token of each set of hidden tokens."""
    count = 40_000
    subsets = np.arange(2**L)[:, None] >> np.arange(L) & 1 > 0
    table = jnp.asarray(-RNG.gamma(1.0, size=(2**L, L)), jnp.float32)
    hidden, times = draw(jax.random.key(0), (2, L), count)
    assert hidden.shape == (count, 2, L) and times.shape == (count, 2)
    logps = table[jnp.sum(hidden * 2 ** jnp.arange(L), -1)]
    terms = policy_gradients.mdlm_elbo_terms(logps, hidden, times, smallest_time=1e-6)
    exact = policy_gradients.mdlm_elbo_exact(table, jnp.asarray(subsets))
    assert np.all(np.abs(terms.mean(0) - exact) < 4 * terms.std(0) / count**0.5)


def test_hidden_tokens_are_predicted_from_their_own_place_and_from_what_is_shown():
    hidden = jnp.asarray(RNG.random((P, G, L)) < 0.5).at[0, 0].set(jnp.array([True, False, True, False]))
    prompt_hidden = NOTHING.at[1, 2].set(True)
    rows = maskings.masked_rows(BATCH, hidden, hidden, MASK, prompt_hidden)
    computed = statistics.compute(statistics.needs_of(["policy_token_logps"]), MODEL, PARAMS, {}, rows)
    for p in range(P):
        for g in range(G):
            prompt = np.where(prompt_hidden[p], MASK, PROMPTS[p])[THERE[p]]
            response = np.where(hidden[p, g], MASK, RESPONSES[p * G + g])
            tokens = np.concatenate([prompt, response])[None]
            segments = np.where(np.arange(tokens.size) < len(prompt), 1024, 1025)[None]
            h, _ = MODEL.hidden(PARAMS, tokens, np.arange(tokens.size)[None], segments)
            logps = jax.nn.log_softmax(MODEL.unembed(PARAMS, h[0, len(prompt) :]))[np.arange(L), RESPONSES[p * G + g]]
            np.testing.assert_allclose(
                computed["policy_token_logps"][p, g], jnp.where(hidden[p, g], logps, 0.0), rtol=1e-4, atol=1e-5
            )


def terms_of(params, drawn):
    """[n, P * G] terms of the bound, all maskings at once."""

    def one(hidden, times):
        rows = maskings.masked_rows(BATCH, hidden, hidden, MASK, NOTHING) | {"times": times}
        names = ["policy_elbo_terms"]
        computed = statistics.compute(statistics.needs_of(names), MODEL, params, {}, rows)
        return statistics.deliver(names[0], statistics.EACH, computed, rows)[:, 0]

    return jnp.stack([one(*pair) for pair in zip(*drawn, strict=True)])


ADVANTAGES = jnp.asarray(RNG.normal(size=P * G), jnp.float32)
NAMESPACE = objective.union(alignment.losses, policy_gradients)
COLUMNS = ("times", "behaviour_token_logps", "advantages", "valid")


def beside_each_other(drawn):
    """The rows of all maskings as the script has them: masking j of prompt i is row i * n + j."""

    def one(hidden, times):
        rows = maskings.masked_rows(BATCH, hidden, hidden, MASK, NOTHING)
        said = statistics.compute(statistics.needs_of(["policy_token_logps"]), MODEL, OLD, {}, rows)
        return rows | {
            "times": times, "behaviour_token_logps": said["policy_token_logps"], "advantages": ADVANTAGES.reshape(P, G)
        }  # fmt: skip

    stacked = jax.tree.map(lambda *x: jnp.stack(x), *(one(*pair) for pair in zip(*drawn, strict=True)))
    return {k: jnp.asarray(x).swapaxes(0, 1).reshape(-1, *x.shape[2:]) for k, x in stacked.items()}


def one_step(count):
    terms = objective.bind({"bgpo": {}}, NAMESPACE, "objective", statistics.EACH, COLUMNS)
    losses = step.make_losses(MODEL, {}, terms, (), statistics.EACH)
    return step.make_step(losses, terms, (), statistics.EACH, optax.sgd(1.0), accumulate=count)


def test_bgpo_one_masking_at_a_time_is_bgpo_of_all_of_them():
    drawn = maskings.by_time(jax.random.key(3), (P, G, L), 6)
    before = state.create(PARAMS, optax.sgd(1.0), {}, jax.random.key(0))
    after, logs = jax.jit(one_step(6))(before, {}, beside_each_other(drawn))
    behaviour = terms_of(OLD, drawn)

    def whole(params):
        return jnp.mean(policy_gradients.bgpo(terms_of(params, drawn).T, behaviour.T, ADVANTAGES))

    loss, gradient = jax.jit(jax.value_and_grad(whole))(PARAMS)
    np.testing.assert_allclose(logs["loss"], loss, rtol=1e-4)
    scale = float(logs["grad_norm"])
    jax.tree.map(
        lambda old, new, g: np.testing.assert_allclose(old - new, g, atol=1e-4 * scale), PARAMS, after.params, gradient
    )


def test_bgpo_needs_no_more_memory_for_more_maskings():
    def temporary(count, accumulate):
        rows = beside_each_other(maskings.by_time(jax.random.key(3), (P, G, L), count))
        before = state.create(PARAMS, optax.sgd(1.0), {}, jax.random.key(0))
        compiled = jax.jit(one_step(accumulate), donate_argnums=0).lower(before, {}, rows).compile()
        # What is kept of each row on the way; the rows themselves are arguments, and are re-laid once.
        return compiled.memory_analysis().temp_size_in_bytes - sum(x.nbytes for x in rows.values())

    assert temporary(16, 16) < 1.3 * temporary(4, 4)
    assert temporary(16, 1) > 2 * temporary(16, 16)


def test_the_bound_is_a_name_of_the_vocabulary_and_asks_for_maskings():
    bind = functools.partial(objective.bind, namespace=NAMESPACE, kind="objective", sides=statistics.EACH)
    (term,) = bind({"mdlm": {}}, columns=("times",))
    assert term.arguments == ("policy_elbo_terms",)
    assert statistics.needs_of(term.arguments).policy == {"token_logps"}
    with pytest.raises(ValueError, match=r"experiments\.diffusion"):
        bind({"mdlm": {}}, columns=())
    assert statistics.needs_of(["reference_chosen_elbo_terms"]).models == {"reference"}
