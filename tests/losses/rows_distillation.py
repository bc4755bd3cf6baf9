"""Rows of the contract suite for alignment.losses.distillation."""

import numpy as np
from contract import B, Row, T, hidden_tokens, token_mask

OUTSIDE = hidden_tokens("mask")
D = 3


def _kls(*names):
    def draw(rng):
        return {name: rng.gamma(1.0, size=(B, T)) for name in names} | {"mask": token_mask(rng, (B, T))}

    return draw


def _sampled(rng):
    logps = {f"{who}_token_logps": -1.5 + 0.3 * rng.normal(size=(B, T)) for who in ("policy", "behaviour", "teacher")}
    return logps | _kls("teacher_token_kls")(rng)


def _drafted(rng):
    kls, mask = rng.gamma(1.0, size=(B, T)), token_mask(rng, (B, T))
    features = {f"{who}token_features": rng.normal(size=(B, T, D)) for who in ("", "teacher_")}
    return {
        "teacher_token_forward_kls": kls, "teacher_token_entropies": rng.gamma(1.0, size=(B, T)), **features,
        "mask": mask,
    }  # fmt: skip


def _without_current(inputs, gamma, normalised):
    rewards, mask = inputs["teacher_token_logps"] - inputs["policy_token_logps"], np.asarray(inputs["mask"])
    out = np.zeros(mask.shape)
    for b in range(B):
        for t in range(T):
            later = np.flatnonzero(mask[b, t + 1 :]) + t + 1
            weights = gamma ** np.arange(len(later))
            out[b, t] = (weights * rewards[b, later]).sum() / (weights.sum() if normalised and len(later) else 1)
    return out * mask


def _minillm_pinned(normalised):
    """Returns and the weights of the second part frozen at the inputs, the rest written out."""

    def pinned(inputs, hyper):
        gains = _without_current(inputs, hyper["gamma"], normalised)
        weights = np.exp(inputs["policy_token_logps"] - inputs["behaviour_token_logps"])

        def loss(policy, behaviour, teacher, kls, mask):
            ratios = np.exp(policy - behaviour)
            surrogate = np.maximum(-gains * ratios, -gains * np.clip(ratios, 1 - hyper["eps"], 1 + hyper["eps"]))
            return (surrogate + weights * kls) * mask

        return loss

    return pinned


def _minillm(name, normalised, plain, clipped):
    three = {
        "policy_token_logps": [[-1.0, -2.0, -3.0]],
        "behaviour_token_logps": [[-1.0, -2.0, -3.0]],
        "teacher_token_logps": [[-1.0, -1.0, -1.0]],
        "teacher_token_kls": [[0.3, 0.4, 0.5]],
        "mask": [[True, True, True]],
    }
    return Row(
        name,
        _sampled,
        ("policy_token_logps", "teacher_token_kls"),
        # rewards 0, 1, 2: what comes after is 3, 2, 0, or 3/2, 2, 0 per token. At e^0.5 = 1.648721 above the first
        # token's behaviour the first part is bounded at 1.2, the second is 1.648721 * 0.3
        hand=(
            (three, {}, [plain]),
            (three | {"behaviour_token_logps": [[-1.5, -2.0, -3.0]]}, {}, [clipped]),
        ),
        hyper={"gamma": 0.7, "eps": 0.3},
        out_of_range=(("gamma", -0.1, "[0, 1]"), ("gamma", 1.1, "[0, 1]"), ("eps", -0.1, "[0, inf)")),
        hidden={n: OUTSIDE for n in three if n != "mask"},
        per="token",
        pinned=_minillm_pinned(normalised),
    )


REWARDS = {"token_rewards": [[1.0, 2.0, 3.0, 4.0]], "mask": [[True] * 4]}
GAP = {"token_rewards": [[1.0, np.nan, 3.0, 4.0]], "mask": [[True, False, True, True]]}
RETURNS = {
    "inputs": lambda rng: {"token_rewards": rng.normal(size=(B, T)), "mask": token_mask(rng, (B, T))},
    "trains": (),
    "hyper": {"gamma": 0.7},
    "out_of_range": (("gamma", -0.1, "[0, 1]"), ("gamma", 1.1, "[0, 1]")),
    "hidden": {"token_rewards": OUTSIDE},
    "per": "token",
}
TWO = [[0.4, np.nan]], [[True, False]]

ROWS = (
    Row(
        "forward_kl_distill",
        _kls("teacher_token_forward_kls"),
        ("teacher_token_forward_kls",),
        hand=(({"teacher_token_forward_kls": TWO[0], "mask": TWO[1]}, {}, [[0.4, 0.0]]),),
        hidden={"teacher_token_forward_kls": OUTSIDE},
        per="token",
    ),
    Row(
        "reverse_kl_distill",
        _kls("teacher_token_kls"),
        ("teacher_token_kls",),
        hand=(({"teacher_token_kls": TWO[0], "mask": TWO[1]}, {}, [[0.4, 0.0]]),),
        hidden={"teacher_token_kls": OUTSIDE},
        per="token",
    ),
    Row(
        "gkd",
        _kls("teacher_token_forward_mixture_kls", "teacher_token_mixture_kls"),
        ("teacher_token_forward_mixture_kls", "teacher_token_mixture_kls"),
        # 0.25 * 0.4 + 0.75 * 0.2; at an end the divergence of the mixture's own is 0
        hand=tuple(
            (
                {
                    "teacher_token_forward_mixture_kls": [[forward, 9.0]],
                    "teacher_token_mixture_kls": [[reverse, np.inf]],
                    "mask": TWO[1],
                },
                {"beta": beta},
                [[expected, 0.0]],
            )
            for forward, reverse, beta, expected in ((0.4, 0.2, 0.25, 0.25), (0.4, 0.0, 0.0, 0.4), (0.0, 0.2, 1.0, 0.2))
        ),
        hyper={"beta": 0.3},
        out_of_range=(("beta", -0.1, "[0, 1]"), ("beta", 1.1, "[0, 1]"), ("beta", float("nan"), "[0, 1]")),
        hidden={"teacher_token_forward_mixture_kls": OUTSIDE, "teacher_token_mixture_kls": OUTSIDE},
        per="token",
    ),
    # 4 + 3 + 2; with a gap 4 + 3; discounted 2 + 3/2 + 4/4, 3 + 4/2
    Row(
        "minillm_returns",
        hand=(
            (REWARDS, {}, [[9.0, 7.0, 4.0, 0.0]]),
            (GAP, {}, [[7.0, 0.0, 4.0, 0.0]]),
            (REWARDS, {"gamma": 0.5}, [[4.5, 5.0, 4.0, 0.0]]),
        ),
        **RETURNS,
    ),
    # the same over 3, 2, 1; over 2, 1; over 1 + 1/2 + 1/4, 1 + 1/2, 1
    Row(
        "minillm_normalized_returns",
        hand=(
            (REWARDS, {}, [[3.0, 3.5, 4.0, 0.0]]),
            (GAP, {}, [[3.5, 0.0, 4.0, 0.0]]),
            (REWARDS, {"gamma": 0.5}, [[4.5 / 1.75, 5.0 / 1.5, 4.0, 0.0]]),
        ),
        **RETURNS,
    ),
    _minillm("minillm", True, [-1.2, -1.6, 0.5], [-1.8 + 0.494616, -1.6, 0.5]),
    _minillm("minillm_unnormalized", False, [-2.7, -1.6, 0.5], [-3.6 + 0.494616, -1.6, 0.5]),
    Row(
        "aligndistil",
        lambda rng: {
            "teacher_token_extrapolated_kls": rng.gamma(1.0, size=(B, T)),
            "teacher_token_disagreements": rng.uniform(0, 2, (B, T)),
            "mask": token_mask(rng, (B, T)),
        },
        ("teacher_token_extrapolated_kls",),
        # alpha = 10 * 0.1 + 0.001 and 0.001
        hand=(
            (
                {
                    "teacher_token_extrapolated_kls": [[2.0, 0.01, 3.0]],
                    "teacher_token_disagreements": [[0.1, 0.0, np.nan]],
                    "mask": [[True, True, False]],
                },
                {"strength": 10.0, "beta": 0.5},
                [[0.999001, 5.0, 0.0]],
            ),
        ),
        hyper={"strength": 2.0},
        out_of_range=(("strength", -0.1, "[0, inf)"), ("beta", 0.0, "(0, inf)")),
        hidden={"teacher_token_extrapolated_kls": OUTSIDE, "teacher_token_disagreements": OUTSIDE},
        per="token",
        extremes={"teacher_token_disagreements": (0.0, 2.0)},
    ),
    Row(
        "specvlm_online_distill",
        _drafted,
        ("teacher_token_forward_kls", "token_features"),
        # 0.1 * (0.5 + 1) + (0.5^2 / 2 + 3 - 0.5) / 2
        hand=(
            (
                {
                    "teacher_token_forward_kls": [[0.5, 9.0]],
                    "teacher_token_entropies": [[1.0, 9.0]],
                    "token_features": [[[1.0, 2.0], [np.nan, 0.0]]],
                    "teacher_token_features": [[[0.5, -1.0], [0.0, np.inf]]],
                    "mask": TWO[1],
                },
                {},
                [[1.4625, 0.0]],
            ),
        ),
        hyper={"ce_weight": 0.7, "feature_weight": 0.4},
        out_of_range=(("ce_weight", -0.1, "[0, inf)"), ("feature_weight", -0.1, "[0, inf)")),
        hidden={
            "teacher_token_forward_kls": OUTSIDE,
            "teacher_token_entropies": OUTSIDE,
            "token_features": lambda inputs: np.repeat(~inputs["mask"][..., None], D, axis=-1),
            "teacher_token_features": lambda inputs: np.repeat(~inputs["mask"][..., None], D, axis=-1),
        },
        per="token",
    ),
)
