"""The chunked pass against log-softmax written out, and the grammar of names."""

import chex
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment import statistics, token_sets, vocabulary_walk
from alignment.data import collating, rows
from alignment.models import decoder

NAMES = ("token_logps", "token_entropies", "token_collision_probs", "token_uniform_kls")
NAMES += ("token_kls", "token_forward_kls", "token_jsds")
OF_THE_REFERENCE = NAMES
NAMES += ("token_total_variations", "token_mixture_kls@0.25", "token_forward_mixture_kls@0.25")


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
    def log_softmax(h, w, softcap):
        z = h @ w.T
        z = softcap * jnp.tanh(z / softcap) if softcap else z
        return jax.nn.log_softmax(z / temperature, axis=-1)

    lp = log_softmax(hidden, head, softcap)
    lq = jax.lax.stop_gradient(log_softmax(reference_hidden, reference_head, softcap and softcap + 1))
    p, q = jnp.exp(lp), jnp.exp(lq)
    m, quarter = jnp.log((p + q) / 2), jnp.log(0.75 * p + 0.25 * q)
    out = {
        "token_logps": jnp.take_along_axis(lp, targets[..., None], -1)[..., 0],
        "token_entropies": -(p * lp).sum(-1),
        "token_collision_probs": (p * p).sum(-1),
        "token_uniform_kls": -lp.mean(-1) - jnp.log(lp.shape[-1]),
        "token_kls": (p * (lp - lq)).sum(-1),
        "token_forward_kls": (q * (lq - lp)).sum(-1),
        "token_jsds": 0.5 * (p * (lp - m) + q * (lq - m)).sum(-1),
        "token_total_variations": 0.5 * jnp.abs(p - q).sum(-1),
        "token_mixture_kls@0.25": (p * (lp - quarter)).sum(-1),
        "token_forward_mixture_kls@0.25": (q * (lq - quarter)).sum(-1),
    }
    return {k: jnp.where(mask, v, 0.0) for k, v in out.items()}


@hypothesis.settings(deadline=None, max_examples=12)
@hypothesis.given(
    seed=st.integers(0, 1000),
    chunk=st.sampled_from([1, 7, 16, 37, 64]),
    softcap=st.sampled_from([None, 2.0]),
    temperature=st.sampled_from([0.5, 1.0, 1.7]),
)
def test_value_and_gradient_equal_log_softmax_written_out(seed, chunk, softcap, temperature):
    hidden, head, targets, mask, r_hidden, r_head = problem(seed)
    # Cotangents that are not one and differ by token: a custom gradient that forgets them is right only for sums.
    cotangents = jax.random.normal(jax.random.key(seed), (len(NAMES), *targets.shape))

    def ours(hidden, head):
        out = statistics.token_statistics(
            NAMES,
            hidden,
            head,
            targets,
            mask,
            r_hidden,
            r_head,
            chunk_size=chunk,
            logit_softcap=softcap,
            reference_softcap=softcap and softcap + 1,  # the other model's own
            temperature=temperature,
        )
        return sum((c * out[n]).sum() for c, n in zip(cotangents, NAMES, strict=True)), out

    def theirs(hidden, head):
        out = written_out(hidden, head, targets, mask, r_hidden, r_head, temperature, softcap)
        return sum((c * out[n]).sum() for c, n in zip(cotangents, NAMES, strict=True)), out

    (_, got), got_gradient = jax.value_and_grad(ours, (0, 1), has_aux=True)(hidden, head)
    (_, want), want_gradient = jax.value_and_grad(theirs, (0, 1), has_aux=True)(hidden, head)
    chex.assert_trees_all_close(got, want, atol=2e-5)
    for g, w in zip(got_gradient, want_gradient, strict=True):
        # Of the largest entry: a small one is what large ones of both signs leave, with their rounding errors.
        chex.assert_trees_all_close(g, w, atol=5e-5 * max(1.0, float(jnp.abs(w).max())))


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
    names = ("token_logps", "token_entropies", "token_collision_probs")
    out = statistics.token_statistics(names, 0 * hidden, head, targets, mask, chunk_size=10)
    np.testing.assert_allclose(out["token_logps"][mask], -np.log(37), rtol=1e-6)
    np.testing.assert_allclose(out["token_entropies"][mask], np.log(37), rtol=1e-6)
    np.testing.assert_allclose(out["token_collision_probs"][mask], 1 / 37, rtol=1e-6)


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


GKD = ("token_logps", "token_mixture_kls@0.5", "token_forward_mixture_kls@0.5")


@pytest.mark.parametrize("names", [("token_logps",), OF_THE_REFERENCE, GKD])
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
        ("chosen_token_scores", ("head", "chosen", "token_scores")),
        ("token_scores", ("head", "", "token_scores")),
        ("rejected_token_rewards", ("batch", "rejected", "token_rewards")),
        ("reference_chosen_token_collision_probs", ("reference", "chosen", "token_collision_probs")),
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


def _rows(kind):
    """Batches of both layouts, with completions of one token among them."""
    rng = np.random.default_rng(0)

    def example(number, lengths):
        draw = lambda n: rng.integers(1, 30, n).astype(np.int32)  # noqa: E731
        return rows.Tokenized(number, draw(int(rng.integers(1, 5))), tuple(draw(n) for n in lengths))

    if kind == "pairs":
        pairs = [example(i, lengths) for i, lengths in enumerate([(1, 4), (3, 1), (2, 2)])]
        return collating.collate_trees(pairs, prompt_length=4, completion_length=5, sides=2)
    packed = collating.pack([example(i, (n,)) for i, n in enumerate([1, 3, 1, 2, 4])], 12)
    return collating.collate_packed(packed, length=12)


@pytest.mark.parametrize("kind", ["pairs", "packed"])
def test_completion_columns_are_where_the_tokens_themselves_stand(kind):
    batch = _rows(kind)
    columns = np.asarray(statistics.completion_columns(batch))
    mask = batch["mask"]
    at = np.stack([row[c] for row, c in zip(batch["tokens"], columns, strict=True)])
    np.testing.assert_array_equal(at[mask], batch["targets"][mask])
    np.testing.assert_array_equal(columns[~mask], 0)
    predicted_from = np.asarray(batch["predict_from"])
    assert (columns[mask] > predicted_from[mask]).all()


@pytest.mark.parametrize("kind", ["pairs", "packed"])
def test_token_scores_read_the_head_at_the_token_itself(kind):
    batch = _rows(kind)
    config = decoder.DecoderConfig(
        vocab_size=32, hidden_size=8, intermediate_size=8, num_layers=1, num_heads=2, reward_heads=1
    )
    model = decoder.build(config)
    params = model.init(jax.random.key(0))
    params["reward_head"] = jax.random.normal(jax.random.key(1), (8, 1))
    sides = ("chosen", "rejected") if kind == "pairs" else ("",)
    names = [f"{s}_token_scores" if s else "token_scores" for s in sides]
    needs = statistics.needs_of(names)
    assert needs.head == {"token_scores"} and not needs.policy and not needs.models

    def scores(params):
        computed = statistics.compute(needs, model, params, {}, batch)
        return jnp.stack([statistics.deliver(n, sides, computed, batch) for n in names], axis=1)

    hidden, _ = model.hidden(params, batch["tokens"], batch["positions"], batch["segment_ids"])
    got = scores(params)
    for b, s, t in np.argwhere(batch["mask"]):
        column = t if kind == "packed" else 4 + 5 * s + t
        np.testing.assert_allclose(got[b, s, t], hidden[b, column] @ params["reward_head"][:, 0], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(np.asarray(got)[~batch["mask"]], 0.0)
    gradient = jax.grad(lambda p: scores(p).sum())(params)
    assert np.abs(gradient["reward_head"]).max() > 0 and np.abs(gradient["embedding"]).max() > 0
    chex.assert_tree_all_finite(gradient)


def test_stored_token_rewards_are_delivered_by_side_and_are_zero_behind_the_mask():
    batch = _rows("pairs")
    batch["token_rewards"] = np.where(batch["mask"], 0.25, np.nan).astype(np.float32)
    got = statistics.deliver("rejected_token_rewards", ("chosen", "rejected"), {}, batch)
    np.testing.assert_array_equal(got, np.where(batch["mask"][:, 1], 0.25, 0.0))
    with pytest.raises(ValueError, match=r"rejected_token_rewards.*config.data.revision_prompts"):
        statistics.check_available("rejected_token_rewards", ("chosen", "rejected"), (), "treg")


def test_collision_probability_is_one_over_the_number_of_equally_likely_tokens():
    """Of 37 tokens 4 share all the mass."""
    hidden, targets = jnp.ones((1, 1)), jnp.zeros(1, jnp.int32)
    head = jnp.where(jnp.arange(37) < 4, 50.0, -50.0)[:, None]
    out = statistics.token_statistics(("token_collision_probs",), hidden, head, targets, chunk_size=5)
    np.testing.assert_allclose(out["token_collision_probs"], 0.25, rtol=1e-6)


# --- a policy restricted to a set of tokens at each place ------------------------------------------------------------


def restricted_case():
    rng = np.random.default_rng(3)
    hidden, head = rng.normal(size=(2, 5, 8)).astype(np.float32), rng.normal(size=(70, 8)).astype(np.float32)
    allowed = rng.random((2, 5, 70)) < 0.3
    targets = rng.integers(0, 70, (2, 5))
    np.put_along_axis(allowed, targets[..., None], True, axis=-1)
    mask = rng.random((2, 5)) < 0.8
    reference = rng.normal(size=(2, 5, 8)).astype(np.float32), rng.normal(size=(70, 8)).astype(np.float32)
    return hidden, head, allowed, targets, mask, reference


@pytest.mark.parametrize("chunk_size", [16, 33, 70])
def test_restricted_statistics_are_those_of_the_renormalised_distribution(chunk_size):
    hidden, head, allowed, targets, mask, (r_hidden, r_head) = restricted_case()
    names = ("token_logps", "token_entropies", "token_collision_probs", "token_kls")
    weights = {n: np.random.default_rng(i).normal(size=mask.shape).astype(np.float32) for i, n in enumerate(names)}

    def chunked(hidden, head):
        support = jnp.where(mask[..., None], token_sets.pack(jnp.asarray(allowed)), 0)
        return vocabulary_walk.token_statistics(
            names, hidden, head, targets, mask, r_hidden, r_head, support, chunk_size=chunk_size, temperature=0.8
        )

    def written_out(hidden, head):
        logp = jax.nn.log_softmax(jnp.where(allowed, hidden @ head.T / 0.8, -1e30))
        p = jnp.where(allowed, jnp.exp(logp), 0.0)
        logq = jax.nn.log_softmax(r_hidden @ r_head.T / 0.8)
        out = {
            "token_logps": jnp.take_along_axis(logp, targets[..., None], -1)[..., 0],
            "token_entropies": -jnp.sum(jnp.where(allowed, p * logp, 0.0), -1),
            "token_collision_probs": jnp.sum(p * p, -1),
            "token_kls": jnp.sum(jnp.where(allowed, p * (logp - logq), 0.0), -1),
        }
        return {k: jnp.where(mask, v, 0.0) for k, v in out.items()}

    total = lambda f: lambda *a: sum(jnp.sum(weights[n] * v) for n, v in f(*a).items())  # noqa: E731
    got, want = chunked(hidden, head), written_out(hidden, head)
    for name in names:
        np.testing.assert_allclose(got[name], want[name], atol=2e-5, err_msg=name)
    slopes = (
        jax.grad(total(f), argnums=(0, 1))(jnp.asarray(hidden), jnp.asarray(head)) for f in (chunked, written_out)
    )
    for got, want in zip(*slopes, strict=True):
        np.testing.assert_allclose(got, want, atol=5e-5)


def test_what_is_infinite_for_a_restricted_policy_is_refused():
    hidden, head, allowed, targets, mask, (r_hidden, r_head) = restricted_case()
    support = token_sets.pack(jnp.asarray(allowed))
    for name in ("token_forward_kls", "token_jsds"):
        with pytest.raises(ValueError, match=f"{name} of a policy restricted"):
            vocabulary_walk.token_statistics([name], hidden, head, targets, mask, r_hidden, r_head, support)
    with pytest.raises(ValueError, match=r"support must have shape \(2, 5, 3\)"):
        vocabulary_walk.token_statistics(["token_logps"], hidden, head, targets, mask, support=support[..., :2])
