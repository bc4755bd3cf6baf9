"""Rows of the contract suite for alignment.losses.mixup."""

import numpy as np
from contract import B, Row, T, token_mask


def _pairs_of_demonstrations(rng):
    names = ("policy_confident", "policy_unconfident", "mixed_confident", "mixed_unconfident")
    logps = {f"{name}_token_logps": -rng.gamma(1.0, size=(B, T)) for name in names}
    masks = {f"{side}_mask": token_mask(rng, (B, T)) for side in ("confident", "unconfident")}
    masks["unconfident_mask"][0] = ~masks["confident_mask"][0]  # nothing in common
    return {**logps, "mix_weights": rng.random(B), **masks}


def _behind(side):
    return lambda inputs: ~inputs[f"{side}_mask"]


def _not_common(inputs):
    return ~(inputs["confident_mask"] & inputs["unconfident_mask"])


ROWS = (
    Row(
        "sftmix",
        _pairs_of_demonstrations,
        ("policy_confident_token_logps", "policy_unconfident_token_logps",
         "mixed_confident_token_logps", "mixed_unconfident_token_logps"),
        # three tokens of their own: (1 + 2 + 3) / 3; one in common: 0.25 * 4 + 0.75 * 8 = 7, of which a tenth
        hand=((
            {
                "policy_confident_token_logps": [[-1.0, np.nan]],
                "policy_unconfident_token_logps": [[-2.0, -3.0]],
                "mixed_confident_token_logps": [[-4.0, np.inf]],
                "mixed_unconfident_token_logps": [[-8.0, -np.inf]],
                "mix_weights": [0.25],
                "confident_mask": [[True, False]],
                "unconfident_mask": [[True, True]],
            },
            {"mu": 0.1},
            [2.7],
        ),),
        hyper={"mu": 0.3},
        out_of_range=(("mu", -0.1, "[0, inf)"), ("mu", float("nan"), "[0, inf)")),
        hidden={
            "policy_confident_token_logps": _behind("confident"),
            "policy_unconfident_token_logps": _behind("unconfident"),
            "mixed_confident_token_logps": _not_common,
            "mixed_unconfident_token_logps": _not_common,
            "mix_weights": lambda inputs: _not_common(inputs).all(axis=-1),
        },
        extremes={"mix_weights": (0.0, 0.5, 1.0)},
    ),
)  # fmt: skip
