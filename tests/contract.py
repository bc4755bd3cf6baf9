"""What the contract suite has to know of a kernel, and the inputs that its rows draw."""

import dataclasses
import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType

import numpy as np

from alignment.losses.stateful import StatefulKernel

B, T, K, V = 8, 5, 4, 7


@dataclasses.dataclass(frozen=True, eq=False)  # one row is one key of the caches of compiled programs
class Row:
    """What the suite has to know of a kernel.

    inputs: draws float64 arrays by name, in the order of the kernel's arguments.
    trains: arguments that must get a gradient; every other floating argument must get exactly none.
    hand: (arrays, hyperparameters, expected), worked out on paper.
    hyper: hyperparameters of the generic tests, chosen so that every term of the loss is alive.
    out_of_range: (hyperparameter, value, the interval that the message must state).
    hidden: for each maskable argument, from the inputs to a bool array that is True where it must not be looked at.
    per: "example", "token", or "state" for an update of a method's state (or another value of the whole batch).
    size: shape of the result if per is "state".
    shared: arguments without a batch axis.
    any_length: arguments whose first axis may be of any length.
    loss: the function under test if it is not the public object itself.
    pinned: from (inputs, hyperparameters) to the loss with all that is held fixed inside it frozen at those inputs, for
        finite differences of kernels that stop gradients of what depends on trained arguments.
    batch_wide: an example's value depends on the others of its batch (a sort, a mean); the kernel then takes `valid`
        and `axis_name`.
    extremes: for an argument that is no log-ratio, the values that are extreme for it.
    namespace: the package the kernel is public in; the suite sets it from the directory the row stands in.
    """

    name: str
    inputs: Callable[[np.random.Generator], dict[str, np.ndarray]]
    trains: tuple[str, ...]
    hand: tuple[tuple[Mapping, Mapping, object], ...]
    hyper: Mapping[str, float] = dataclasses.field(default_factory=dict)
    out_of_range: tuple[tuple[str, float, str], ...] = ()
    hidden: Mapping[str, Callable] = dataclasses.field(default_factory=dict)
    per: str = "example"
    size: tuple[int, ...] = (3,)
    shared: tuple[str, ...] = ()
    any_length: tuple[str, ...] = ()
    loss: Callable | None = None
    pinned: Callable | None = None
    batch_wide: bool = False
    extremes: Mapping[str, tuple[float, ...]] = dataclasses.field(default_factory=dict)
    namespace: ModuleType | None = None

    @property
    def public(self):
        return getattr(self.namespace, self.name)

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
        return {"example": (B,), "token": (B, T), "state": self.size}[self.per]


def pair(rng, size=B):
    names = [f"{w}_{s}_logps" for w in ("policy", "reference") for s in ("chosen", "rejected")]
    return {name: -10 + 4 * rng.normal(size=size) for name in names}


def token_mask(rng, shape):
    mask = rng.random(shape) < 0.6
    mask[..., 0] = True
    return mask


def pair_with_kls(rng):
    kls = {f"policy_{s}_token_forward_kls": rng.gamma(1.0, size=(B, T)) for s in ("chosen", "rejected")}
    return {**pair(rng), **kls, **{f"{s}_mask": token_mask(rng, (B, T)) for s in ("chosen", "rejected")}}


def ranked_list(rng):
    mask = token_mask(rng, (B, K, T))
    mask[:3, -1] = False  # ragged: three lists are one response short, the first of them two
    mask[0, 1] = False
    return {
        "policy_responses_logps": -10 + 4 * rng.normal(size=(B, K)),
        "reference_responses_logps": -10 + 4 * rng.normal(size=(B, K)),
        "labels": rng.random((B, K)),
        "responses_mask": mask,
    }


def hidden_tokens(mask):
    return lambda inputs: ~inputs[mask]


def hidden_responses(inputs):
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


def collect(tests: Path) -> tuple[Row, ...]:
    """The rows of every `tests/PACKAGE/rows_*.py`, each bound to `alignment.PACKAGE`."""
    rows = []
    for path in sorted(tests.glob("*/rows_*.py")):
        spec = importlib.util.spec_from_file_location(f"{path.parent.name}_{path.stem}", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        namespace = importlib.import_module(f"alignment.{path.parent.name}")
        rows += [dataclasses.replace(row, namespace=namespace) for row in module.ROWS]
    return tuple(rows)
