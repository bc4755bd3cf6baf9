"""Rows of the contract suite for alignment.losses.prefix_values."""

import numpy as np
from contract import B, Row, T, hidden_tokens, token_mask

ROWS = (
    Row(
        "cd_fudge",
        lambda rng: {
            "token_scores": rng.normal(size=(B, T)), "rewards": rng.normal(size=B), "mask": token_mask(rng, (B, T)),
        },
        ("token_scores",),
        # (1 - 3)^2 / 2 = 2 and (3.5 - 3)^2 / 2 = 0.125
        hand=(
            (
                {"token_scores": [[1.0, 3.5, np.nan]], "rewards": [3.0], "mask": [[True, True, False]]},
                {},
                [[2.0, 0.125, 0.0]],
            ),
        ),
        hidden={"token_scores": hidden_tokens("mask")},
        per="token",
    ),
)  # fmt: skip
