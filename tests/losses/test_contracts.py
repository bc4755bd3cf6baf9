"""One table of all public kernels, one suite of promises that every row is held to.

A new kernel gets a `Row`: inputs, what it trains, a value worked out by hand, what is out of range. A kernel of
`alignment.losses` without a row fails `test_every_public_kernel_has_a_row`.
"""

import dataclasses
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from collections.abc import Callable, Mapping

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import parameterized
from jax.sharding import AxisType, PartitionSpec

from alignment import losses
from alignment.losses import reductions
from alignment.losses.label_noise import LcpoState
from alignment.losses.stateful import StatefulKernel

B, T, K, V = 8, 5, 4, 7


@dataclasses.dataclass(frozen=True)
class Row:
    """What the suite has to know of a kernel.

    inputs: draws float64 arrays by name, in the order of the kernel's arguments.
    trains: arguments that must get a gradient; every other floating argument must get exactly none.
    hand: (arrays, hyperparameters, expected), worked out on paper.
    hyper: hyperparameters of the generic tests, chosen so that every term of the loss is alive.
    out_of_range: (hyperparameter, value, the interval that the message must state).
    hidden: for each maskable argument, from the inputs to a bool array that is True where it must not be looked at.
    per: "example", "token", or "state" for an update of a method's state.
    shared: arguments without a batch axis.
    loss: the function under test if it is not the public object itself.
    pinned: from (inputs, hyperparameters) to the loss with all that is held fixed inside it frozen at those inputs, for
        finite differences of kernels that stop gradients of what depends on trained arguments.
    """

    name: str
    inputs: Callable[[np.random.Generator], dict[str, np.ndarray]]
    trains: tuple[str, ...]
    hand: tuple[tuple[Mapping, Mapping, object], ...]
    hyper: Mapping[str, float] = dataclasses.field(default_factory=dict)
    out_of_range: tuple[tuple[str, float, str], ...] = ()
    hidden: Mapping[str, Callable] = dataclasses.field(default_factory=dict)
    per: str = "example"
    shared: tuple[str, ...] = ()
    loss: Callable | None = None
    pinned: Callable | None = None

    @property
    def public(self):
        return getattr(losses, self.name)

    @property
    def documented(self) -> Callable:
        return self.public.loss if isinstance(self.public, StatefulKernel) else self.public

    @property
    def kernel(self) -> Callable:
        return self.loss or self.public

    def example(self, seed: int = 0) -> dict[str, np.ndarray]:
        return self.inputs(np.random.default_rng(seed))

    def batched(self, tree: Mapping, rows) -> dict:
        return {k: v if k in self.shared else v[rows] for k, v in tree.items()}

    def shape(self) -> tuple[int, ...]:
        return {"example": (B,), "token": (B, T), "state": (3,)}[self.per]


def _pair(rng, size=B):
    names = [f"{w}_{s}_logps" for w in ("policy", "reference") for s in ("chosen", "rejected")]
    return {name: -10 + 4 * rng.normal(size=size) for name in names}


def _token_mask(rng, shape):
    mask = rng.random(shape) < 0.6
    mask[..., 0] = True
    return mask


def _pair_with_kls(rng):
    kls = {f"policy_{s}_token_forward_kls": rng.gamma(1.0, size=(B, T)) for s in ("chosen", "rejected")}
    return {**_pair(rng), **kls, **{f"{s}_mask": _token_mask(rng, (B, T)) for s in ("chosen", "rejected")}}


def _list(rng):
    mask = _token_mask(rng, (B, K, T))
    mask[:3, -1] = False  # ragged: three lists are one response short, the first of them two
    mask[0, 1] = False
    return {
        "policy_responses_logps": -10 + 4 * rng.normal(size=(B, K)),
        "reference_responses_logps": -10 + 4 * rng.normal(size=(B, K)),
        "labels": rng.random((B, K)),
        "responses_mask": mask,
    }


def _base_losses(rng):
    return {"observed_losses": rng.gamma(1.0, size=B), "swapped_losses": rng.gamma(1.0, size=B)}


def _lcpo(*arrays, **hyper):
    return losses.lcpo.loss(*arrays[:-1], LcpoState(arrays[-1]), **{"num_annotators": 3, **hyper})[0]


def _lcpo_pinned(inputs, hyper):
    arrays = list(inputs.values())
    w = losses.lcpo.loss(*arrays[:-1], LcpoState(arrays[-1]), **{"num_annotators": 3, **hyper})[1]["posteriors"]

    def loss(*arrays):
        c, r, rc, rr = arrays[:4]
        dpo = losses.dpo
        beta = hyper["beta"]
        return losses.lcpo_loss(dpo(c, r, rc, rr, beta=beta), dpo(r, c, rr, rc, beta=beta), w)

    return loss


def _hidden_tokens(mask):
    return lambda inputs: ~inputs[mask]


def _hidden_responses(inputs):
    return ~inputs["responses_mask"].any(-1)


POLICY = ("policy_chosen_logps", "policy_rejected_logps")
# One pair for all hand values: log-ratios a_w = 0.5 and a_l = -1, so h = 1.5; with beta = 0.5, beta * h = 0.75.
# softplus(-0.75) = 0.386871, softplus(0.75) = 1.136871, s(0.75) = 0.679179.
PAIR = {
    "policy_chosen_logps": [-1.0],
    "policy_rejected_logps": [-2.0],
    "reference_chosen_logps": [-1.5],
    "reference_rejected_logps": [-1.0],
}
KLS = {
    "policy_chosen_token_forward_kls": [[0.1, 0.2, 9.0]],
    "policy_rejected_token_forward_kls": [[0.4, 9.0, 0.5]],
    "chosen_mask": [[True, True, False]],
    "rejected_mask": [[True, False, True]],
}
NEGATIVE_BETA = ("beta", -0.1, "(0, inf)")
ZERO_BETA = ("beta", 0.0, "(0, inf)")
NAN_BETA = ("beta", float("nan"), "(0, inf)")
SMOOTHING = (("label_smoothing", -0.1, "[0, 0.5)"), ("label_smoothing", 0.5, "[0, 0.5)"))
REWARDS_OUT_OF_RANGE = (("temperature", 0.0, "(0, inf)"), ("center_coef", -0.1, "[0, inf)"), *SMOOTHING)

ROWS = (
    Row(
        "dpo",
        _pair,
        POLICY,
        hand=((PAIR, {"beta": 0.5}, [0.386871]),),
        hyper={"beta": 0.3},
        out_of_range=(NEGATIVE_BETA, ZERO_BETA, NAN_BETA),
    ),
    Row(
        "implicit_reward",
        lambda rng: {"policy_logps": rng.normal(size=B), "reference_logps": rng.normal(size=B)},
        (),
        hand=(({"policy_logps": [-1.0], "reference_logps": [-1.5]}, {"beta": 0.5}, [0.25]),),
        out_of_range=(NEGATIVE_BETA, ZERO_BETA),
    ),
    Row(
        "cdpo",
        _pair,
        POLICY,
        # 0.386871 + 0.25 * 0.75
        hand=((PAIR, {"beta": 0.5, "label_smoothing": 0.25}, [0.574371]), (PAIR, {"beta": 0.5}, [0.386871])),
        hyper={"beta": 0.3, "label_smoothing": 0.2},
        out_of_range=(NEGATIVE_BETA, *SMOOTHING),
    ),
    Row(
        "ipo",
        _pair,
        POLICY,
        hand=((PAIR, {"tau": 0.5}, [0.25]), (PAIR, {}, [12.25])),  # (1.5 - 1)^2, (1.5 - 5)^2
        hyper={"tau": 0.4},
        out_of_range=(("tau", 0.0, "(0, inf)"), ("tau", -1.0, "(0, inf)")),
    ),
    Row(
        "ipo_length_normalized",
        lambda rng: {**_pair(rng), **{f"{s}_lengths": rng.integers(1, 9, B) for s in ("chosen", "rejected")}},
        POLICY,
        # 0.5 / 2 + 1 / 4 = 0.5, target 1 / 4
        hand=(({**PAIR, "chosen_lengths": [2], "rejected_lengths": [4]}, {"tau": 2.0}, [0.0625]),),
        hyper={"tau": 0.4},
        out_of_range=(("tau", 0.0, "(0, inf)"),),
    ),
    Row(
        "focal_po",
        _pair,
        POLICY,
        hand=((PAIR, {"beta": 0.5, "gamma": 2.0}, [0.178457]),),  # 0.679179^2 * 0.386871
        hyper={"beta": 0.3, "gamma": 0.2},
        out_of_range=(NEGATIVE_BETA, ("gamma", -0.1, "[0, inf)")),
    ),
    Row(
        "tdpo1",
        _pair_with_kls,
        (*POLICY, "policy_chosen_token_forward_kls", "policy_rejected_token_forward_kls"),
        hand=(({**PAIR, **KLS}, {"beta": 0.5}, [0.493249]),),  # SeqKL 0.3 and 0.9: softplus(-0.5 * (1.5 - 0.6))
        hyper={"beta": 0.3},
        out_of_range=(NEGATIVE_BETA,),
        hidden={f"policy_{s}_token_forward_kls": _hidden_tokens(f"{s}_mask") for s in ("chosen", "rejected")},
    ),
    Row(
        "tdpo2",
        _pair_with_kls,
        (*POLICY, "policy_rejected_token_forward_kls"),
        hand=(({**PAIR, **KLS}, {"beta": 0.5, "alpha": 0.5}, [0.437488]),),  # softplus(-0.5 * (1.5 - 0.5 * 0.6))
        hyper={"beta": 0.3, "alpha": 0.7},
        out_of_range=(NEGATIVE_BETA, ("alpha", -0.5, "[0, inf)")),
        hidden={f"policy_{s}_token_forward_kls": _hidden_tokens(f"{s}_mask") for s in ("chosen", "rejected")},
    ),
    Row(
        "position_kl",
        lambda rng: {"policy_logits": rng.normal(size=(B, T, V)), "reference_logits": rng.normal(size=(B, T, V))},
        ("policy_logits",),
        # policy (1/2, 1/2), reference (1/4, 3/4): log 0.5 / 4 + 3 log 1.5 / 4
        hand=(({"policy_logits": [[1.0, 1.0]], "reference_logits": [[0.0, np.log(3)]]}, {}, [0.130812]),),
        per="token",
    ),
    Row(
        "lipo_lambda",
        _list,
        ("policy_responses_logps",),
        # scores 0.25 and -0.5, ranks 1 and 2: (1 / log 2 - 1 / log 3) * (2 - 1) * 0.386871; the third is not there
        hand=(
            (
                {
                    "policy_responses_logps": [[-1.0, -2.0, np.nan]],
                    "reference_responses_logps": [[-1.5, -1.0, np.inf]],
                    "labels": [[1.0, 0.0, 9.0]],
                    "responses_mask": [[[True, True], [True, False], [False, False]]],
                },
                {"beta": 0.5},
                [0.205992],
            ),
        ),
        hyper={"beta": 0.3},
        out_of_range=(NEGATIVE_BETA,),
        hidden={
            name: _hidden_responses for name in ("policy_responses_logps", "reference_responses_logps", "labels")
        },
    ),
    Row(
        "sft",
        lambda rng: {"policy_token_logps": -rng.gamma(1.0, size=(B, T)), "mask": _token_mask(rng, (B, T))},
        ("policy_token_logps",),
        hand=(({"policy_token_logps": [[-0.5, -np.inf]], "mask": [[True, False]]}, {}, [[0.5, 0.0]]),),
        hidden={"policy_token_logps": _hidden_tokens("mask")},
        per="token",
    ),
    Row(
        "bt_reward_loss",
        lambda rng: {"chosen_rewards": rng.normal(size=B), "rejected_rewards": rng.normal(size=B)},
        ("chosen_rewards", "rejected_rewards"),
        # d = 0.5: softplus(-0.5) + 0.25 * 0.5 + 0.1 * 9; and softplus(-1)
        hand=(
            (
                {"chosen_rewards": [2.0], "rejected_rewards": [1.0]},
                {"temperature": 2.0, "label_smoothing": 0.25, "center_coef": 0.1},
                [1.499077],
            ),
            ({"chosen_rewards": [2.0], "rejected_rewards": [1.0]}, {}, [0.313262]),
        ),
        hyper={"temperature": 0.7, "label_smoothing": 0.1, "center_coef": 0.05},
        out_of_range=REWARDS_OUT_OF_RANGE,
    ),
    Row(
        "bt_reward_margin_loss",
        lambda rng: {
            "chosen_rewards": rng.normal(size=B),
            "rejected_rewards": rng.normal(size=B),
            "margins": rng.random(B),
        },
        ("chosen_rewards", "rejected_rewards", "margins"),  # the catalogue holds nothing fixed
        # d = 0.25: softplus(-0.25) + 0.25 * 0.25 + 0.1 * 9
        hand=(
            (
                {"chosen_rewards": [2.0], "rejected_rewards": [1.0], "margins": [0.5]},
                {"temperature": 2.0, "label_smoothing": 0.25, "center_coef": 0.1},
                [1.538439],
            ),
        ),
        hyper={"temperature": 0.7, "label_smoothing": 0.1, "center_coef": 0.05},
        out_of_range=REWARDS_OUT_OF_RANGE,
    ),
    Row(
        "lcpo_preference_probability",
        _base_losses,
        ("observed_losses", "swapped_losses"),
        hand=(({"observed_losses": [0.5], "swapped_losses": [1.5]}, {}, [0.731059]),),
    ),
    Row(
        "lcpo_posterior",
        lambda rng: {**_base_losses(rng), "reliabilities": rng.uniform(0.1, 1.0, B)},
        (),
        # 0.731059 * 0.75 / (0.731059 * 0.75 + 0.268941 * 0.25)
        hand=(({"observed_losses": [0.5], "swapped_losses": [1.5], "reliabilities": [0.75]}, {}, [0.890768]),),
    ),
    Row(
        "lcpo_loss",
        lambda rng: {**_base_losses(rng), "posteriors": rng.random(B)},
        ("observed_losses", "swapped_losses"),
        # 0.75 * 0.313262 + 0.25 * 1.313262
        hand=(({"observed_losses": [0.5], "swapped_losses": [1.5], "posteriors": [0.75]}, {}, [0.563262]),),
    ),
    Row(
        "lcpo_eta_update",
        lambda rng: {"eta": rng.random(3), "posteriors": rng.random(B), "annotator_ids": rng.integers(0, 2, B)},
        (),
        # half-way from 0.9 to the mean 0.8; no pair, so kept; half-way from 0.2 to 0.4; ids 3 and -1 are nobody's
        hand=(
            (
                {"eta": [0.9, 0.5, 0.2], "posteriors": [0.6, 1.0, 0.4, 0.9, 0.9], "annotator_ids": [0, 0, 2, 3, -1]},
                {"alpha": 0.5},
                [0.85, 0.5, 0.3],
            ),
        ),
        hyper={"alpha": 0.3},
        out_of_range=(("alpha", 0.0, "(0, 1]"), ("alpha", 1.5, "(0, 1]")),
        per="state",
        shared=("eta",),
    ),
    Row(
        "lcpo",
        lambda rng: {**_pair(rng), "annotator_ids": rng.integers(0, 3, B), "state": rng.uniform(0.6, 0.9, 3)},
        POLICY,
        # eta = 3/4: w = 0.679179 * 3 / (0.679179 * 3 + 0.320821) = 0.863964, and w * 0.386871 + (1 - w) * 1.136871
        hand=(({**PAIR, "annotator_ids": [1], "state": [0.1, 0.75, 0.2]}, {"beta": 0.5}, [0.488898]),),
        hyper={"beta": 0.3},
        out_of_range=(
            NEGATIVE_BETA,
            ("num_annotators", 0, "[1, inf)"),
            ("eta_0", 0.0, "(0, 1)"),
            ("eta_0", 1.0, "(0, 1)"),
            ("alpha", 0.0, "(0, 1]"),
        ),
        shared=("state",),
        loss=_lcpo,
        pinned=_lcpo_pinned,
    ),
)

BY_NAME = {row.name: row for row in ROWS}
each = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
each_that_trains = pytest.mark.parametrize("row", [r for r in ROWS if r.trains], ids=lambda row: row.name)
each_with_mask = pytest.mark.parametrize("row", [r for r in ROWS if r.hidden], ids=lambda row: row.name)
each_with_rows = pytest.mark.parametrize("row", [r for r in ROWS if r.per != "state"], ids=lambda row: row.name)


def arrays_of(tree: Mapping, dtype=jnp.float32) -> dict[str, jax.Array]:
    """Floats in `dtype`, integers and bools as they are."""
    tree = {k: np.asarray(v) for k, v in tree.items()}
    return {k: jnp.asarray(v, dtype if v.dtype.kind == "f" else None) for k, v in tree.items()}


def floating(tree: Mapping) -> tuple[str, ...]:
    return tuple(k for k, v in tree.items() if jnp.issubdtype(v.dtype, jnp.floating))


def cotangents(row: Row) -> np.ndarray:
    """Not all one: a gradient rule that forgets the incoming cotangent is right only when that is one."""
    return np.random.default_rng(1).normal(size=row.shape())


def weighted_grad(row: Row, tree: Mapping, names, weights=None, kernel=None):
    """Gradient of sum(weights * kernel) with respect to the named arguments."""
    kernel = kernel or (lambda *a: row.kernel(*a, **row.hyper))
    weights = cotangents(row) if weights is None else weights

    def loss(chosen):
        return jnp.sum(jnp.asarray(weights) * kernel(*{**tree, **chosen}.values()))

    return jax.jit(jax.grad(loss))({k: tree[k] for k in names})


def test_every_public_kernel_has_a_row():
    assert sorted(losses.__all__) == sorted(BY_NAME)


def test_every_public_function_of_a_kernel_module_is_exported():
    infrastructure = {"links", "masking", "reductions", "stateful"}
    for info in pkgutil.iter_modules(losses.__path__):
        if info.name in infrastructure:
            continue
        module = importlib.import_module(f"alignment.losses.{info.name}")
        own = {n for n, f in inspect.getmembers(module, inspect.isfunction) if f.__module__ == module.__name__}
        methods = {n for n, value in vars(module).items() if isinstance(value, StatefulKernel)}
        assert {n for n in own | methods if not n.startswith("_")} <= set(losses.__all__), module.__name__


def test_importing_kernels_pulls_in_neither_models_nor_data_nor_plots():
    code = "import sys, alignment.losses, alignment.metrics; print(*sys.modules)"
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
        values = row.kernel(*arrays_of(arrays).values(), **hyper)
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
        pinned = row.pinned(tree, row.hyper) if row.pinned else lambda *a: row.kernel(*a, **row.hyper)
        gradients = weighted_grad(row, tree, row.trains)
        rng = np.random.default_rng(3)
        for name in row.trains:
            direction = rng.normal(size=tree[name].shape)
            high = pinned(*{**tree, name: tree[name] + step * direction}.values())
            low = pinned(*{**tree, name: tree[name] - step * direction}.values())
            assert high.dtype == jnp.float64
            numeric = np.sum(weights * np.asarray(high - low)) / (2 * step)
            np.testing.assert_allclose(np.sum(gradients[name] * direction), numeric, rtol=1e-6, atol=1e-9)


@each_that_trains
def test_gradient_is_finite_and_non_zero_for_everything_trained(row):
    tree = arrays_of(row.example())
    for name, gradient in weighted_grad(row, tree, row.trains).items():
        assert np.isfinite(gradient).all(), name
        assert np.abs(gradient).max() > 1e-4, name


@each
def test_gradient_is_zero_for_everything_held_fixed(row):
    tree = arrays_of(row.example())
    frozen = [k for k in floating(tree) if k not in row.trains]
    for name, gradient in weighted_grad(row, tree, frozen).items():
        np.testing.assert_array_equal(gradient, np.zeros_like(gradient), err_msg=name)


@each_with_mask
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf, 1e30])
def test_nothing_behind_the_mask_reaches_value_or_gradient(row, poison):
    example = row.example()
    clean = arrays_of(example)
    dirty = dict(clean)
    for name, hidden in row.hidden.items():
        assert hidden(example).any()
        dirty[name] = jnp.where(hidden(example), poison, clean[name])
    np.testing.assert_array_equal(
        row.kernel(*dirty.values(), **row.hyper), row.kernel(*clean.values(), **row.hyper)
    )
    names = floating(clean)
    expected, got = weighted_grad(row, clean, names), weighted_grad(row, dirty, names)
    for name in names:
        np.testing.assert_array_equal(got[name], expected[name], err_msg=name)
    for name in set(row.trains) & set(row.hidden):
        np.testing.assert_array_equal(np.asarray(got[name])[row.hidden[name](example)], 0.0)


@each
def test_log_ratios_up_to_1e4_stay_finite_in_value_and_gradient(row):
    for seed in range(3):
        example = row.example()
        rng = np.random.default_rng(seed)
        for name, value in example.items():
            # What is a probability stays one; the ends of its range are the extreme.
            if name in ("reliabilities", "posteriors", "eta", "state"):
                example[name] = rng.choice([0.0, 0.5, 1.0], value.shape)
            elif value.dtype.kind == "f" and name != "labels":
                extreme = rng.choice([-1e4, 0.0, 1e4], value.shape)
                example[name] = np.abs(extreme) if "kls" in name else extreme
        tree = arrays_of(example)
        assert np.isfinite(row.kernel(*tree.values(), **row.hyper)).all()
        for name, gradient in weighted_grad(row, tree, floating(tree)).items():
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
        swept = jax.vmap(lambda value, n=name: row.kernel(*arrays, **{**row.hyper, n: value}))(jnp.array(settings))
        for value, got in zip(settings, swept, strict=True):
            expected = row.kernel(*arrays, **{**row.hyper, name: value})
            np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


@each
def test_a_wrong_shape_is_rejected(row):
    tree = arrays_of(row.example())
    for name, value in tree.items():
        if row.per == "state" and name in row.shared:
            continue  # any number of annotators is a right one
        for wrong in (jnp.concatenate([value, value]), value[:1], value[..., None]):
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
    whole = row.kernel(*tree.values(), **row.hyper)
    rows = np.array([5, 0, 3])
    part = row.kernel(*row.batched(tree, rows).values(), **row.hyper)
    np.testing.assert_allclose(part, whole[rows], rtol=1e-6, atol=1e-6)
    axes = tuple(None if name in row.shared else 0 for name in tree)
    one_by_one = jax.vmap(lambda *a: row.kernel(*a, **row.hyper), in_axes=axes)(*tree.values())
    np.testing.assert_allclose(one_by_one, whole, rtol=1e-6, atol=1e-6)


@each
def test_a_batch_split_by_shard_map_equals_the_whole_batch(row):
    count = max(n for n in (1, 2, 4, 8) if n <= jax.device_count())
    mesh = jax.make_mesh((count,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:count])
    tree = arrays_of(row.example())
    split = PartitionSpec("data")
    specs = tuple(PartitionSpec() if name in row.shared else split for name in tree)
    hyper = {**row.hyper, **({"axis_name": "data"} if row.per == "state" else {})}
    sharded = jax.shard_map(
        lambda *a: row.kernel(*a, **hyper),
        mesh=mesh,
        in_specs=specs,
        out_specs=PartitionSpec() if row.per == "state" else split,
    )
    np.testing.assert_allclose(
        jax.jit(sharded)(*tree.values()), row.kernel(*tree.values(), **row.hyper), rtol=1e-6, atol=1e-6
    )


@each_with_rows
@pytest.mark.parametrize("micro_batches", [2, 4])
def test_micro_batches_add_up_to_the_batch_in_loss_and_gradient(row, micro_batches):
    tree = arrays_of(row.example())
    names = list(tree)
    if row.per == "token":
        mask = _token_mask(np.random.default_rng(5), (B, T))
        mask[:2] = False  # a micro-batch of four has none of its tokens
        choices = (reductions.token_mean, reductions.sequence_mean, reductions.constant(6))
    else:
        mask = np.array([True, False, True, True, False, False, True, True])
        choices = (reductions.example_mean,)
    parts = np.split(np.arange(B), micro_batches)
    for reduction in choices:
        weight = reduction.weight(jnp.asarray(mask))
        np.testing.assert_allclose(weight, sum(reduction.weight(jnp.asarray(mask[rows])) for rows in parts))

        def loss(trained, tree, mask, reduction=reduction, weight=weight):
            tree = {**tree, **trained}  # jit sorts the keys of a dict
            values = row.kernel(*(tree[name] for name in names), **row.hyper)
            return reduction.total(values, jnp.asarray(mask)) / weight

        run = jax.jit(jax.value_and_grad(loss))
        whole, gradient = run({k: tree[k] for k in row.trains}, tree, mask)
        pieces = []
        for rows in parts:
            part = row.batched(tree, rows)
            pieces.append(run({k: part[k] for k in row.trains}, part, mask[rows]))
        np.testing.assert_allclose(sum(value for value, _ in pieces), whole, rtol=1e-5)
        for name in row.trains:
            joined = np.concatenate([gradients[name] for _, gradients in pieces])
            np.testing.assert_allclose(joined, gradient[name], rtol=1e-5, atol=1e-7)


class VariantsTest(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True, with_device=True, with_pmap=True)
    @parameterized.named_parameters(*((row.name, row) for row in ROWS))
    def test_transformation_leaves_the_value(self, row):
        tree = arrays_of(row.example())
        expected = np.asarray(row.kernel(*tree.values(), **row.hyper))
        values = self.variant(lambda *arrays: row.kernel(*arrays, **row.hyper))(*tree.values())
        np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)


def test_the_three_functions_of_a_stateful_kernel_take_the_same_hyperparameters():
    def hyper(function):
        parameters = inspect.signature(function).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != "axis_name"}

    methods = [getattr(losses, n) for n in losses.__all__ if isinstance(getattr(losses, n), StatefulKernel)]
    assert methods
    for method in methods:
        assert hyper(method.init) == hyper(method.loss) == hyper(method.update)
        assert "axis_name" in inspect.signature(method.update).parameters
