"""Speculative sampling: the law of what comes out, by enumeration of a small vocabulary, and the loop with caches."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment.decoding import sampler, speculative
from alignment.models import decoder

V, G = 3, 2


def law_of(depth, seed, skew=1.5):
    """{prefix: log-probs of the next token} for every prefix shorter than `depth`."""
    rng = np.random.default_rng(seed)
    prefixes = [t for k in range(depth) for t in itertools.product(range(V), repeat=k)]
    return {t: np.asarray(jax.nn.log_softmax(jnp.asarray(skew * rng.normal(size=V), jnp.float32))) for t in prefixes}


def induced(draft, target):
    """Exact law of the first G + 1 tokens: one round by enumeration, then the target's own, since a round that stops
    early is followed by another, whose tokens (by induction) have the target's law. Proposals are enumerated; the
    chance of each count of accepted ones is the area of the uniform numbers for which `accepted_count` gives it."""
    rows = np.array(list(itertools.product(range(V), repeat=G)), np.int32)
    q = np.array([[draft[tuple(r[:i])] for i in range(G)] for r in rows])
    p = np.array([[target[tuple(r[:i])] for i in range(G + 1)] for r in rows])
    accept = np.asarray(speculative.acceptance(rows, q, p[:, :G]), np.float64)
    out = {}
    for n, row in enumerate(rows):
        proposal = np.exp(sum(float(q[n, i, row[i]]) for i in range(G)))
        # Uniform numbers on both sides of every threshold: each cell's area is known, its count is asked for.
        cells = [[(0.5 * a, a), (0.5 * (1 + a), 1 - a)] for a in accept[n]]
        chance = np.zeros(G + 1)
        for cell in itertools.product(*cells):
            area = np.prod([size for _, size in cell])
            if area > 0:
                uniforms = np.array([u for u, _ in cell], np.float32)
                chance[int(speculative.accepted_count(jnp.asarray(accept[n], jnp.float32), uniforms))] += area
        for count in range(G + 1):
            last = np.asarray(jax.nn.softmax(speculative.next_logits(q[n], p[n], jnp.int32(count))), np.float64)
            for token in range(V):
                begun = (*map(int, row[:count]), token)
                mass = proposal * chance[count] * last[token]
                for rest in itertools.product(range(V), repeat=G + 1 - len(begun)):
                    whole = (*begun, *rest)
                    follow = sum(float(target[whole[:i]][whole[i]]) for i in range(len(begun), G + 1))
                    out[whole] = out.get(whole, 0.0) + mass * np.exp(follow)
    return out


def exact(target):
    return {
        t: np.exp(sum(float(target[t[:i]][t[i]]) for i in range(G + 1)))
        for t in itertools.product(range(V), repeat=G + 1)
    }


@pytest.mark.parametrize("seed", [0, 1])
def test_the_law_of_the_output_is_exactly_the_targets(seed):
    draft, target = law_of(G + 1, 10 + seed), law_of(G + 1, 20 + seed)
    got, expected = induced(draft, target), exact(target)
    assert sum(got.values()) == pytest.approx(1.0, abs=1e-5)
    for tokens, probability in expected.items():
        assert got[tokens] == pytest.approx(probability, abs=1e-6)


def test_the_law_is_the_targets_where_each_forbids_what_the_other_draws():
    draft, target = law_of(G + 1, 1), law_of(G + 1, 2)
    cut = lambda law, token: {t: np.where(np.arange(V) == token, -np.inf, z) for t, z in law.items()}  # noqa: E731
    norm = lambda law: {t: np.asarray(jax.nn.log_softmax(jnp.asarray(z, jnp.float32))) for t, z in law.items()}  # noqa: E731
    got, expected = induced(norm(cut(draft, 0)), norm(cut(target, 1))), exact(norm(cut(target, 1)))
    for tokens, probability in expected.items():
        assert got.get(tokens, 0.0) == pytest.approx(probability, abs=1e-6)


def test_equal_models_accept_everything_and_disjoint_ones_nothing():
    z = jax.nn.log_softmax(jnp.asarray(np.random.default_rng(0).normal(size=(4, V)), jnp.float32))
    tokens = jnp.array([0, 1, 2, 1])
    np.testing.assert_array_equal(speculative.acceptance(tokens, z, z), 1.0)
    np.testing.assert_array_equal(speculative.residual_logits(z, z), z)
    assert int(speculative.accepted_count(jnp.ones(4), jnp.full(4, 0.999))) == 4
    q, p = jnp.array([0.0, -jnp.inf, -jnp.inf]), jnp.log(jnp.array([0.0, 0.25, 0.75]))
    assert float(speculative.acceptance(jnp.array([0]), q[None], p[None])[0]) == 0.0
    np.testing.assert_allclose(jax.nn.softmax(speculative.residual_logits(q, p)), [0, 0.25, 0.75], atol=1e-6)
    assert float(speculative.acceptance_rate(q, p)) == 0.0


def test_the_rate_is_the_chance_that_a_proposal_is_accepted_and_one_minus_total_variation():
    rng = np.random.default_rng(3)
    q, p = (np.asarray(jax.nn.log_softmax(jnp.asarray(rng.normal(size=V), jnp.float32))) for _ in range(2))
    each = np.asarray(speculative.acceptance(np.arange(V), np.tile(q, (V, 1)), np.tile(p, (V, 1))))
    rate = float(speculative.acceptance_rate(q, p))
    assert rate == pytest.approx(float((np.exp(q) * each).sum()), abs=1e-6)
    assert rate == pytest.approx(1 - 0.5 * np.abs(np.exp(q) - np.exp(p)).sum(), abs=1e-6)


def test_tokens_per_round_in_closed_form():
    assert float(speculative.expected_tokens(0.8, 3)) == pytest.approx(2.952, abs=1e-3)
    assert float(speculative.expected_tokens(1.0, 5)) == 6.0 and float(speculative.expected_tokens(0.0, 5)) == 1.0


# --- the loop

SIZES = {"vocab_size": 12, "intermediate_size": 16, "num_heads": 2, "max_position_embeddings": 32}
TARGET = decoder.build(decoder.DecoderConfig(hidden_size=16, num_layers=2, **SIZES))
DRAFT = decoder.build(decoder.DecoderConfig(hidden_size=8, num_layers=1, **SIZES))
END, PAD, STEPS = 11, 0, 9
PROMPTS = np.array([[9, 1, 2], [3, 2, 1], [0, 0, 5], [7, 7, 8]], np.int32)
MASK = np.array([[0, 1, 1], [1, 1, 1], [0, 0, 1], [1, 1, 1]], bool)


@pytest.fixture(scope="module")
def params():
    draw = lambda model, key: jax.tree.map(lambda a: 8 * a if a.ndim > 1 else a, model.init(jax.random.key(key)))  # noqa: E731
    return draw(TARGET, 0), draw(DRAFT, 1)


def speculate(params, draft=DRAFT, draft_params=None, seed=0, **settings):
    settings = {"max_new_tokens": STEPS, "eos_id": END, "pad_id": PAD, "proposals": 3} | settings
    return speculative.sample(
        TARGET, params[0], draft, params[1] if draft_params is None else draft_params, PROMPTS, MASK,
        jax.random.key(seed), **settings,
    )  # fmt: skip


@pytest.mark.parametrize("proposals", [1, 3])
def test_greedy_output_is_the_targets_greedy_output_whatever_the_draft(params, proposals):
    drawn = speculate(params, temperature=0, proposals=proposals)
    plain = sampler.sample(TARGET, params[0], PROMPTS, MASK, jax.random.key(0), max_new_tokens=STEPS, eos_id=END,
                           pad_id=PAD, temperature=0)  # fmt: skip
    np.testing.assert_array_equal(drawn.samples.tokens, plain.tokens)
    np.testing.assert_array_equal(drawn.samples.mask, plain.mask)
    np.testing.assert_allclose(drawn.samples.logps, plain.logps, atol=1e-4)


@pytest.mark.parametrize("settings", [{}, {"temperature": 0.7, "top_k": 5, "top_p": 0.9}], ids=str)
def test_log_probs_are_the_targets_of_a_full_pass_after_rejections_and_end_tokens(params, settings):
    drawn = speculate(params, seed=3, **settings)
    tokens, mask, logps = (np.asarray(x) for x in (drawn.samples.tokens, drawn.samples.mask, drawn.samples.logps))
    whole, seen = np.concatenate([PROMPTS, tokens], axis=1), np.concatenate([MASK, mask], axis=1)
    positions = jnp.maximum(jnp.cumsum(seen, axis=1) - 1, 0)
    h, _ = TARGET.hidden(params[0], whole, positions, jnp.where(seen, 1024, 0))
    logits = TARGET.unembed(params[0], h)[:, PROMPTS.shape[1] - 1 : -1]
    kept = sampler.truncate(logits / settings.get("temperature", 1.0), settings.get("top_k"), settings.get("top_p"))
    expected = np.take_along_axis(np.asarray(jax.nn.log_softmax(kept)), tokens[..., None], -1)[..., 0]
    np.testing.assert_allclose(logps, np.where(mask, expected, 0.0), atol=2e-4)
    accepted, proposed = np.asarray(drawn.accepted), np.asarray(drawn.proposed)
    assert (accepted <= proposed).all() and 0 < accepted.sum() < proposed.sum()
    # A row has its first token from the prompt, then one of its own and the accepted ones in every round.
    assert (mask.sum(1) <= 1 + accepted + proposed // 3).all()
    ends = tokens == END
    np.testing.assert_array_equal(mask, np.cumsum(ends, axis=1) - ends == 0)


def test_a_draft_that_is_the_target_is_always_accepted(params):
    drawn = speculate(params, TARGET, params[0], eos_id=10)
    lengths = np.asarray(drawn.samples.mask).sum(1)
    assert int(drawn.rounds) == -(-(lengths.max() - 1) // 4)
    np.testing.assert_array_equal(drawn.accepted, [sum(min(3, n) for n in rounds(length)) for length in lengths])


def rounds(length):
    """What is left of a row at the start of each of its rounds, when each round gives four tokens."""
    return range(length - 1, 0, -4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"proposals": 0}, "proposals must be an integer"),
        ({"group_size": 2}, "group_size=2: speculative sampling has no such option"),
        ({"with_support": True}, "with_support=True"),
        ({"max_new_tokens": 27}, "3 proposals exceed the model's context of 32"),
        ({"draft": decoder.build(decoder.DecoderConfig(hidden_size=8, num_layers=1, **SIZES | {"vocab_size": 13}))},
         "one vocabulary"),
    ],
)  # fmt: skip
def test_what_it_cannot_do_is_refused(params, changes, message):
    with pytest.raises(ValueError, match=message):
        speculate(params, **changes)
