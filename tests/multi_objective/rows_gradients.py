"""Rows of the contract suite for alignment.multi_objective.gradients."""

import numpy as np
from contract import Row


def _gram(rng):
    vectors = rng.normal(size=(3, 4))
    return {"gram": vectors @ vectors.T}


def _with_order(rng):
    return _gram(rng) | {"order": np.array([[0, 2, 1], [2, 0, 1], [1, 0, 2]])}


PRODUCTS = {"gram": [[4.0, 2.0], [2.0, 9.0]]}

ROWS = (
    Row(
        "mgda_weights",
        _gram,
        (),
        # orthogonal: proportional to 1 / |g|^2
        hand=(
            ({"gram": np.diag([1.0, 2.0, 4.0])}, {}, [4 / 7, 2 / 7, 1 / 7]),
            ({"gram": np.diag([1.0, 3.0])}, {}, [0.75, 0.25]),
            ({"gram": [[1.0, -1.0], [-1.0, 1.0]]}, {}, [0.5, 0.5]),
        ),
        per="state",
        shared=("gram",),
    ),
    Row(
        "l2_normalized_gram",
        _gram,
        (),
        hand=((PRODUCTS, {}, [[1.0, 1 / 3], [1 / 3, 1.0]]),),
        per="state",
        size=(3, 3),
        shared=("gram",),
        extremes={"gram": (0.0, 1.0, 1e4)},
    ),
    Row(
        "loss_normalized_gram",
        lambda rng: _gram(rng) | {"losses": rng.gamma(2.0, size=3)},
        (),
        hand=((PRODUCTS | {"losses": [2.0, 3.0]}, {}, [[1.0, 1 / 3], [1 / 3, 1.0]]),),
        per="state",
        size=(3, 3),
        shared=("gram", "losses"),
    ),
    Row(
        "pcgrad_weights",
        _with_order,
        (),
        # (1, 0) and (-1, 1): v_1 = g_1 + g_2 / 2, v_2 = g_2 + g_1
        hand=(({"gram": [[1.0, -1.0], [-1.0, 2.0]], "order": [[0, 1], [0, 1]]}, {}, [2.0, 1.5]),),
        per="state",
        shared=("gram", "order"),
        extremes={"gram": (0.0, 1.0, 1e4)},
    ),
    Row(
        "gradient_weight_update",
        lambda rng: {"weights": rng.dirichlet(np.ones(3)), **_gram(rng)},
        (),
        # a softmax of the influences 2 and 1
        hand=(
            (
                {"weights": [0.5, 0.5], "gram": [[2.0, 0.0], [0.0, 1.0]]},
                {"eta": 1.0, "mu": 1.0},
                [0.731059, 0.268941],
            ),
        ),
        hyper={"eta": 0.1, "mu": 0.5},
        out_of_range=(("eta", 0.0, "(0, inf)"), ("mu", 0.0, "(0, inf)")),
        per="state",
        shared=("weights", "gram"),
    ),
)
