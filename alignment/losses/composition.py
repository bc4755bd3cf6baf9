"""Kernels put together from parts: any margin with any link, and a weight of each pair, without new code.

    hinge_norm = compose(margins.length_normalized_log_ratio, links.hinge)
    values = hinge_norm(*arrays, beta=2.0)

What comes out is a kernel like any other: its signature names the arrays and the hyperparameters of its parts, so the
training step knows what to compute, and a config what may be set.
"""

import inspect
from collections.abc import Callable

import jax

from alignment import checks

_stop = jax.lax.stop_gradient
_ARRAY, _HYPERPARAMETER = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY


def compose(margin: Callable, link: Callable, weighting: Callable | None = None) -> Callable:
    """The kernel stop_gradient(weighting(...)) * link(margin(...)), per pair.

    Args:
      margin: named arrays of the vocabulary -> `[...]`, hyperparameters keyword-only; see `alignment.losses.margins`.
      link: elementwise on its first argument, the margins; the rest are hyperparameters. See `alignment.losses.links`.
      weighting: like a margin, the weight of each pair; held fixed whatever it depends on. None: every pair weighs 1.

    Returns:
      A pure function. Its arguments are the arrays of the margin and those that only the weighting names, then,
      keyword-only, the hyperparameters of all parts with their defaults. `axis_name`, which a weighting that looks at
      the whole batch takes, is shared by the parts that have it.

    Raises:
      ValueError: two parts have a hyperparameter of the same name, so that one setting would mean two things.
      AssertionError (of the kernel): the weights do not have the shape of the margins.
    """
    parts = {"margin": margin, "link": link} | ({"weighting": weighting} if weighting else {})
    arrays: dict[str, inspect.Parameter] = {}
    hyperparameters: dict[str, inspect.Parameter] = {}
    owners: dict[str, str] = {}
    takes: dict[str, list[str]] = {}
    for role, part in parts.items():
        parameters = list(inspect.signature(part).parameters.values())
        if role == "link":
            parameters = [p.replace(kind=_HYPERPARAMETER) for p in parameters[1:]]
        takes[role] = [p.name for p in parameters]
        for parameter in parameters:
            name = parameter.name
            if parameter.kind is not _HYPERPARAMETER:
                arrays.setdefault(name, inspect.Parameter(name, _ARRAY))
            elif name in owners and name != "axis_name":
                raise ValueError(
                    f"hyperparameter {name!r} belongs to the {owners[name]} {parts[owners[name]].__name__!r} and to "
                    f"the {role} {part.__name__!r}: these two cannot be composed"
                )
            else:
                owners[name], hyperparameters[name] = role, parameter

    signature = inspect.Signature([*arrays.values(), *hyperparameters.values()])

    def kernel(*args, **kwargs):
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        given = {role: {name: bound.arguments[name] for name in names} for role, names in takes.items()}
        margins = margin(**given["margin"])
        values = link(margins, **given["link"])
        if weighting is None:
            return values
        (weights,) = checks.floats(weights=weighting(**given["weighting"]))
        checks.same_shape(margins=margins, weights=weights)
        return _stop(weights) * values

    names = [part.__name__ for part in parts.values()]
    kernel.__signature__ = signature
    kernel.__name__ = kernel.__qualname__ = "_".join(names)
    product = f"{names[1]}({names[0]})" if weighting is None else f"stop_gradient({names[2]}) * {names[1]}({names[0]})"
    kernel.__doc__ = f"{product}, per pair.\n\n" + "\n\n".join(f"{n}: {p.__doc__}" for n, p in parts.items())
    return kernel
