"""Rows of the contract suite for alignment.policy_gradients.penalties."""

import jax.numpy as jnp
from contract import B, Row, T, hidden_tokens, token_mask


def _log_ratios(rng):
    names = ("policy_token_logps", "reference_token_logps")
    return {**{name: -2 + 0.7 * rng.normal(size=(B, T)) for name in names}, "mask": token_mask(rng, (B, T))}


def _entropies(rng):
    return {"policy_token_entropies": rng.gamma(1.0, size=(B, T)), "mask": token_mask(rng, (B, T))}


def _k2(inputs, hyper):
    """What k3+ trains: its value is held fixed."""
    return lambda policy, reference, mask: jnp.where(mask, (policy - reference) ** 2 / 2, 0.0)


TRAINS = ("policy_token_logps",)
HIDDEN = dict.fromkeys(("policy_token_logps", "reference_token_logps"), hidden_tokens("mask"))
# d = 0.5 and -1.
TWO = {
    "policy_token_logps": [[-1.0, -2.0, 9.0]],
    "reference_token_logps": [[-1.5, -1.0, 9.0]],
    "mask": [[True, True, False]],
}
CLIPS = (
    ("log_ratio_clip", 0.0, "(0, 80]"),
    ("log_ratio_clip", 81.0, "(0, 80]"),
    ("value_clip", 0.0, "(0, inf)"),
)
# e^-0.5 - 1 + 0.5, e - 2, and e^0.5 - 1.5 for d = -0.5.
K3 = (
    (TWO, {}, [[0.106531, 0.718282, 0.0]]),
    (TWO, {"value_clip": 0.5}, [[0.106531, 0.5, 0.0]]),
    (TWO, {"log_ratio_clip": 0.5}, [[0.106531, 0.148721, 0.0]]),
)

ROWS = (
    Row("kl_k1", _log_ratios, TRAINS, hand=((TWO, {}, [[0.5, -1.0, 0.0]]),), hidden=HIDDEN, per="token"),
    Row("kl_k2", _log_ratios, TRAINS, hand=((TWO, {}, [[0.125, 0.5, 0.0]]),), hidden=HIDDEN, per="token"),
    Row("kl_k3", _log_ratios, TRAINS, hand=K3, out_of_range=CLIPS, hidden=HIDDEN, per="token"),
    Row("kl_k3_plus", _log_ratios, TRAINS, hand=K3, out_of_range=CLIPS, hidden=HIDDEN, per="token", pinned=_k2),
    Row(
        "kl_full_vocabulary",
        lambda rng: {"policy_token_kls": rng.gamma(1.0, size=(B, T)), "mask": token_mask(rng, (B, T))},
        ("policy_token_kls",),
        hand=(({"policy_token_kls": [[0.3, 9.0]], "mask": [[True, False]]}, {}, [[0.3, 0.0]]),),
        hidden={"policy_token_kls": hidden_tokens("mask")},
        per="token",
    ),
    Row(
        "entropy_bonus",
        _entropies,
        ("policy_token_entropies",),
        hand=(({"policy_token_entropies": [[0.3, 9.0]], "mask": [[True, False]]}, {}, [[-0.3, 0.0]]),),
        hidden={"policy_token_entropies": hidden_tokens("mask")},
        per="token",
    ),
    Row(
        "entropy_target",
        lambda rng: {**_entropies(rng), "valid": rng.random(B) < 0.7},
        ("policy_token_entropies",),
        # The mean is 2.
        hand=tuple(
            (
                {
                    "policy_token_entropies": [[1.0, 3.0, 9.0], [9.0, 9.0, 9.0]],
                    "mask": [[True, True, False], [True, True, True]],
                    "valid": [True, False],
                },
                {"target": target},
                [expected, [0.0, 0.0, 0.0]],
            )
            for target, expected in ((1.5, [-0.5, 1.5, 0.0]), (4.0, [3.0, 1.0, 0.0]))
        ),
        hyper={"target": 0.8},
        out_of_range=(("target", -0.1, "[0, inf)"),),
        hidden={"policy_token_entropies": lambda inputs: ~(inputs["mask"] & inputs["valid"][:, None])},
        per="token",
        batch_wide=True,
    ),
)
