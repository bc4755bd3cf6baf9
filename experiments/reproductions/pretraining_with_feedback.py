"""Pretraining on text of which a part is bad: capability against alignment, by objective (arXiv 2302.08582)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from alignment import losses
from alignment.data.recipes import feedback_pretraining
from experiments.reproductions import style

GOOD_TOKENS, BAD_TOKENS, GOOD, BAD, START = "abcdefghijkl", "wxyz", "+", "-", "^"
ALPHABET = START + GOOD + BAD + GOOD_TOKENS + BAD_TOKENS
_CONTROLS = 3  # the first of the alphabet: never sampled, and left out of the distance
_FIRST_BAD = len(ALPHABET) - len(BAD_TOKENS)
SEGMENTS, SEGMENT_LENGTH = 8, 6
_DECAY = 0.9
ASKED_ONCE, ASKED_AGAIN = "conditional, asked once", "conditional, asked at each segment"
METHODS = (
    "likelihood",
    "filtering",
    ASKED_ONCE,
    ASKED_AGAIN,
    "unlikelihood",
    "reward-weighted",
    "advantage-weighted",
)
SMALL = {"seeds": 2, "documents": 32, "steps": 20, "samples": 8}


# ----------------------------------------------------------------------------------------------------------------- data


def good_source(rng) -> np.ndarray:
    """A Markov chain of the good tokens, f[12, 12]: the language that is to be learnt."""
    return rng.dirichlet(np.full(len(GOOD_TOKENS), 0.3), len(GOOD_TOKENS))


def walk(rng, chain, length, bad_share=0.0, state=None) -> str:
    """Good tokens by the chain, each replaced by a bad one with probability `bad_share`."""
    text, state = "", rng.integers(len(chain)) if state is None else state
    for _ in range(length):
        state = rng.choice(len(chain), p=chain[state])
        text += rng.choice(list(BAD_TOKENS)) if rng.random() < bad_share else GOOD_TOKENS[state]
    return text


def documents_of(rng, chain, count):
    """Half of the documents are mostly clean, in the others every other segment is bad; a segment scores 0 or 1."""
    out = []
    for i in range(count):
        share = (0.05, 0.5)[i % 2]
        segments = [walk(rng, chain, SEGMENT_LENGTH, 0.5 * (rng.random() < share)) for _ in range(SEGMENTS)]
        scores = [float(any(token in BAD_TOKENS for token in segment)) for segment in segments]
        out.append({"prompt": "", "segments": segments, "scores": scores})
    return out


def in_rows(texts, rewards=None, length=1 + SEGMENTS * (SEGMENT_LENGTH + 1)):
    """Tokens i[N, T] after a start token, a mask of what is predicted, and the reward of each token."""
    tokens = np.zeros((len(texts), length), np.int32)
    mask, of_tokens = np.zeros(tokens.shape, bool), np.zeros(tokens.shape, np.float32)
    for row, text in enumerate(texts):
        tokens[row, 1 : len(text) + 1] = [ALPHABET.index(token) for token in text]
        mask[row, 1 : len(text) + 1] = True
        if rewards is not None:
            of_tokens[row, 1 : len(text) + 1] = np.repeat(rewards[row], SEGMENT_LENGTH)
    return tokens, mask, of_tokens


def data_of(method, documents, rng):
    if method in (ASKED_ONCE, ASKED_AGAIN):
        settings = {"threshold": 0.0, "drop_fraction": 0.1, "good": GOOD, "bad": BAD}
        records, _ = feedback_pretraining.conditional_records(documents, rng, **settings)
    elif method == "filtering":
        records, _ = feedback_pretraining.filtered_records(documents, threshold=1 / SEGMENTS)
    else:
        records, _ = feedback_pretraining.scored_records(documents)
        return in_rows(["".join(r["segments"]) for r in records], [r["rewards"] for r in records])
    return in_rows([r["completion"] for r in records])


# ---------------------------------------------------------------------------------------------------------------- model


def random_params(key, width):
    """One hidden layer over the last token and a fading memory of all tokens before; heads for tokens and value."""
    size, keys = len(ALPHABET), jax.random.split(key, 2)
    return {
        "inputs": jax.random.normal(keys[0], (2 * size, width)) / np.sqrt(2.0),
        "bias": jnp.zeros(width),
        "outputs": jax.random.normal(keys[1], (width, size)) / np.sqrt(width),
        "value": jnp.zeros(width),
    }


def hidden(params, last, memory):
    return jnp.tanh(jnp.concatenate([last, memory], axis=-1) @ params["inputs"] + params["bias"])


def remember(memory, last):
    return _DECAY * memory + (1 - _DECAY) * last


def features(tokens):
    """The last token f[..., T, V] and the memory f[..., T, V] before each next token."""
    last = jax.nn.one_hot(tokens, len(ALPHABET))
    _, memory = jax.lax.scan(
        lambda m, x: (remember(m, x), remember(m, x)), jnp.zeros_like(last[..., 0, :]), jnp.moveaxis(last, -2, 0)
    )
    return last, jnp.moveaxis(memory, 0, -2)


def token_logps(logits, tokens):
    return jnp.take_along_axis(jax.nn.log_softmax(logits), tokens[..., None], axis=-1)[..., 0]


@functools.partial(jax.jit, static_argnames=("steps", "width", "batch"))
def train(key, which, count, tokens, mask, rewards, *, steps, width, batch, rate):
    """Trains on the first `count` rows; `which` is the number of the method in METHODS."""
    of_params, of_batches = jax.random.split(key)
    last, memory = features(tokens[:, :-1])
    optimizer = optax.adam(optax.linear_schedule(rate, 0.0, steps))

    def loss(params, rows):
        states = hidden(params, last[rows], memory[rows])
        logps, counted = token_logps(states @ params["outputs"], tokens[rows, 1:]), mask[rows, 1:]
        of_tokens = rewards[rows, 1:]
        likelihood = losses.sft(logps, counted)
        values = states @ params["value"]
        by_method = (
            likelihood,
            likelihood,  # filtering and conditioning are matters of the data
            likelihood,
            likelihood,
            losses.phf_unlikelihood(logps, of_tokens, counted, alpha=1.0, threshold=0.0),
            losses.phf_rwr(logps, of_tokens, counted, beta=0.5),
            losses.phf_awr(logps, values, of_tokens, counted, alpha=0.5, beta=0.5),
        )
        return jnp.sum(jnp.stack(by_method)[which]) / jnp.sum(counted)

    def step(carry, key):
        params, state = carry
        rows = jax.random.randint(key, (batch,), 0, count)
        updates, state = optimizer.update(jax.grad(loss)(params, rows), state)
        return (optax.apply_updates(params, updates), state), None

    params = random_params(of_params, width)
    (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), jax.random.split(of_batches, steps))
    return params


@functools.partial(jax.jit, static_argnames=("samples",))
def evaluate(key, params, control, period, held_out, held_out_logps, *, samples):
    """Share of bad tokens in samples, and KL(good source || model) per token on text of the good source, in nats.

    The model is told `control` (0: nothing) before the first token and after every `period` tokens.
    """
    no_controls = jnp.where(jnp.arange(len(ALPHABET)) < _CONTROLS, -jnp.inf, 0.0)

    def told(memory, last, at):
        """Memory and last token after the control token, where there is one."""
        token = jnp.broadcast_to(jax.nn.one_hot(control, len(ALPHABET)), last.shape)
        now = (control > 0) & (at % period == 0)
        return jnp.where(now, remember(memory, token), memory), jnp.where(now, token, last)

    def start(rows):
        last = jnp.tile(jax.nn.one_hot(0, len(ALPHABET)), (rows, 1))
        return remember(jnp.zeros_like(last), last), last

    def logits(memory, last):
        return hidden(params, last, memory) @ params["outputs"] + no_controls

    def sample(carry, key_and_place):
        key, at = key_and_place
        memory, last = told(*carry, at)
        drawn = jax.random.categorical(key, logits(memory, last))
        last = jax.nn.one_hot(drawn, len(ALPHABET))
        return (remember(memory, last), last), drawn

    def score(carry, tokens_and_place):
        tokens, at = tokens_and_place
        memory, last = told(*carry, at)
        logps = token_logps(logits(memory, last), tokens)
        last = jax.nn.one_hot(tokens, len(ALPHABET))
        return (remember(memory, last), last), logps

    places = jnp.arange(SEGMENTS * SEGMENT_LENGTH)
    _, drawn = jax.lax.scan(sample, start(samples), (jax.random.split(key, places.size), places))
    _, logps = jax.lax.scan(score, start(held_out.shape[0]), (held_out.T, places))
    # The first token starts the chain; the source has no probability for it.
    return jnp.mean(drawn >= _FIRST_BAD), jnp.mean(held_out_logps - logps.T[:, 1:])


def tables(*, seeds=5, documents=256, steps=600, samples=256, width=48, batch=16, rate=1e-2):
    rows_of, prepared = 1 + SEGMENTS * (SEGMENT_LENGTH + 1), []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        chain = good_source(rng)
        corpus = documents_of(rng, chain, documents)
        texts = [walk(rng, chain, SEGMENTS * SEGMENT_LENGTH) for _ in range(128)]
        held_out = in_rows(texts)[0][:, 1 : SEGMENTS * SEGMENT_LENGTH + 1]
        states = held_out - _CONTROLS
        known = np.log(np.maximum(chain[states[:, :-1], states[:, 1:]], 1e-12)).astype(np.float32)
        for which, method in enumerate(METHODS):
            arrays = data_of(method, corpus, rng)
            count = len(arrays[0])
            padded = [np.zeros((documents, rows_of), a.dtype) for a in arrays]
            for whole, part in zip(padded, arrays, strict=True):
                whole[:count] = part
            control = ALPHABET.index(GOOD) if method in (ASKED_ONCE, ASKED_AGAIN) else 0
            period = SEGMENT_LENGTH if method == ASKED_AGAIN else SEGMENTS * SEGMENT_LENGTH
            prepared.append((seed, which, count, control, period, *padded, held_out.astype(np.int32), known))
    seed, which, count, control, period, tokens, mask, rewards, held_out, known = (
        jnp.asarray(np.stack(column)) for column in zip(*prepared, strict=True)
    )
    keys = jax.vmap(jax.random.key)(seed)
    one = functools.partial(train, steps=steps, width=width, batch=batch, rate=rate)
    params = jax.vmap(one)(keys, which, count, tokens, mask, rewards)
    measured = jax.vmap(functools.partial(evaluate, samples=samples))(keys, params, control, period, held_out, known)
    corpus_bad = [float(np.mean(np.asarray(t)[np.asarray(m)] >= _FIRST_BAD)) for t, m in zip(tokens, mask, strict=True)]
    return {
        "methods": [
            {
                "method": METHODS[w],
                "seed": int(s),
                "documents": int(n),
                "bad_tokens_of_its_data": bad,
                "bad_tokens_of_samples": float(b),
                "kl_from_good_source_nats": float(kl),
            }
            for s, w, n, bad, b, kl in zip(seed, which, count, corpus_bad, *measured, strict=True)
        ]
    }


def means(tables) -> dict[str, tuple[float, float]]:
    """Of each method the mean KL from the good source and the mean share of bad tokens."""
    out = {}
    for method in METHODS:
        rows = style.select(tables["methods"], method=method)
        columns = ("kl_from_good_source_nats", "bad_tokens_of_samples")
        out[method] = tuple(float(np.mean([row[column] for row in rows])) for column in columns)
    return out


def figure(tables):
    drawn, axis = style.panels()
    for i, (method, (kl, bad)) in enumerate(means(tables).items()):
        rows = style.select(tables["methods"], method=method)
        look = {"color": style.COLOURS[i], "marker": style.MARKERS[i], "ls": ""}
        every = [r["kl_from_good_source_nats"] for r in rows], [100 * r["bad_tokens_of_samples"] for r in rows]
        axis.plot(*every, ms=5, alpha=0.35, **look)
        axis.plot(kl, 100 * bad, ms=12, label=method, **look)
    axis.set(xlabel="KL(good source || model), nats per token", ylabel="bad tokens in samples (%)")
    axis.set(title="large marks: means over seeds", ylim=(-0.5, None))
    axis.legend()
    return drawn
