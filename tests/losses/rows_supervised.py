"""Rows of the contract suite for alignment.losses.supervised."""

import numpy as np
from contract import B, Row, T, hidden_tokens, token_mask

ROWS = (
    Row(
        "sft",
        lambda rng: {"policy_token_logps": -rng.gamma(1.0, size=(B, T)), "mask": token_mask(rng, (B, T))},
        ("policy_token_logps",),
        hand=(({"policy_token_logps": [[-0.5, -np.inf]], "mask": [[True, False]]}, {}, [[0.5, 0.0]]),),
        hidden={"policy_token_logps": hidden_tokens("mask")},
        per="token",
    ),
    Row(
        "mdlm",
        lambda rng: {"policy_elbo_terms": -5 + rng.normal(size=(B, T))},
        ("policy_elbo_terms",),
        hand=(({"policy_elbo_terms": [[-6.0, -2.0, -1.0]]}, {}, [3.0]),),
    ),
)
