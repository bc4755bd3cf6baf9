"""Rows of the contract suite for alignment.multi_objective.search."""

from contract import B, Row

ROWS = (
    Row(
        "mean_hypervolume",
        lambda rng: {
            "fronts": rng.normal(size=(B, 2, 3, 2)),
            "valid": rng.random((B, 2, 3)) < 0.7,
            "reference": -rng.random(2),
        },
        (),
        # two seeds: a box of 2, and the union of boxes of 3 and 4 that share 2
        hand=(
            (
                {
                    "fronts": [[[[1.0, 2.0], [9.0, 9.0]], [[1.0, 3.0], [2.0, 2.0]]]],
                    "valid": [[[True, False], [True, True]]],
                    "reference": [0.0, 0.0],
                },
                {},
                [3.5],
            ),
        ),
        hidden={"fronts": lambda inputs: ~inputs["valid"][..., None]},
        shared=("reference",),
    ),
)
