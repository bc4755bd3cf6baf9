"""One table of all public kernels, one suite of promises that every row is held to.

A new kernel gets a `Row` in the `rows_*.py` of its package's tests: inputs, what it trains, a value worked out by hand,
what is out of range. A public kernel without a row fails `test_every_public_kernel_has_a_row`.
"""

import functools
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import parameterized
from contract import B, Row, T, collect, token_mask
from jax.sharding import AxisType, PartitionSpec

from alignment.losses import reductions
from alignment.losses.stateful import StatefulKernel

ROWS = collect(Path(__file__).parent)
PACKAGES = sorted({row.namespace for row in ROWS}, key=lambda p: p.__name__)
each = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
each_that_trains = pytest.mark.parametrize("row", [r for r in ROWS if r.trains], ids=lambda row: row.name)
each_with_mask = pytest.mark.parametrize("row", [r for r in ROWS if r.hidden], ids=lambda row: row.name)
each_with_rows = pytest.mark.parametrize(
    "row", [r for r in ROWS if r.per != "state" and not r.batch_wide], ids=lambda row: row.name
)
each_batch_wide = pytest.mark.parametrize("row", [r for r in ROWS if r.batch_wide], ids=lambda row: row.name)
each_package = pytest.mark.parametrize("package", PACKAGES, ids=lambda p: p.__name__)


def arrays_of(tree: Mapping, dtype=jnp.float32) -> dict[str, jax.Array]:
    """Floats in `dtype`, integers and bools as they are."""
    tree = {k: np.asarray(v) for k, v in tree.items()}
    return {k: jnp.asarray(v, dtype if v.dtype.kind == "f" else None) for k, v in tree.items()}


def floating(tree: Mapping) -> tuple[str, ...]:
    return tuple(k for k, v in tree.items() if jnp.issubdtype(v.dtype, jnp.floating))


def cotangents(row: Row) -> np.ndarray:
    """Not all one: a gradient rule that forgets the incoming cotangent is right only when that is one."""
    return np.random.default_rng(1).normal(size=row.shape())


@functools.cache
def program(row: Row):
    """The kernel compiled, once for all tests that need no more than its values."""
    return jax.jit(lambda *arrays: row.kernel(*arrays, **row.hyper))


@functools.cache
def derivative(row: Row):
    """Values and gradients of sum(weights * values) by every floating argument: one program for many tests."""
    order = list(row.example())

    def total(floats, others, weights):
        tree = {**floats, **others}
        values = row.kernel(*(tree[name] for name in order), **row.hyper)  # jit sorts the keys of a dict
        return jnp.sum(weights * values), values

    return jax.jit(jax.value_and_grad(total, has_aux=True))


def values_and_gradients(row: Row, tree: Mapping) -> tuple[jax.Array, dict[str, jax.Array]]:
    floats = {k: tree[k] for k in floating(tree)}
    others = {k: v for k, v in tree.items() if k not in floats}
    (_, values), gradients = derivative(row)(floats, others, jnp.asarray(cotangents(row)))
    return values, gradients


@each_package
def test_every_public_kernel_has_a_row(package):
    assert sorted(package.__all__) == sorted(row.name for row in ROWS if row.namespace is package)


@each_package
def test_every_public_function_of_a_kernel_module_is_exported(package):
    infrastructure = {"composition", "links", "margins", "masking", "reductions", "stateful"}
    infrastructure |= {"grouping", "prompt_memory", "selection", "objectives", "proxy_points"}
    for info in pkgutil.iter_modules(package.__path__):
        if info.name in infrastructure:
            continue
        module = importlib.import_module(f"{package.__name__}.{info.name}")
        own = {n for n, f in inspect.getmembers(module, inspect.isfunction) if f.__module__ == module.__name__}
        methods = {n for n, value in vars(module).items() if isinstance(value, StatefulKernel)}
        assert {n for n in own | methods if not n.startswith("_")} <= set(package.__all__), module.__name__


def test_importing_kernels_pulls_in_neither_models_nor_data_nor_plots():
    packages = "alignment.losses, alignment.metrics, alignment.analysis, alignment.policy_gradients"
    packages += ", alignment.multi_objective"
    code = f"import sys, {packages}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    heavy = ("flax", "optax", "orbax", "grain", "tensorflow", "tensorflow_datasets", "ml_collections", "matplotlib")
    assert not set(heavy) & set(loaded)
    assert not [m for m in loaded if m.startswith(("alignment.models", "alignment.training", "alignment.data"))]


@each
def test_signature_is_arrays_first_then_keyword_only_hyperparameters_with_defaults(row):
    parameters = list(inspect.signature(row.documented).parameters.values())
    arrays = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    hyper = [p for p in parameters if p.kind is p.KEYWORD_ONLY]
    assert arrays + hyper == parameters  # no *args, no **kwargs
    assert [p.name for p in arrays] == list(row.example())
    assert all(p.default is p.empty for p in arrays) and all(p.default is not p.empty for p in hyper)


@each
def test_docstring_names_the_source_the_shapes_and_the_errors(row):
    text = inspect.getdoc(row.documented)
    assert re.search(r"arXiv \d{4}\.\d{5}|standard practice", text)
    assert "Shapes" in text and "Raises" in text and "Paper" in text


@each
def test_value_is_the_one_worked_out_by_hand(row):
    for arrays, hyper, expected in row.hand:
        values = jax.jit(functools.partial(row.kernel, **hyper))(*arrays_of(arrays).values())
        np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)


@each
def test_values_are_unreduced(row):
    assert row.kernel(*arrays_of(row.example()).values(), **row.hyper).shape == row.shape()


@each
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_input_is_computed_in_float32(row, dtype):
    half = arrays_of(row.example(), dtype)
    full = {k: v.astype(jnp.float32) if k in floating(half) else v for k, v in half.items()}
    values = row.kernel(*half.values(), **row.hyper)
    assert values.dtype == jnp.float32
    np.testing.assert_array_equal(values, row.kernel(*full.values(), **row.hyper))


@each_that_trains
def test_gradient_agrees_with_finite_differences(row):
    with jax.enable_x64(True):
        tree = arrays_of(row.example(2), jnp.float64)
        weights, step = cotangents(row), 1e-5
        pinned = row.pinned(tree, row.hyper) if row.pinned else program(row)
        _, gradients = values_and_gradients(row, tree)
        rng = np.random.default_rng(3)
        for name in row.trains:
            direction = rng.normal(size=tree[name].shape)
            high = pinned(*{**tree, name: tree[name] + step * direction}.values())
            low = pinned(*{**tree, name: tree[name] - step * direction}.values())
            assert high.dtype == jnp.float64
            numeric = np.sum(weights * np.asarray(high - low)) / (2 * step)
            np.testing.assert_allclose(np.sum(gradients[name] * direction), numeric, rtol=1e-6, atol=1e-9)


@each_that_trains
def test_gradient_in_float32_is_that_in_float64_tens_of_nats_away(row):
    """Where a difference of large numbers, or a probability that rounds to 0 or 1, would show."""
    example, rng = row.example(), np.random.default_rng(4)
    if "random_bits" in example:
        pytest.skip("what is drawn from the same bits depends on the precision")
    for name, value in example.items():
        in_nats = not name.endswith(("features", "head_rewards", "head_scores", "head_weights"))
        if value.dtype.kind == "f" and name not in row.extremes and name != "labels" and in_nats:
            far = value + rng.uniform(-30.0, 30.0, value.shape)
            example[name] = np.abs(far) if "kls" in name else far
    example = {k: v.astype(np.float32) if v.dtype.kind == "f" else v for k, v in example.items()}
    _, single = values_and_gradients(row, arrays_of(example))
    with jax.enable_x64(True):
        _, double = values_and_gradients(row, arrays_of(example, jnp.float64))
    for name in row.trains:
        got, exact = np.asarray(single[name]), np.asarray(double[name])
        assert (got.dtype, exact.dtype) == (np.float32, np.float64)
        # Rounding may cost an entry 1e-5 of the largest of its own example, and a saturated sigmoid its last 1e-6.
        largest = np.abs(exact).max(axis=tuple(range(1, exact.ndim)), keepdims=True)
        excess = np.abs(got - exact) - (1e-3 * np.abs(exact) + 1e-5 * largest + 1e-6)
        assert (excess <= 0).all(), f"{name}: {got[excess > 0]}, in float64 {exact[excess > 0]}"


@each_that_trains
def test_gradient_is_finite_and_non_zero_for_everything_trained(row):
    _, gradients = values_and_gradients(row, arrays_of(row.example()))
    for name in row.trains:
        assert np.isfinite(gradients[name]).all(), name
        assert np.abs(gradients[name]).max() > 1e-4, name


@each
def test_gradient_is_zero_for_everything_held_fixed(row):
    _, gradients = values_and_gradients(row, arrays_of(row.example()))
    for name in set(gradients) - set(row.trains):
        np.testing.assert_array_equal(gradients[name], np.zeros_like(gradients[name]), err_msg=name)


@each_with_mask
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf, 1e30])
def test_nothing_behind_the_mask_reaches_value_or_gradient(row, poison):
    example = row.example()
    clean = arrays_of(example)
    dirty = dict(clean)
    for name, hidden in row.hidden.items():
        assert hidden(example).any()
        dirty[name] = jnp.where(hidden(example), poison, clean[name])
    (values, expected), (dirty_values, got) = values_and_gradients(row, clean), values_and_gradients(row, dirty)
    np.testing.assert_array_equal(dirty_values, values)
    for name in expected:
        np.testing.assert_array_equal(got[name], expected[name], err_msg=name)
    for name in set(row.trains) & set(row.hidden):
        np.testing.assert_array_equal(np.asarray(got[name])[row.hidden[name](example)], 0.0)


@each
def test_log_ratios_up_to_1e4_stay_finite_in_value_and_gradient(row):
    for seed in range(3):
        example = row.example()
        rng = np.random.default_rng(seed)
        for name, value in example.items():
            if name in row.extremes:
                example[name] = rng.choice(row.extremes[name], value.shape).astype(value.dtype)
            elif value.dtype.kind == "f" and name != "labels":
                extreme = rng.choice([-1e4, 0.0, 1e4], value.shape)
                example[name] = np.abs(extreme) if "kls" in name else extreme
        values, gradients = values_and_gradients(row, arrays_of(example))
        assert np.isfinite(values).all()
        for name, gradient in gradients.items():
            assert np.isfinite(gradient).all(), name


@pytest.mark.parametrize(
    "row,name,value,interval",
    [(row, *case) for row in ROWS for case in row.out_of_range],
    ids=lambda x: x.name if isinstance(x, Row) else str(x),
)
def test_hyperparameter_out_of_range_is_an_error_that_states_the_range(row, name, value, interval):
    arrays = arrays_of(row.example()).values()
    with pytest.raises(ValueError, match=f"^{name} must .*{re.escape(interval)}.*{value}"):
        row.kernel(*arrays, **{name: value})


@each
def test_every_float_hyperparameter_has_a_range_and_may_be_vmapped_over(row):
    arrays = list(arrays_of(row.example()).values())
    parameters = inspect.signature(row.documented).parameters.values()
    names = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and isinstance(p.default, float)]
    assert set(names) <= {name for name, _, _ in row.out_of_range}
    for name in names:
        settings = [0.1, 0.3]
        sweep = jax.jit(jax.vmap(lambda value, n=name: row.kernel(*arrays, **{**row.hyper, n: value})))
        swept = sweep(jnp.array(settings))
        for value, got in zip(settings, swept, strict=True):
            expected = row.kernel(*arrays, **{**row.hyper, name: value})
            np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


@each
def test_a_wrong_shape_is_rejected(row):
    tree = arrays_of(row.example())
    for name, value in tree.items():
        if row.per == "state" and name in row.shared:
            continue  # any number of annotators is a right one
        if len(tree) == 1:
            continue  # there is no other array for it to disagree with
        other_lengths = () if name in row.any_length else (jnp.concatenate([value, value]), value[:1])
        for wrong in (*other_lengths, value[..., None]):
            with pytest.raises(AssertionError):
                row.kernel(*{**tree, name: wrong}.values(), **row.hyper)


@each
def test_a_wrong_dtype_is_rejected(row):
    tree = arrays_of(row.example())
    for name, value in tree.items():
        wrong = value.astype(jnp.int32 if name in floating(tree) else jnp.float32)
        with pytest.raises(AssertionError):
            row.kernel(*{**tree, name: wrong}.values(), **row.hyper)


@each_with_rows
def test_examples_do_not_see_each_other(row):
    """Any subset of the rows gives those rows' values, and vmap over the examples is the batch."""
    tree = arrays_of(row.example())
    whole = program(row)(*tree.values())
    rows = np.array([5, 0, 3])
    part = program(row)(*row.batched(tree, rows).values())
    np.testing.assert_allclose(part, whole[rows], rtol=1e-6, atol=1e-6)
    axes = tuple(None if name in row.shared else 0 for name in tree)
    one_by_one = jax.jit(jax.vmap(lambda *a: row.kernel(*a, **row.hyper), in_axes=axes))(*tree.values())
    np.testing.assert_allclose(one_by_one, whole, rtol=1e-6, atol=1e-6)


@each
def test_a_batch_split_by_shard_map_equals_the_whole_batch(row):
    count = max(n for n in (1, 2, 4, 8) if n <= jax.device_count())
    mesh = jax.make_mesh((count,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:count])
    tree = arrays_of(row.example())
    split = PartitionSpec("data")
    specs = tuple(PartitionSpec() if name in row.shared else split for name in tree)
    alone = row.per == "state" and set(row.example()) <= set(row.shared)  # nothing of it is split
    hyper = {**row.hyper, **({"axis_name": "data"} if (row.per == "state" and not alone) or row.batch_wide else {})}
    sharded = jax.shard_map(
        lambda *a: row.kernel(*a, **hyper),
        mesh=mesh,
        in_specs=specs,
        out_specs=PartitionSpec() if row.per == "state" else split,
    )
    np.testing.assert_allclose(jax.jit(sharded)(*tree.values()), program(row)(*tree.values()), rtol=1e-6, atol=1e-6)


@each_batch_wide
def test_rows_that_only_pad_a_batch_change_nothing(row):
    """A padded row carries log-probs of 0, whatever its labels; the others' values and gradients must not notice."""
    example = row.example()
    assert "valid" in example and "axis_name" in inspect.signature(row.documented).parameters
    kept = np.array([0, 1, 3, 4, 6])
    padded = {k: np.array(v) for k, v in example.items()}
    blank = np.setdiff1d(np.arange(B), kept)
    for name, value in padded.items():
        if name not in row.shared:
            value[blank] = 0
    whole, part = arrays_of(padded), arrays_of(row.batched(example, kept))
    part["valid"], whole["valid"] = jnp.ones(len(kept), bool), jnp.asarray(np.isin(np.arange(B), kept))

    def total(trained, tree):
        tree = {**tree, **trained}  # jit sorts the keys of a dict
        values = row.kernel(*(tree[name] for name in example), **row.hyper)
        valid = tree["valid"].reshape(-1, *(1,) * (values.ndim - 1))
        return jnp.sum(jnp.where(valid, values, 0.0)), values

    run = jax.jit(jax.value_and_grad(total, has_aux=True))
    (_, values), gradients = run({k: whole[k] for k in row.trains}, whole)
    (_, expected), expected_gradients = run({k: part[k] for k in row.trains}, part)
    np.testing.assert_allclose(values[kept], expected, rtol=1e-5, atol=1e-6)
    for name in row.trains:
        if name in row.shared:  # it has no rows of its own
            np.testing.assert_allclose(gradients[name], expected_gradients[name], rtol=1e-4, atol=1e-5)
            continue
        np.testing.assert_allclose(gradients[name][kept], expected_gradients[name], rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(gradients[name][blank], 0.0)


@each_with_rows
def test_micro_batches_add_up_to_the_batch_in_loss_and_gradient(row):
    tree = arrays_of(row.example())
    names = list(tree)
    if row.per == "token":
        mask = token_mask(np.random.default_rng(5), (B, T))
        mask[:2] = False  # a micro-batch of two or four rows has few of its tokens, or none
        choices = (reductions.token_mean, reductions.sequence_mean, reductions.constant(6))
    else:
        mask = np.array([True, False, True, True, False, False, True, True])
        choices = (reductions.example_mean,)

    @jax.jit
    def weights_of(mask):
        return jnp.stack([reduction.weight(mask) for reduction in choices])

    @jax.jit
    def run(trained, tree, mask):
        def loss(trained):
            values = row.kernel(*({**tree, **trained}[name] for name in names), **row.hyper)  # jit sorts the keys
            means = jnp.stack([reduction.total(values, mask) for reduction in choices]) / weights
            return means @ jnp.arange(1.0, 1.0 + len(choices)), means  # no two reductions may make up for each other

        (_, means), gradients = jax.value_and_grad(loss, has_aux=True)(trained)
        return means, gradients

    weights = weights_of(mask)
    whole, gradient = run({k: tree[k] for k in row.trains}, tree, mask)
    for micro_batches in (2, 4):
        parts = np.split(np.arange(B), micro_batches)
        np.testing.assert_allclose(weights, sum(weights_of(mask[rows]) for rows in parts))
        pieces = []
        for rows in parts:
            part = row.batched(tree, rows)
            pieces.append(run({k: part[k] for k in row.trains}, part, mask[rows]))
        np.testing.assert_allclose(sum(means for means, _ in pieces), whole, rtol=1e-5)
        for name in row.trains:
            joined = np.concatenate([gradients[name] for _, gradients in pieces])
            np.testing.assert_allclose(joined, gradient[name], rtol=1e-5, atol=1e-7)


class VariantsTest(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True, with_device=True, with_pmap=True)
    @parameterized.named_parameters(*((row.name, row) for row in ROWS))
    def test_transformation_leaves_the_value(self, row):
        tree = arrays_of(row.example())
        expected = np.asarray(program(row)(*tree.values()))
        values = self.variant(lambda *arrays: row.kernel(*arrays, **row.hyper))(*tree.values())
        np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)


def test_the_three_functions_of_a_stateful_kernel_take_the_same_hyperparameters():
    def hyper(function):
        parameters = inspect.signature(function).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != "axis_name"}

    methods = [row.public for row in ROWS if isinstance(row.public, StatefulKernel)]
    assert methods
    for method in methods:
        assert hyper(method.init) == hyper(method.loss) == hyper(method.update)
        assert "axis_name" in inspect.signature(method.update).parameters
