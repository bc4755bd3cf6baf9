"""Rows of the contract suite for alignment.losses.listwise."""

import numpy as np
from contract import NEGATIVE_BETA, Row, hidden_responses, ranked_list

ROWS = (
    Row(
        "lipo_lambda",
        ranked_list,
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
        hidden={name: hidden_responses for name in ("policy_responses_logps", "reference_responses_logps", "labels")},
    ),
)
