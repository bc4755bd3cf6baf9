"""GaLore and Fira: what the projection leaves of Adam, and what optax asks of every optimizer."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from alignment.training import low_rank, optimizer
from configs import common

SHAPES = {"tall": (6, 4), "wide": (3, 5), "stacked": (2, 5, 3), "bias": (4,)}
MAKERS = {"galore": low_rank.scale_by_galore, "fira": low_rank.scale_by_fira}
each = pytest.mark.parametrize("name", MAKERS)


def gradients(seed, shapes=SHAPES):
    rng = np.random.default_rng(seed)
    return {k: jnp.asarray(rng.normal(size=s), jnp.float32) for k, s in shapes.items()}


def run(tx, trees):
    """Directions and states of every step."""
    update = jax.jit(tx.update)
    state, out = tx.init(jax.tree.map(jnp.zeros_like, trees[0])), []
    for tree in trees:
        direction, state = update(tree, state)
        out.append((direction, state))
    return out


def oracle(gradients, rank, gap, scale, limit=None, b1=0.9, b2=0.999, eps=1e-6):
    """One tall matrix in numpy, float64; with `limit` it is Fira. Returns the directions and the norms of C."""
    m = v = 0.0
    previous, out, norms = None, [], []
    for t, g in enumerate(np.asarray(gradients, np.float64)):
        if t % gap == 0:
            p = np.linalg.svd(g)[2][:rank]
            p *= np.sign(p[np.arange(rank), np.abs(p).argmax(1)])[:, None]
        r = g @ p.T
        m, v = b1 * m + (1 - b1) * r, b2 * v + (1 - b2) * r**2
        n = m / (np.sqrt(v) + eps)
        direction = scale * n @ p
        if limit is not None:
            c = (np.linalg.norm(n, axis=1) / (np.linalg.norm(r, axis=1) + 1e-8))[:, None] * (g - r @ p)
            if previous is not None:
                c /= max(np.linalg.norm(c) / (previous + 1e-8), limit) / limit
            previous = np.linalg.norm(c)
            norms.append(previous)
            direction = direction + c
        out.append(np.sqrt(1 - b2 ** (t + 1)) / (1 - b1 ** (t + 1)) * direction)
    return out, norms


@each
def test_seven_steps_with_a_new_projection_are_those_of_the_formulas(name):
    trees = [gradients(seed) for seed in range(7)]
    got = run(MAKERS[name](2, gap=3, scale=0.25), trees)
    limit = 1.01 if name == "fira" else None
    by_layer = {f"stacked {i}": [t["stacked"][i] for t in trees] for i in range(2)}
    for key, seen in {"tall": [t["tall"] for t in trees], "wide": [t["wide"].T for t in trees], **by_layer}.items():
        expected, norms = oracle(np.stack(seen), 2, 3, 0.25, limit)
        for (direction, state), one, i in zip(got, expected, range(7), strict=True):
            leaf = direction[key.split()[0]]
            mine = leaf[int(key[-1])] if " " in key else leaf.T if key == "wide" else leaf
            np.testing.assert_allclose(mine, one, rtol=2e-3, atol=2e-4, err_msg=f"{key} step {i}")
            if norms and key == "tall":
                np.testing.assert_allclose(state.residual_norm["tall"], norms[i], rtol=1e-3)
    if name == "fira":
        of_tall = [float(state.residual_norm["tall"]) for _, state in got]
        assert all(b <= 1.01 * a + 1e-5 for a, b in itertools.pairwise(of_tall))


def test_the_direction_of_galore_lies_in_the_subspace_and_what_fira_adds_is_orthogonal_to_it():
    trees = [gradients(0), gradients(1)]
    plain, full = (run(make(2, scale=1.0), trees) for make in MAKERS.values())
    for (one, state), (other, _) in zip(plain, full, strict=True):
        p = state.projector["tall"]
        np.testing.assert_allclose(one["tall"] @ p.T @ p, one["tall"], atol=1e-5)
        added = other["tall"] - one["tall"]
        assert jnp.linalg.norm(added) > 0.1
        np.testing.assert_allclose(added @ p.T, 0.0, atol=1e-4)


def test_at_full_rank_nothing_is_outside_and_a_fixed_basis_turns_adam_with_it():
    trees = [gradients(seed, {"a": (5, 3)}) for seed in range(3)]
    galore, fira = (run(make(3, scale=1.0), trees) for make in MAKERS.values())
    for (one, _), (other, _) in zip(galore, fira, strict=True):
        np.testing.assert_allclose(one["a"], other["a"], atol=1e-3)
    p = galore[0][1].projector["a"]
    expected, _ = run(low_rank.scale_by_galore(9, matrices=lambda *_: False), [{"a": t["a"] @ p.T} for t in trees])[-1]
    np.testing.assert_allclose(galore[-1][0]["a"], expected["a"] @ p, rtol=1e-3, atol=1e-4)


@each
def test_a_transposed_matrix_gets_the_transposed_direction(name):
    trees = [gradients(seed, {"a": (5, 3)}) for seed in range(3)]
    plain = run(MAKERS[name](2, gap=2), trees)
    turned = run(MAKERS[name](2, gap=2), [{"a": t["a"].T} for t in trees])
    for (one, _), (other, _) in zip(plain, turned, strict=True):
        np.testing.assert_allclose(one["a"], other["a"].T, rtol=1e-4, atol=1e-5)


@each
def test_no_gradient_gives_no_update_and_vectors_get_adam(name):
    zeros = jax.tree.map(jnp.zeros_like, gradients(0))
    assert all((x == 0).all() for x in jax.tree.leaves(run(MAKERS[name](2), [zeros])[0][0]))
    trees = [gradients(seed, {"bias": (4,)}) for seed in range(3)]
    mine = run(MAKERS[name](2, eps=1e-10), trees)[-1][0]["bias"]
    adam = run(optax.scale_by_adam(eps=1e-10), trees)[-1][0]["bias"]
    np.testing.assert_allclose(mine, adam, rtol=1e-4)


# --- as optax tests its own -------------------------------------------------------------------------------------------


@each
def test_it_descends_a_parabola_jitted_with_injected_hyperparameters_and_keeps_its_state_structure(name):
    target = {"a": gradients(0)["tall"], "b": gradients(0)["bias"]}
    tx = optax.inject_hyperparams(
        lambda learning_rate: optax.chain(MAKERS[name](2, gap=5, scale=1.0), optax.scale(-learning_rate))
    )(learning_rate=0.1)

    def loss(params):
        return optax.global_norm(jax.tree.map(jnp.subtract, params, target)) ** 2

    @jax.jit
    def step(params, state, _):
        updates, state = tx.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    params = jax.tree.map(jnp.zeros_like, target)
    state = tx.init(params)
    after = jax.eval_shape(step, params, state, 0)[1]
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert [x.shape for x in jax.tree.leaves(after)] == [jnp.shape(x) for x in jax.tree.leaves(state)]
    params, _ = jax.lax.fori_loop(0, 150, lambda i, carry: step(*carry, i), (params, after and state))
    assert loss(params) < 0.05 * loss(jax.tree.map(jnp.zeros_like, target))


@each
def test_jit_changes_nothing_and_the_types_of_the_gradients_come_back(name):
    tree = jax.tree.map(lambda x: x.astype(jnp.bfloat16), gradients(0, {"a": (4, 3)}))
    tx = MAKERS[name](2)
    plain, _ = tx.update(tree, tx.init(tree))
    np.testing.assert_allclose(plain["a"], run(tx, [tree])[0][0]["a"], rtol=1e-2)
    assert plain["a"].dtype == jnp.bfloat16


@each
def test_a_config_names_it_for_the_matrices_of_the_layers_alone(name):
    params = {"embedding": jnp.ones((9, 4)), "layers": {"q": jnp.ones((2, 6, 4)), "attention_norm": jnp.ones((2, 4))}}
    settings = common.base().optimizer.to_dict() | {"name": name, "projection_rank": 2, "warmup_steps": 0}
    tx, _ = optimizer.make(settings, 10)
    (state,) = [s for s in jax.tree.leaves(tx.init(params), is_leaf=_is_low_rank) if _is_low_rank(s)]
    assert state.mu["layers"]["q"].shape == (2, 6, 2)
    assert state.mu["embedding"].shape == (9, 4) and state.mu["layers"]["attention_norm"].shape == (2, 4)


def _is_low_rank(x):
    return isinstance(x, low_rank.LowRankState)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (functools.partial(low_rank.scale_by_galore, 0), r"rank must be an integer in \[1, inf\)"),
        (functools.partial(low_rank.scale_by_galore, 2, gap=0), r"gap must be an integer in \[1, inf\)"),
        (functools.partial(low_rank.scale_by_fira, 2, limit=0.9), r"limit must lie in \[1, inf\)"),
        (functools.partial(low_rank.scale_by_fira, 2, b1=1.0), r"b1 must lie in \[0, 1\)"),
        (lambda: optimizer.make(common.base().optimizer.to_dict() | {"name": "adam"}, 3), "config.optimizer.name"),
        (
            lambda: optimizer.make(common.base().optimizer.to_dict() | {"name": "fira", "projection_rank": 0}, 3),
            "config.optimizer: rank",
        ),
    ],
)
def test_what_is_out_of_range_is_said(call, message):
    with pytest.raises(ValueError, match=message):
        call()
