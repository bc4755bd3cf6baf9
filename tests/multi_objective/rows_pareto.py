"""Rows of the contract suite for alignment.multi_objective.pareto."""

import numpy as np
from contract import B, Row

VALID = np.array([True, True, True, True, False, True, True, True])
HIDDEN = {"points": lambda inputs: ~inputs["valid"][:, None]}
# (1, 3) and (2, 2) are the front, the third is dominated, the fourth is not there.
FOUR = {"points": [[1.0, 3.0], [2.0, 2.0], [0.0, 0.0], [9.0, 9.0]], "valid": [True, True, True, False]}
K = ("k", 0, "[1, inf)")


def _points(**others):
    """A drawing of points and of arrays of the given shapes."""

    def draw(rng):
        drawn = {"points": rng.normal(size=(B, 2)), "valid": VALID}
        return drawn | {name: rng.normal(size=shape) for name, shape in others.items()}

    return draw


def _row(name, hand, shared=None, size=(), **settings):
    shared = shared or {}
    return Row(
        name, _points(**shared), (), hand=hand, per="state", size=size, shared=tuple(shared), hidden=HIDDEN, **settings
    )


PREFERENCES = [[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]]

ROWS = (
    Row("non_dominated", _points(), (), hand=((FOUR, {}, [1.0, 1.0, 0.0, 0.0]),), hidden=HIDDEN, batch_wide=True),
    Row("non_dominated_ranks", _points(), (), hand=((FOUR, {}, [1.0, 1.0, 2.0, 0.0]),), hidden=HIDDEN, batch_wide=True),
    Row(
        "crowding_distances",
        _points(),
        (),
        # the middle one: (2 - 0) / 2 twice
        hand=(({"points": [[0.0, 2.0], [1.0, 1.0], [2.0, 0.0]], "valid": [True] * 3}, {}, [1e9, 2.0, 1e9]),),
        hidden=HIDDEN,
        batch_wide=True,
    ),
    _row(
        "hypervolume",
        # 1 * 3 + (2 - 1) * 2; then two boxes of volume 2 that share 1, in three and in four dimensions
        hand=(
            (FOUR | {"reference": [0.0, 0.0]}, {}, 5.0),
            (
                {"points": [[1.0, 1, 2], [2, 1, 1]], "valid": [True, True], "reference": [0.0, 0, 0]},
                {},
                3.0,
            ),
            (
                {"points": [[1.0, 1, 1, 2], [2, 1, 1, 1]], "valid": [True, True], "reference": [0.0, 0, 0, 0]},
                {},
                3.0,
            ),
        ),
        shared={"reference": (2,)},
    ),
    _row(
        "hypervolume_gain",
        # a box of 4 of which (1, 3) covers 1 * 2
        hand=(
            (
                {"points": [[1.0, 3.0]], "valid": [True], "new_point": [2.0, 2.0], "reference": [0.0, 0.0]},
                {},
                2.0,
            ),
        ),
        shared={"new_point": (2,), "reference": (2,)},
    ),
    _row(
        "expected_utility",
        hand=((FOUR | {"preferences": PREFERENCES}, {}, 7 / 3),),
        shared={"preferences": (4, 2)},
    ),
    _row(
        "maximum_utility_loss",
        # 3 - 2, 3 - 3, 3 - 2
        hand=((FOUR | {"reference_points": [[3.0, 3.0]], "preferences": PREFERENCES}, {}, 1.0),),
        shared={"reference_points": (3, 2), "preferences": (4, 2)},
    ),
    _row(
        "r2_indicator",
        # (2, 2) is 1/2 away for the even preference and 1 for the other
        hand=((FOUR | {"preferences": [[0.5, 0.5], [1.0, 0.0]], "ideal": [3.0, 3.0]}, {}, 0.75),),
        shared={"preferences": (4, 2), "ideal": (2,)},
    ),
    _row(
        "sparsity",
        # gaps 1, 2 and 2, 1: 5 + 5, over 2
        hand=(({"points": [[1.0, 3.0], [4.0, 0.0], [2.0, 2.0]], "valid": [True] * 3}, {}, 5.0),),
    ),
    _row(
        "coverage",
        hand=((FOUR | {"reference_points": [[1.0, 1.0], [3.0, 0.0]]}, {}, 0.5),),
        shared={"reference_points": (3, 2)},
    ),
    _row(
        "inverted_generational_distance",
        # 0 and sqrt(5)
        hand=((FOUR | {"reference_points": [[1.0, 3.0], [2.0, 5.0]]}, {}, 1.118034),),
        shared={"reference_points": (3, 2)},
    ),
    _row(
        "cluster_entropy",
        # shares 2/3 and 1/3
        hand=(
            (
                {
                    "points": [[0.0, 0.0], [0.1, 0.0], [5.0, 5.0]],
                    "valid": [True] * 3,
                    "reference_points": [[0.0, 0.0], [5.0, 5.0]],
                },
                {},
                0.636514,
            ),
        ),
        shared={"reference_points": (3, 2)},
    ),
    _row(
        "top_k_reward",
        hand=((FOUR | {"preference": [1.0, 0.0]}, {"k": 2}, 1.5),),
        shared={"preference": (2,)},
        hyper={"k": 3},
        out_of_range=(K,),
    ),
    Row(
        "top_k_diversity",
        lambda rng: {
            "points": rng.normal(size=(B, 2)),
            "valid": VALID,
            "features": rng.normal(size=(B, 3)),
            "preference": rng.normal(size=2),
        },
        (),
        # (2, 2) and (1, 3), whose features are a 3-4-5 triangle apart
        hand=(
            (
                FOUR | {"features": [[0.0, 0.0], [3.0, 4.0], [9.0, 9.0], [7.0, 0.0]], "preference": [1.0, 0.0]},
                {"k": 2},
                5.0,
            ),
        ),
        hyper={"k": 3},
        out_of_range=(K,),
        hidden=HIDDEN | {"features": lambda inputs: ~inputs["valid"][:, None]},
        per="state",
        size=(),
        shared=("preference",),
    ),
    _row(
        "assigned_policies",
        hand=((FOUR | {"preferences": [[1.0, 0.0], [0.0, 1.0]]}, {}, [1.0, 0.0]),),
        shared={"preferences": (4, 2)},
        size=(4,),
    ),
)
