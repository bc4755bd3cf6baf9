"""AlignGuard-LoRA: its identities, a Fisher matrix done by hand, and a penalty that a step adds once."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny_runs
import tiny_steps

from alignment.data import collating, corpus, formats, rows, tokenizers
from alignment.models import lora
from alignment.training import alignment_guard, mesh, state, step
from alignment.training.logging import read_metrics
from experiments import finetune

D, K = 5, 4


def arrays(seed=0, lead=()):
    """An update, weights, per-example gradients and the Fisher matrix of these."""
    rng = np.random.default_rng(seed)
    shapes = (*lead, D, K), (*lead, D, K), (6, *lead, D, K)
    update, weights, gradients = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in shapes)
    return update, weights, gradients, alignment_guard.fisher_matrix(gradients)


def of(update, weights, fisher, count, **settings):
    vectors = alignment_guard.top_eigenvectors(fisher, count)
    return alignment_guard.terms(update, weights, fisher, vectors, jnp.ones(update.shape[:-1]), **settings)


def test_the_fisher_matrix_is_the_mean_of_outer_products_and_its_diagonal_the_diagonal():
    _, _, gradients, fisher = arrays(lead=(2,))
    byhand = np.mean([[layer @ layer.T for layer in g] for g in np.asarray(gradients, np.float64)], axis=0)
    np.testing.assert_allclose(fisher, byhand, rtol=1e-5, atol=1e-5)
    diagonal = alignment_guard.fisher_diagonal(gradients)
    np.testing.assert_allclose(diagonal, np.diagonal(byhand, axis1=-2, axis2=-1), rtol=1e-5)


def test_the_gradients_of_the_fisher_matrix_are_those_of_each_examples_log_likelihood():
    examples = formats.from_records(corpus.generate("completion", 3, 3), "completion")
    tokenised, _ = rows.tokenize(examples, tokenizers.ByteTokenizer(), prompt_length=32, completion_length=64)
    batch, model = collating.collate_trees(tokenised, 32, 64, 1), tiny_steps.MODEL
    params = model.init(jax.random.key(0))
    got = alignment_guard.estimate_fisher(model, ("q", "down"), params, batch, alignment_guard.fisher_matrix)

    def logp(matrix, row):
        changed = params | {"layers": params["layers"] | {"q": matrix}}
        keys = ("tokens", "positions", "segment_ids")
        h, _ = model.hidden(changed, *(jnp.asarray(batch[k][row : row + 1]) for k in keys))
        logps = jax.nn.log_softmax(model.unembed(changed, h[0]))
        mask = batch["mask"][row, 0]
        return logps[batch["predict_from"][row, 0][mask], batch["targets"][row, 0][mask]].sum()

    gradients = np.stack([jax.grad(logp)(params["layers"]["q"], r) for r in range(len(batch["mask"]))])
    assert np.abs(gradients).max() > 1e-3
    np.testing.assert_allclose(got["q"], alignment_guard.fisher_matrix(gradients), rtol=1e-3, atol=1e-5)
    assert got["down"].shape == (2, 32, 32)


def test_the_parts_sum_to_the_update_and_the_projection_is_one():
    update, _, _, fisher = arrays(lead=(3,))
    for count in range(D + 1):
        vectors = alignment_guard.top_eigenvectors(fisher, count)
        aligned, rest = alignment_guard.split(update, vectors)
        np.testing.assert_allclose(aligned + rest, update, atol=1e-6)
        np.testing.assert_allclose(alignment_guard.split(aligned, vectors)[0], aligned, atol=1e-5)
    np.testing.assert_allclose(rest, 0.0, atol=1e-5)  # m = d
    aligned, rest = alignment_guard.split(update, alignment_guard.top_eigenvectors(fisher, 0))
    assert (aligned == 0).all() and (rest == update).all()


def test_of_an_exact_split_the_squared_cosine_is_zero_and_so_is_its_gradient():
    update, weights, _, fisher = arrays()
    value, gradient = jax.value_and_grad(lambda u: of(u, weights, fisher, 2).cosine)(update)
    assert value < 1e-11
    assert jnp.abs(gradient).max() < 1e-6
    assert np.isfinite(jax.grad(lambda u: of(u, weights, fisher, 2).cosine)(jnp.zeros_like(update))).all()


def test_parts_that_are_their_own_parameters_are_pushed_apart():
    one, other, _, _ = arrays()
    value, gradient = jax.value_and_grad(alignment_guard.squared_cosine)(one, other)
    expected = np.sum(one * other) ** 2 / (np.sum(one**2) * np.sum(other**2))
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(alignment_guard.squared_cosine(one, 3 * one), 1.0, rtol=1e-5)
    assert alignment_guard.squared_cosine(one - 0.1 * gradient, other) < value


def test_the_terms_by_hand():
    # F has the eigenvectors e1 (4) and e2 (1); U = e1: the first row of dW is dW_A, the second dW_T. Rows share no
    # entry, so E_RM is 0. tr(dW_A' F dW_A) = 4 (1 + 4) = 20; H = (2, 3): 3 (9 + 1) = 30.
    update, weights = jnp.array([[1.0, 2.0], [3.0, 1.0]]), jnp.zeros((2, 2))
    fisher, curvature = jnp.diag(jnp.array([4.0, 1.0])), jnp.array([2.0, 3.0])
    vectors = alignment_guard.top_eigenvectors(fisher, 1)
    got = alignment_guard.terms(update, weights, fisher, vectors, curvature)
    np.testing.assert_allclose(got, [20.0, 30.0, 0.0, 0.0], atol=1e-5)
    np.testing.assert_allclose(alignment_guard.total(got), 0.25 * 20 + 0.5 * 30, rtol=1e-6)
    # |dW_A dW_T| = (0.5, 0.5), |W| - tau = 0 and log 3 in place of 0: eta = 1 + 4/2 and 1 + 4 * 3/4.
    weights = jnp.array([[-0.01, 0.01 + np.log(3.0)]])
    got = alignment_guard.overlap_energy(jnp.array([[0.5, 1.0]]), jnp.array([[1.0, -0.5]]), weights)
    np.testing.assert_allclose(got, 0.5 * 3 + 0.5 * 4, rtol=1e-6)
    weighed = alignment_guard.total(alignment_guard.Terms(1.0, 2.0, 3.0, 0.5), alpha=0.25)
    np.testing.assert_allclose(weighed, 0.25 + 1.0 + 0.1 * (0.75 + 0.375), rtol=1e-6)


def test_at_beta_zero_every_entry_counts_once_and_the_weights_have_no_gradient():
    update, weights, _, fisher = arrays()
    aligned, rest = alignment_guard.split(update, alignment_guard.top_eigenvectors(fisher, 2))
    got = of(update, weights, fisher, 2, beta=0.0).overlap
    np.testing.assert_allclose(got, jnp.abs(aligned * rest).sum(), rtol=1e-6)
    assert (jax.grad(lambda w: of(update, w, fisher, 2).overlap)(weights) == 0).all()


def test_the_penalty_of_the_aligned_part_is_the_quadratic_form_and_its_gradient_is_twice_f_times_it():
    update, weights, _, fisher = arrays()
    value, gradient = jax.value_and_grad(lambda u: of(u, weights, fisher, 2).fisher)(update)
    root = np.linalg.cholesky(np.asarray(fisher, np.float64) + 1e-9 * np.eye(D))
    vectors = alignment_guard.top_eigenvectors(fisher, 2)
    aligned, _ = alignment_guard.split(update, vectors)
    np.testing.assert_allclose(value, np.sum((root.T @ np.asarray(aligned)) ** 2), rtol=1e-4)
    np.testing.assert_allclose(gradient, 2 * fisher @ aligned, rtol=1e-3, atol=1e-3)


def test_a_diagonal_matrix_gives_the_same_either_way():
    update, weights, gradients, _ = arrays(lead=(2,))
    diagonal = alignment_guard.fisher_diagonal(gradients)
    rows = alignment_guard.rows_covering(diagonal, mass=0.5)
    assert rows.any() and not rows.all()
    full = jax.vmap(jnp.diag)(diagonal)
    vectors = alignment_guard.eigenvectors_covering(full, mass=0.5)
    ones = jnp.ones((2, D))
    one = alignment_guard.diagonal_terms(update, weights, diagonal, rows, ones)
    other = alignment_guard.terms(update, weights, full, vectors, ones)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("mass", "counts"), [(0.0, (0, 0)), (0.5, (1, 2)), (0.75, (2, 3)), (1.0, (3, 4))])
def test_the_fewest_directions_that_hold_the_mass_are_kept(mass, counts):
    diagonal = jnp.array([[0.0, 5.0, 3.0, 2.0], [2.5, 2.5, 2.5, 2.5]])
    rows_kept = alignment_guard.rows_covering(diagonal, mass=mass)
    assert tuple(rows_kept.sum(-1).tolist()) == counts
    vectors = alignment_guard.eigenvectors_covering(jax.vmap(jnp.diag)(diagonal), mass=mass)
    assert tuple((vectors != 0).any(axis=-2).sum(-1).tolist()) == counts
    assert (rows_kept[0] == (vectors[0] != 0).any(axis=-1)).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: alignment_guard.top_eigenvectors(jnp.eye(3), 4), r"count must lie in \[0, 3\]"),
        (lambda: alignment_guard.rows_covering(jnp.ones(3), mass=1.1), r"mass must lie in \[0, 1\]"),
        (lambda: alignment_guard.eigenvectors_covering(jnp.eye(3), mass=-0.1), r"mass must lie in \[0, 1\]"),
        (lambda: alignment_guard.squared_cosine(jnp.eye(3), jnp.eye(3), eps=0.0), r"eps must lie in \(0, inf\)"),
        (
            lambda: alignment_guard.overlap_energy(jnp.eye(3), jnp.eye(3), jnp.eye(3), beta=-1.0),
            r"beta must lie in \[0, inf\)",
        ),
        (lambda: alignment_guard.total(alignment_guard.Terms(0, 0, 0, 0), alpha=2.0), r"alpha must lie in \[0, 1\]"),
        (lambda: alignment_guard.total(alignment_guard.Terms(0, 0, 0, 0), task_weight=-1.0), "task_weight must"),
        (lambda: alignment_guard.make_penalty(lora.Adapter(2, 2.0, magnitudes=True), None, None), "magnitudes"),
    ],
)
def test_what_is_out_of_range_is_said(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# --- in a step -------------------------------------------------------------------------------------------------------


def one_step(penalty, *, accumulate=1, device_mesh=None):
    """Gradient descent on the sum over the batch of x' w, and the logs; `penalty` as `step.make_update` takes it."""
    rng = np.random.default_rng(0)
    params = {"w": jnp.asarray(rng.normal(size=3), jnp.float32)}
    batch = {"x": jnp.asarray(rng.normal(size=(8, 3)), jnp.float32), "ids": jnp.arange(8)}
    fixed = {"target": jnp.asarray(rng.normal(size=3), jnp.float32)}

    def gradient(params, frozen_params, method_state, denominators, rows):
        assert step.PENALTY not in frozen_params
        loss, grads = jax.value_and_grad(lambda p: jnp.sum(rows["x"] @ p["w"]) / 8)(params)
        return (loss, ({}, {}, {})), grads

    optimizer = optax.sgd(1.0)
    update = step.make_update(gradient, (), (), ("",), optimizer, accumulate=accumulate, penalty=penalty)
    of_batch = None if device_mesh is None else mesh.batch_sharding(device_mesh)
    run = jax.jit(update, in_shardings=(None, None, of_batch))
    after, logs = run(state.create(params, optimizer, {}, jax.random.key(0)), {step.PENALTY: fixed}, batch)
    return params["w"] - after.params["w"], logs, params["w"] - fixed["target"], batch["x"].mean(axis=0)


def distance(params, fixed):
    return jnp.sum((params["w"] - fixed["target"]) ** 2)


@pytest.mark.parametrize("way", ["one batch", "micro-batches", "eight devices"])
def test_a_penalty_is_added_once_however_the_batch_is_split(way):
    settings = {"micro-batches": {"accumulate": 4}, "eight devices": {"device_mesh": mesh.make_mesh({"data": 8})}}
    moved, logs, apart, of_loss = one_step(distance, **settings.get(way, {}))
    np.testing.assert_allclose(moved, of_loss + 2 * apart, rtol=1e-5)
    np.testing.assert_allclose(logs["penalty"], jnp.sum(apart**2), rtol=1e-6)
    plain, plain_logs, *_ = one_step(None, **settings.get(way, {}))
    np.testing.assert_allclose(plain, of_loss, rtol=1e-5)
    np.testing.assert_allclose(logs["loss"], plain_logs["loss"] + logs["penalty"], rtol=1e-5)
    assert "penalty" not in plain_logs


def test_a_penalty_that_is_not_finite_skips_the_step():
    moved, logs, *_ = one_step(lambda params, fixed: jnp.log(-jnp.sum(params["w"] ** 2)))
    assert (moved == 0).all() and int(logs["skipped"]) == 1


# --- in a run --------------------------------------------------------------------------------------------------------


def test_a_run_with_all_weights_zero_is_plain_lora_bit_for_bit_and_one_with_weights_is_not(tmp_path, monkeypatch):
    tiny_runs.one_device(monkeypatch)
    base = functools.partial(tiny_runs.dpo, 3, {"sft": {}}, {})

    def run(name, **guard):
        config = base()
        config.data.kind, config.adapter.rank, config.optimizer.learning_rate = "completion", 2, 1e-2
        config.guard.update({"source": "corpus", "examples": 4} | guard if guard else {})
        finetune.run(config, tmp_path / name)
        return [r for r in read_metrics(tmp_path / name / "metrics.jsonl") if r["split"] == "train"]

    nothing = {f"{key}_weight": 0.0 for key in ("fisher", "task", "collision")}
    plain, zero = run("plain"), run("zero", **nothing)
    alike = ("loss", "grad_norm")
    assert [[r[k] for k in alike] for r in plain] == [[r[k] for k in alike] for r in zero]
    assert all(r["penalty"] == 0 for r in zero) and all("penalty" not in r for r in plain)
    guarded = run("guarded", fisher="diagonal", task_weight=5.0, mass=0.5)
    assert guarded[0]["penalty"] == 0 < guarded[-1]["penalty"]  # B is 0 at first
    assert guarded[-1]["loss"] != plain[-1]["loss"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"adapter.rank": 0}, "config.guard.source: the penalty is on adapters"),
        ({"adapter.magnitudes": True}, "config.guard.source: the penalty is on adapters without magnitudes"),
        ({"guard.fisher": "kronecker"}, "config.guard.fisher: 'kronecker' is not one of full, diagonal"),
        ({"guard.mass": 2.0}, r"config.guard.mass: must lie in \[0, 1\]"),
        ({"guard.task_weight": -1.0}, "config.guard.task_weight: must be at least 0"),
        ({"guard.examples": 0}, "config.guard.examples: must be at least 1"),
    ],
)
def test_settings_of_a_guard_that_do_not_fit_are_named(change, message, tmp_path):
    config = tiny_runs.dpo()
    config.adapter.rank, config.guard.source = 2, "corpus"
    config.update_from_flattened_dict(change)
    with pytest.raises(ValueError, match=message):
        finetune.run(config, tmp_path)
