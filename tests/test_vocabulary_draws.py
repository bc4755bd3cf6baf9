"""Tokens drawn by the chunked pass: their distribution, their log-probs and gradients, and the runs that use them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny_steps

from alignment import objective, policy_gradients, statistics, vocabulary_walk
from alignment.models import decoder
from alignment.policy_gradients import otr, otr_exact
from alignment.training import state, step

SHAPE, WIDTH, V = (2, 3), 6, 37
RNG = np.random.default_rng(0)
HIDDEN = jnp.asarray(RNG.normal(size=(*SHAPE, WIDTH)), jnp.float32)
HEAD = jnp.asarray(RNG.normal(size=(V, WIDTH)), jnp.float32)
MASK = jnp.asarray([[True, True, False], [True, False, True]])
UNIFORMS = jnp.asarray(RNG.random((*SHAPE, 20000)), jnp.float32)


def drawn(hidden=HIDDEN, head=HEAD, uniforms=UNIFORMS, **settings):
    return vocabulary_walk.sampled_statistics(hidden, head, uniforms, MASK, **settings)


@pytest.mark.parametrize("chunk_size,temperature", [(8, 1.0), (10, 1.3), (V, 0.7)])
def test_tokens_are_drawn_from_the_tempered_distribution(chunk_size, temperature):
    tokens, _ = drawn(draw_temperature=temperature, chunk_size=chunk_size)
    p = np.asarray(jax.nn.softmax(HIDDEN @ HEAD.T / temperature))
    for place in np.argwhere(MASK):
        share = np.bincount(np.asarray(tokens[tuple(place)]), minlength=V) / UNIFORMS.shape[-1]
        expected = p[tuple(place)]
        assert (np.abs(share - expected) < 5 * np.sqrt(expected / UNIFORMS.shape[-1]) + 1e-4).all()
    assert not np.asarray(tokens)[~np.asarray(MASK)].any()


def test_the_chunks_do_not_change_what_is_drawn():
    whole = np.asarray(drawn(chunk_size=V)[0])
    for chunk_size in (1, 5, 36):
        # A number within rounding of the border of two tokens may fall on either side of it.
        assert (np.asarray(drawn(chunk_size=chunk_size)[0]) != whole).mean() < 1e-3


@pytest.mark.parametrize("softcap,temperature", [(None, 1.0), (2.0, 0.8)])
def test_log_probs_and_gradients_of_drawn_tokens_are_those_of_log_softmax_written_out(softcap, temperature):
    uniforms = UNIFORMS[..., :9]
    weights = jnp.asarray(RNG.normal(size=uniforms.shape), jnp.float32)
    settings = {"chunk_size": 8, "logit_softcap": softcap, "temperature": temperature, "draw_temperature": 1.3}
    tokens, logps = drawn(uniforms=uniforms, **settings)

    def written_out(hidden, head):
        z = hidden @ head.T
        z = softcap * jnp.tanh(z / softcap) if softcap else z
        picked = jnp.take_along_axis(jax.nn.log_softmax(z / temperature), tokens, -1)
        return jnp.where(MASK[..., None], picked, 0.0)

    np.testing.assert_allclose(logps, written_out(HIDDEN, HEAD), atol=1e-5)
    got = jax.grad(lambda h, w: jnp.sum(weights * drawn(h, w, uniforms, **settings)[1]), argnums=(0, 1))(HIDDEN, HEAD)
    want = jax.grad(lambda h, w: jnp.sum(weights * written_out(h, w)), argnums=(0, 1))(HIDDEN, HEAD)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)


def test_what_stands_behind_the_mask_cannot_be_seen():
    poisoned = jnp.where(MASK[..., None], HIDDEN, jnp.nan)
    for a, b in zip(drawn(poisoned), drawn(), strict=True):
        np.testing.assert_array_equal(a, b)
    slope = jax.grad(lambda w: jnp.sum(drawn(poisoned, w, UNIFORMS[..., :4])[1]))(HEAD)
    assert np.isfinite(slope).all() and np.abs(slope).max() > 0


def test_no_array_of_positions_times_vocabulary_is_made():
    text = str(jax.make_jaxpr(jax.grad(lambda w: jnp.sum(drawn(HIDDEN, w, UNIFORMS[..., :4], chunk_size=8)[1])))(HEAD))
    assert f"[6,{V}]" not in text and f"[2,3,{V}]" not in text and "[6,8]" in text


@pytest.mark.parametrize("name", ["draw_temperature", "temperature"])
def test_temperatures_out_of_range_are_named(name):
    with pytest.raises(ValueError, match=f"{name} must be above 0"):
        drawn(**{name: 0.0})


# --- through the vocabulary of arguments ------------------------------------------------------------------------------

MODEL = decoder.build(
    decoder.DecoderConfig(vocab_size=264, hidden_size=16, intermediate_size=32, num_layers=1, num_heads=2)
)


def delivered(names, draws, seeds=None):
    batch = tiny_steps.batch(4) | ({} if seeds is None else {"seeds": seeds})
    params = jax.tree.map(lambda a: 5 * a if a.ndim > 1 else a, MODEL.init(jax.random.key(0)))
    computed = statistics.compute(statistics.needs_of(names), MODEL, params, {}, batch, draws=draws)
    arrays = {n: statistics.deliver(n, tiny_steps.SIDES, computed, batch) for n in names}
    logits = MODEL.unembed(params, statistics.completion_hidden(MODEL, params, batch)[1])[:, 0]
    return arrays, logits


NAMES = ("policy_chosen_sampled_token_logps", "chosen_sampled_tokens", "chosen_tokens", "chosen_mask")


def test_otr_through_the_pass_converges_to_its_exact_form():
    arrays, logits = delivered(NAMES, statistics.Draws(4000, 1.3))
    got = otr(*arrays.values())
    exact = otr_exact(logits, arrays["chosen_tokens"], arrays["chosen_mask"], kappa=1.3)
    assert np.abs(exact).max() > 0.3
    np.testing.assert_allclose(got, exact, atol=0.05)


def test_a_row_draws_by_its_own_number_and_new_numbers_draw_anew():
    draws = statistics.Draws(5, 1.3)
    a = delivered(NAMES[1:2], draws, jnp.array([3, 4, 5, 6], jnp.uint32))[0][NAMES[1]]
    b = delivered(NAMES[1:2], draws, jnp.array([3, 9, 5, 6], jnp.uint32))[0][NAMES[1]]
    np.testing.assert_array_equal(a[0], b[0])
    assert (a[1] != b[1]).any()


def test_who_asks_for_drawn_tokens_where_none_are_drawn_is_told():
    with pytest.raises(ValueError, match="this run draws none"):
        delivered(NAMES[:1], None)


def otr_term():
    return objective.bind({"otr": {"side": "chosen"}}, policy_gradients, "objective", tiny_steps.SIDES, ())


def test_a_kernel_is_bound_to_the_tokens_of_its_side():
    (term,) = otr_term()
    assert term.arguments == NAMES and term.mask == "chosen_mask"


def test_micro_batches_draw_what_the_whole_batch_would_and_each_step_draws_anew():
    """Plain gradient descent: the change of the parameters is the gradient."""
    terms, optimizer = otr_term(), optax.sgd(1.0)
    losses = step.make_losses(MODEL, {}, terms, (), tiny_steps.SIDES, draws=statistics.Draws(4, 1.3))
    before = state.create(MODEL.init(jax.random.key(0)), optimizer, {}, jax.random.key(5))
    make = lambda **kw: jax.jit(  # noqa: E731
        step.make_step(losses, terms, (), tiny_steps.SIDES, optimizer, draws_from_rng=True, **kw)
    )
    batch = tiny_steps.batch(4)
    (whole, _), (halves, _) = (make(accumulate=n)(before, {}, batch) for n in (1, 2))
    tiny_steps.assert_equal_up_to(
        tiny_steps.difference(before, halves), tiny_steps.difference(before, whole), tolerance=1e-4
    )
    other, _ = make()(before.replace(rng=whole.rng), {}, batch)
    assert np.abs(other.params["embedding"] - whole.params["embedding"]).max() > 1e-4
