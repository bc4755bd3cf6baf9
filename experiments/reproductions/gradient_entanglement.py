"""Why the chosen log-prob falls: the gradients of a pair's two sides pull on each other (arXiv 2410.13828)."""

import contextlib
import functools
import io
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from alignment import analysis, losses, statistics
from alignment.training import mesh, side_gradients
from configs import common
from experiments import finetune, from_config, stages
from experiments.reproductions import style

TINY = {"hidden_size": 64, "intermediate_size": 176, "num_layers": 2, "num_heads": 4, "num_kv_heads": 2}
SMALL = {
    "seeds": 2, "pairs": 5, "steps": 2, "similarities": (0.0, 0.9),
    "lm_seeds": 1, "lm_pairs": 6, "lm": {"steps": 2, "model": TINY | {"hidden_size": 16, "num_layers": 1}},
}  # fmt: skip
TOKENS, WIDTH, BETA = 32, 16, 0.1
READ = ("policy_chosen_logps", "policy_rejected_logps", "chosen_token_features", "rejected_token_features")


def _changes(logps, start, moved):
    return jax.tree.map(lambda after, before: after - before, logps(moved), logps(start))


@functools.partial(jax.jit, static_argnames=("pairs", "steps"))
def toy(key, similarity, *, pairs, steps, rate):
    """Changes of the log-probs of two tokens when the hidden state before them, and nothing else, learns to prefer one.

    Returns {name: f[pairs, 2]}, chosen first: predicted to first order, after one step, after `steps`, and after one
    pairwise normalised step. `similarity` is the cosine of the two tokens' output embeddings, which are frozen.
    """

    def one(key):
        for_embeddings, for_state = jax.random.split(key)
        embeddings = jax.random.normal(for_embeddings, (TOKENS, WIDTH)) / WIDTH**0.5
        chosen, other = embeddings[0], embeddings[1]
        across = other - (other @ chosen) * chosen / (chosen @ chosen)
        towards = similarity * chosen / jnp.linalg.norm(chosen)
        towards += jnp.sqrt(1 - similarity**2) * across / jnp.linalg.norm(across)
        embeddings = embeddings.at[1].set(jnp.linalg.norm(other) * towards)
        start = jax.random.normal(for_state, (WIDTH,))

        def logps(state):
            return jax.nn.log_softmax(embeddings @ state)[:2]

        def loss(state):
            return losses.dpo(*logps(state), *logps(start), beta=BETA)

        def step(state, _):
            return state - rate * jax.grad(loss)(state), None

        g_w, g_l = jax.jacrev(logps)(start)
        half = jnp.float32(BETA / 2)  # both coefficients of DPO where policy and reference are the same
        found = analysis.gradient_entanglement(g_w, g_l, half, half)
        size = (found.chosen_norm + found.rejected_norm) / 2
        normalised = start + rate * size * analysis.pairwise_normalized_direction(g_w, g_l, half)
        after = functools.partial(_changes, logps, start)
        return {
            "predicted": rate * jnp.stack([found.chosen_change, found.rejected_change]),
            "one step": after(step(start, None)[0]),
            f"{steps} steps": after(jax.lax.scan(step, start, None, length=steps)[0]),
            "normalised step": after(normalised),
        }

    return jax.vmap(one)(jax.random.split(key, pairs))


def supervised_model(seed, workdir, *, steps=150, model=TINY):
    """(data, model, parameters) of a tiny language model after SFT on the corpus, trained if it is not there yet."""
    config = common.preference({"dpo": {"weight": 1.0, "beta": BETA}})
    config.seed, config.before_workdir = seed, str(Path(workdir) / f"sft_{seed}")
    config.model.update(model)
    config.gold.samples = config.before.gold.samples = 0
    before = config.before.training
    before.steps = before.eval_every = config.before.checkpoints.every = steps
    device_mesh = mesh.make_mesh({"data": 1}, devices=jax.devices()[:1])
    with contextlib.redirect_stdout(io.StringIO()):
        stages.run_before(config, Path(workdir), finetune.run)
        data = from_config.load_data(config)
    language_model, _ = from_config.build_model(config, data.tokenizer.vocab_size)
    return data, language_model, stages.params_before(config, Path(workdir), language_model, device_mesh)


def _mean_state(features, mask):
    return jnp.sum(features, -2, where=mask[..., None]) / jnp.sum(mask, -1, keepdims=True)


def moved_pairs(model, params, batch, sides, *, size):
    """Every pair on its own, one plain step of DPO from the model itself: what was predicted, and what happened.

    The step of a pair is so long that its chosen side alone would gain `size` nats to first order. Returns {name: [B]}.
    """

    def one(row):
        rows = {k: v[None] for k, v in row.items()}

        def read(params, names=READ[:2]):
            computed = statistics.compute(statistics.needs_of(names), model, params, {}, rows)
            return [statistics.deliver(name, sides, computed, rows)[0] for name in names]

        before, pull = jax.vjp(read, params)
        one, zero = jnp.float32(1), jnp.float32(0)
        g_w, g_l = pull([one, zero])[0], pull([zero, one])[0]
        ww, ll, wl = (side_gradients.dot(a, b) for a, b in ((g_w, g_w), (g_l, g_l), (g_w, g_l)))
        half = jnp.float32(BETA / 2)
        found = analysis.entanglement_of_products(ww, ll, wl, half, half)
        rate = size / (half * ww)
        up, down = analysis.pairwise_normalized_factors(ww, ll, half * (jnp.sqrt(ww) + jnp.sqrt(ll)) / 2)

        def chosen_after(of_chosen, of_rejected):
            def move(p, w, l):
                return p + rate * (of_chosen * w - of_rejected * l)

            return read(jax.tree.map(move, params, g_w, g_l))[0] - before[0]

        masks = (rows["mask"][0, sides.index(side)] for side in side_gradients.SIDES)
        states = [_mean_state(f, m) for f, m in zip(read(params, READ)[2:], masks, strict=True)]
        return {
            "similarity": states[0] @ states[1] / (jnp.linalg.norm(states[0]) * jnp.linalg.norm(states[1])),
            "gradient_cosine": found.cosine,
            "predicted": rate * found.chosen_change,
            "one step": chosen_after(half, half),
            "normalised step": chosen_after(up, down),
        }

    keys = ("tokens", "positions", "segment_ids", "targets", "predict_from", "mask", "last_index")
    return jax.lax.map(one, {k: jnp.asarray(batch[k]) for k in keys})


def on_language_model(seeds, pairs, size, bins, workdir, lm):
    """(a row per pair, a row per seed and share of the pairs by similarity)."""
    of_pairs, of_bins = [], []
    for seed in range(seeds):
        data, model, params = supervised_model(seed, workdir, **lm)
        measure = jax.jit(functools.partial(moved_pairs, model, sides=data.sides, size=size))
        batch = {k: v for k, v in data.collate(data.evaluation[:pairs]).items() if v is not None}
        found = {k: np.asarray(v) for k, v in measure(params, batch=batch).items()}
        of_pairs += [{"seed": seed} | {k: float(v[i]) for k, v in found.items()} for i in range(pairs)]
        for number, members in enumerate(np.array_split(np.argsort(found["similarity"]), bins), 1):
            where = {"seed": seed, "bin": number, "similarity": float(found["similarity"][members].mean())}
            of_bins += [
                where | {"what": what, "share_fallen": float((found[what][members] < 0).mean())}
                for what in ("predicted", "one step", "normalised step")
            ]
    return of_pairs, of_bins


def tables(
    *, seeds=5, pairs=200, steps=50, rate=1.0, similarities=(0.0, 0.5, 0.8, 0.9, 0.95, 0.99),
    lm_seeds=5, lm_pairs=120, lm_size=0.02, lm_bins=3, workdir=None, lm=None,
):  # fmt: skip
    """`workdir` keeps the language models between calls; None: a temporary directory. `lm`: of `supervised_model`."""
    shares = []
    for seed in range(seeds):
        for similarity in similarities:
            found = toy(jax.random.key(seed), jnp.float32(similarity), pairs=pairs, steps=steps, rate=rate)
            shares += [
                {"seed": seed, "similarity": similarity, "what": what, "share_fallen": float((v[:, 0] < 0).mean())}
                | {"chosen_change_nats": float(v[:, 0].mean()), "rejected_change_nats": float(v[:, 1].mean())}
                for what, v in found.items()
            ]
    with tempfile.TemporaryDirectory() as temporary:
        of_pairs, of_bins = on_language_model(lm_seeds, lm_pairs, lm_size, lm_bins, workdir or temporary, lm or {})
    return {"toy": shares, "lm_pairs": of_pairs, "lm_shares": of_bins}


def figure(tables):
    drawn, (left, middle, right) = style.panels(3)
    looks = {"predicted": {"linestyle": "--", "marker": "o"}, "one step": {"marker": "s"}}
    for what in style.distinct(tables["toy"], "what"):
        rows = style.select(tables["toy"], what=what)
        style.band(left, rows, "similarity", "share_fallen", label=what, **looks.get(what, {}))
    left.set(xlabel="cosine of the two embeddings", ylabel="pairs whose chosen falls (share)", title="toy")
    left.legend()
    colours = dict(zip(style.distinct(tables["toy"], "what"), style.COLOURS, strict=False))
    for what in style.distinct(tables["lm_shares"], "what"):
        rows = style.select(tables["lm_shares"], what=what)
        style.band(middle, rows, "bin", "share_fallen", label=what, color=colours[what], **looks.get(what, {}))
    bins = style.distinct(tables["lm_shares"], "bin")
    means = [np.mean([r["similarity"] for r in style.select(tables["lm_shares"], bin=b)]) for b in bins]
    middle.set_xticks(bins, [f"{mean:.2f}" for mean in means])
    middle.set(
        xlabel="mean cosine of hidden states in each part", ylabel="share", title="tiny LM", ylim=left.get_ylim()
    )
    middle.legend()
    for seed in style.distinct(tables["lm_pairs"], "seed"):
        rows = style.select(tables["lm_pairs"], seed=seed)
        x, y = ([row[c] for row in rows] for c in ("predicted", "one step"))
        right.plot(x, y, style.MARKERS[seed], markersize=4, alpha=0.6, label=f"seed {seed}")
    right.axline((0, 0), slope=1, color="0.5", lw=0.8)
    right.set(xlabel="predicted change of the chosen (nats)", ylabel="observed (nats)", title="tiny LM, one step")
    right.legend()
    return drawn
