"""The chunked pass against log-softmax written out, and the grammar of names."""

import chex
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment import statistics

NAMES = ("token_logps", "token_entropies", "token_kls", "token_forward_kls", "token_jsds")


def problem(seed, shape=(2, 3, 4), width=5, vocabulary=37, scale=1.0):
    rng = np.random.default_rng(seed)

    def draw(*s):
        return jnp.asarray(rng.normal(size=s) * scale, jnp.float32)

    hidden, head = draw(*shape, width), draw(vocabulary, width)
    reference_hidden, reference_head = draw(*shape, width + 1), draw(vocabulary, width + 1)
    targets = jnp.asarray(rng.integers(0, vocabulary, shape), jnp.int32)
    mask = jnp.asarray(rng.random(shape) < 0.7)
    return hidden, head, targets, mask, reference_hidden, reference_head


def written_out(hidden, head, targets, mask, reference_hidden, reference_head, temperature=1.0, softcap=None):
    def log_softmax(h, w):
        z = h @ w.T
        z = softcap * jnp.tanh(z / softcap) if softcap else z
        return jax.nn.log_softmax(z / temperature, axis=-1)

    lp, lq = log_softmax(hidden, head), jax.lax.stop_gradient(log_softmax(reference_hidden, reference_head))
    p, q = jnp.exp(lp), jnp.exp(lq)
    m = jnp.log((p + q) / 2)
    out = {
        "token_logps": jnp.take_along_axis(lp, targets[..., None], -1)[..., 0],
        "token_entropies": -(p * lp).sum(-1),
        "token_kls": (p * (lp - lq)).sum(-1),
        "token_forward_kls": (q * (lq - lp)).sum(-1),
        "token_jsds": 0.5 * (p * (lp - m) + q * (lq - m)).sum(-1),
    }
    return {k: jnp.where(mask, v, 0.0) for k, v in out.items()}


@hypothesis.settings(deadline=None, max_examples=12)
@hypothesis.given(
    seed=st.integers(0, 1000), chunk=st.sampled_from([1, 7, 16, 37, 64]), softcap=st.sampled_from([None, 2.0]),
    temperature=st.sampled_from([0.5, 1.0, 1.7]),
)
def test_value_and_gradient_equal_log_softmax_written_out(seed, chunk, softcap, temperature):
    hidden, head, targets, mask, r_hidden, r_head = problem(seed)
    # Cotangents that are not one and differ by token: a custom gradient that forgets them is right only for sums.
    cotangents = jax.random.normal(jax.random.key(seed), (len(NAMES), *targets.shape))

    def ours(hidden, head):
        out = statistics.token_statistics(
            NAMES, hidden, head, targets, mask, r_hidden, r_head,
            chunk_size=chunk, logit_softcap=softcap, temperature=temperature,
        )
        return sum((c * out[n]).sum() for c, n in zip(cotangents, NAMES, strict=True)), out

    def theirs(hidden, head):
        out = written_out(hidden, head, targets, mask, r_hidden, r_head, temperature, softcap)
        return sum((c * out[n]).sum() for c, n in zip(cotangents, NAMES, strict=True)), out

    (_, got), got_gradient = jax.value_and_grad(ours, (0, 1), has_aux=True)(hidden, head)
    (_, want), want_gradient = jax.value_and_grad(theirs, (0, 1), has_aux=True)(hidden, head)
    chex.assert_trees_all_close(got, want, atol=2e-5)
    chex.assert_trees_all_close(got_gradient, want_gradient, atol=5e-5)


def test_divergences_vanish_exactly_where_policy_equals_reference():
    hidden, head, targets, mask, _, _ = problem(0, scale=3.0)
    out = statistics.token_statistics(NAMES, hidden, head, targets, mask, hidden, head, chunk_size=8)
    np.testing.assert_array_equal(out["token_kls"], 0.0)
    np.testing.assert_array_equal(out["token_forward_kls"], 0.0)


def test_reference_gets_no_gradient():
    hidden, head, targets, mask, r_hidden, r_head = problem(1)

    def total(r_hidden, r_head):
        out = statistics.token_statistics(NAMES, hidden, head, targets, mask, r_hidden, r_head, chunk_size=8)
        return sum(v.sum() for v in out.values())

    for gradient in jax.grad(total, (0, 1))(r_hidden, r_head):
        np.testing.assert_array_equal(gradient, 0.0)


@pytest.mark.parametrize("garbage", [np.nan, np.inf, 1e30])
def test_what_stands_behind_the_mask_changes_neither_value_nor_gradient(garbage):
    hidden, head, targets, mask, r_hidden, r_head = problem(2)

    def run(hidden, r_hidden, targets):
        def total(hidden, head):
            out = statistics.token_statistics(NAMES, hidden, head, targets, mask, r_hidden, r_head, chunk_size=8)
            return sum(v.sum() for v in out.values()), out

        return jax.value_and_grad(total, (0, 1), has_aux=True)(hidden, head)

    clean = run(hidden, r_hidden, targets)
    spoilt = run(
        jnp.where(mask[..., None], hidden, garbage),
        jnp.where(mask[..., None], r_hidden, garbage),
        jnp.where(mask, targets, 10**6),
    )
    chex.assert_trees_all_equal(clean, spoilt)


def test_uniform_logits_give_log_vocabulary():
    hidden, head, targets, mask, _, _ = problem(3)
    names = ("token_logps", "token_entropies")
    out = statistics.token_statistics(names, 0 * hidden, head, targets, mask, chunk_size=10)
    np.testing.assert_allclose(out["token_logps"][mask], -np.log(37), rtol=1e-6)
    np.testing.assert_allclose(out["token_entropies"][mask], np.log(37), rtol=1e-6)


def test_huge_logits_stay_finite_in_value_and_gradient():
    hidden, head, targets, mask, r_hidden, r_head = problem(4, scale=60.0)

    def total(hidden, head):
        out = statistics.token_statistics(NAMES, hidden, head, targets, mask, r_hidden, r_head, chunk_size=8)
        return sum(v.sum() for v in out.values())

    chex.assert_tree_all_finite(jax.value_and_grad(total, (0, 1))(hidden, head))


def test_ranks_count_the_likelier_tokens():
    hidden, head, targets, mask, r_hidden, r_head = problem(5)
    got = statistics.token_statistics(("token_ranks",), hidden, head, targets, mask, r_hidden, r_head, chunk_size=8)
    logits = hidden @ head.T
    want = (logits > jnp.take_along_axis(logits, targets[..., None], -1)).sum(-1)
    np.testing.assert_array_equal(got["token_ranks"], jnp.where(mask, want, 0))


def test_temperature_divides_logits():
    hidden, head, targets, mask, _, _ = problem(6)
    cold = statistics.token_statistics(("token_logps",), hidden, head, targets, mask, chunk_size=8, temperature=0.7)
    scaled = statistics.token_statistics(("token_logps",), hidden / 0.7, head, targets, mask, chunk_size=8)
    chex.assert_trees_all_close(cold, scaled, atol=1e-5)


def _temporary_bytes(vocabulary, names, batch=2, time=512, width=64):
    def loss(hidden, head, r_hidden, r_head, targets):
        out = statistics.token_statistics(names, hidden, head, targets, None, r_hidden, r_head)
        return sum(v.sum() for v in out.values())

    h = jax.ShapeDtypeStruct((batch, time, width), jnp.float32)
    w = jax.ShapeDtypeStruct((vocabulary, width), jnp.float32)
    t = jax.ShapeDtypeStruct((batch, time), jnp.int32)
    compiled = jax.jit(jax.grad(loss, (0, 1))).lower(h, w, h, w, t).compile()
    return compiled.memory_analysis().temp_size_in_bytes, compiled.as_text()


@pytest.mark.parametrize("names", [("token_logps",), NAMES])
def test_no_array_of_batch_time_vocabulary_exists_forward_or_backward(names):
    batch, time, vocabulary, width = 2, 512, 131_072, 64
    temporary, program = _temporary_bytes(vocabulary, names, batch, time, width)
    full_logits = batch * time * vocabulary * 4
    gradient_of_head = vocabulary * width * 4
    # The gradient of the head is an output; XLA may also hold it once as the carry of the scan.
    assert temporary - gradient_of_head < 0.4 * full_logits, f"{temporary / 2**20:.0f} MiB of temporaries"
    for shape in (f"[{batch},{time},{vocabulary}]", f"[{batch * time},{vocabulary}]", f"[{vocabulary},{batch * time}]"):
        assert f"f32{shape}" not in program


@pytest.mark.parametrize(
    ("name", "parsed"),
    [
        ("policy_chosen_logps", ("policy", "chosen", "logps")),
        ("policy_token_logps", ("policy", "", "token_logps")),
        ("reference_responses_logps", ("reference", "responses", "logps")),
        ("policy_rejected_token_forward_kls", ("policy", "rejected", "token_forward_kls")),
        ("chosen_mask", ("batch", "chosen", "mask")),
        ("lengths", ("batch", "", "lengths")),
        ("chosen_rewards", ("head", "chosen", "rewards")),
        ("rewards", ("label", "", "rewards")),
        ("annotator_ids", ("label", "", "annotator_ids")),
        ("state", ("state", "", "state")),
    ],
)
def test_names_follow_the_grammar(name, parsed):
    assert statistics.parse(name) == parsed


@pytest.mark.parametrize("name", ["policy_choosen_logps", "polcy_chosen_logps", "reference_token_kls", "chosen_maks"])
def test_misspelt_name_is_answered_with_the_nearest(name):
    with pytest.raises(ValueError, match=f"unknown statistic '{name}'.*nearest known"):
        statistics.parse(name)


@pytest.mark.parametrize("name", [n for n in statistics.known_names()])
def test_every_known_name_parses(name):
    statistics.parse(name)


def test_reference_is_needed_only_by_kernels_that_name_it():
    assert not statistics.needs_of(["policy_token_logps", "mask"]).models
    assert statistics.needs_of(["policy_logps", "reference_logps"]).models == {"reference"}
    assert statistics.needs_of(["policy_token_kls"]).models == {"reference"}


def test_missing_reference_and_other_vocabulary_are_refused():
    hidden, head, targets, mask, r_hidden, r_head = problem(7)
    with pytest.raises(ValueError, match="need a reference"):
        statistics.token_statistics(("token_kls",), hidden, head, targets, mask)
    with pytest.raises(ValueError, match="vocabularies differ: 37 and 36"):
        statistics.token_statistics(("token_kls",), hidden, head, targets, mask, r_hidden, r_head[:-1])
