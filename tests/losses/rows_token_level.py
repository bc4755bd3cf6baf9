"""Rows of the contract suite for alignment.losses.token_level."""

import numpy as np
from contract import (
    KLS,
    NEGATIVE_BETA,
    PAIR,
    POLICY,
    B,
    Row,
    T,
    V,
    hidden_tokens,
    pair_with_kls,
    token_mask,
)

SIDES = ("chosen", "rejected")
TOKEN_POLICY = tuple(f"policy_{s}_token_logps" for s in SIDES)
MASKS = ("chosen_mask", "rejected_mask")


def _token_pair(rng, *extra):
    """Token log-probs of policy, then what `extra` names of both sides, then the masks."""
    names = [*TOKEN_POLICY, *(e.format(s) for e in extra for s in SIDES)]
    tokens = {name: -1.5 + rng.normal(size=(B, T)) for name in names}
    return tokens | {name: token_mask(rng, (B, T)) for name in MASKS}


def _with_reference(rng):
    return _token_pair(rng, "reference_{}_token_logps")


def _treg_inputs(rng):
    tokens = _token_pair(rng)
    return {
        **{name: tokens[name] for name in TOKEN_POLICY},
        **{f"reference_{s}_logps": -4 + rng.normal(size=B) for s in SIDES},
        **{f"{s}_token_rewards": rng.uniform(-0.5, 0.5, (B, T)) for s in SIDES},
        **{name: tokens[name] for name in MASKS},
    }


def _treg_pinned(inputs, hyper):
    """The weight s(-beta h) frozen at the inputs; the rest written out."""
    beta, alpha = hyper["beta"], hyper["alpha"]

    def parts(c, r, rc, rr, wc, wr, mc, mr):
        h = ((c * mc).sum(-1) - rc) - ((r * mr).sum(-1) - rr)
        return h, (wc * c * mc).sum(-1) + (wr * r * mr).sum(-1)

    h, _ = parts(*inputs.values())
    weight = 1 / (1 + np.exp(beta * h))

    def loss(*arrays):
        h, regulariser = parts(*arrays)
        return np.log1p(np.exp(-beta * h)) - alpha * beta * weight * regulariser

    return loss


def _simpo_reg_pinned(inputs, hyper):
    """As for treg, with SimPO's margin."""
    beta, gamma, alpha = hyper["beta"], hyper["gamma"], hyper["alpha"]

    def parts(c, r, wc, wr, mc, mr):
        margin = beta * ((c * mc).sum(-1) / mc.sum(-1) - (r * mr).sum(-1) / mr.sum(-1)) - gamma
        return margin, (wc * c * mc).sum(-1) + (wr * r * mr).sum(-1)

    weight = 1 / (1 + np.exp(parts(*inputs.values())[0]))

    def loss(*arrays):
        margin, regulariser = parts(*arrays)
        return np.log1p(np.exp(-margin)) - alpha * beta * weight * regulariser

    return loss


def _hidden(*names):
    return {n: hidden_tokens(f"{s}_mask") for s in SIDES for n in (name.format(s) for name in names)}


# Sums -1.5 and -3 under the policy, -2 and -2 under the reference: the log-ratios 0.5 and -1 of PAIR, so h = 1.5.
TOKENS = {
    "policy_chosen_token_logps": [[-0.5, -1.0, 9.0]],
    "policy_rejected_token_logps": [[-2.0, 9.0, -1.0]],
}
TOKEN_REFERENCE = {
    "reference_chosen_token_logps": [[-1.0, -1.0, 9.0]],
    "reference_rejected_token_logps": [[-1.0, 9.0, -1.0]],
}
TOKEN_MASKS = {"chosen_mask": [[True, True, False]], "rejected_mask": [[True, False, True]]}
CPL_OUT_OF_RANGE = (
    ("alpha", 0.0, "(0, inf)"),
    ("contrastive_bias", 0.0, "(0, 1]"),
    ("contrastive_bias", 1.5, "(0, 1]"),
    ("gamma", 0.0, "(0, 1]"),
    ("gamma", 1.5, "(0, 1]"),
    ("label_smoothing", -0.1, "[0, 1]"),
    ("label_smoothing", 1.1, "[0, 1]"),
)
CPL_HYPER = {"alpha": 0.4, "contrastive_bias": 0.6, "gamma": 0.9, "label_smoothing": 0.2}

ROWS = (
    Row(
        "tdpo1",
        pair_with_kls,
        (*POLICY, "policy_chosen_token_forward_kls", "policy_rejected_token_forward_kls"),
        hand=(({**PAIR, **KLS}, {"beta": 0.5}, [0.493249]),),  # SeqKL 0.3 and 0.9: softplus(-0.5 * (1.5 - 0.6))
        hyper={"beta": 0.3},
        out_of_range=(NEGATIVE_BETA,),
        hidden={f"policy_{s}_token_forward_kls": hidden_tokens(f"{s}_mask") for s in ("chosen", "rejected")},
    ),
    Row(
        "tdpo2",
        pair_with_kls,
        (*POLICY, "policy_rejected_token_forward_kls"),
        hand=(({**PAIR, **KLS}, {"beta": 0.5, "alpha": 0.5}, [0.437488]),),  # softplus(-0.5 * (1.5 - 0.5 * 0.6))
        hyper={"beta": 0.3, "alpha": 0.7},
        out_of_range=(NEGATIVE_BETA, ("alpha", -0.5, "[0, inf)")),
        hidden={f"policy_{s}_token_forward_kls": hidden_tokens(f"{s}_mask") for s in ("chosen", "rejected")},
    ),
    Row(
        "position_kl",
        lambda rng: {"policy_logits": rng.normal(size=(B, T, V)), "reference_logits": rng.normal(size=(B, T, V))},
        ("policy_logits",),
        # policy (1/2, 1/2), reference (1/4, 3/4): log 0.5 / 4 + 3 log 1.5 / 4
        hand=(({"policy_logits": [[1.0, 1.0]], "reference_logits": [[0.0, np.log(3)]]}, {}, [0.130812]),),
        per="token",
    ),
    Row(
        "treg_token_rewards",
        lambda rng: {f"{s}_token_logps": -1.5 + rng.normal(size=(B, T)) for s in ("better", "worse")},
        (),
        # three times as likely: 3 / 4 - 1 / 2
        hand=(({"better_token_logps": [[-1.0]], "worse_token_logps": [[-1.0 - np.log(3)]]}, {}, [[0.25]]),),
        per="token",
    ),
    Row(
        "treg",
        _treg_inputs,
        TOKEN_POLICY,
        # rewards times log-probs: -0.1 - 0.1 and 0.6 - 0.1; 0.386871 - 0.5 * 0.5 * 0.320821 * 0.3
        hand=(
            (
                {
                    **TOKENS,
                    "reference_chosen_logps": [-2.0],
                    "reference_rejected_logps": [-2.0],
                    "chosen_token_rewards": [[0.2, 0.1, 9.0]],
                    "rejected_token_rewards": [[-0.3, 9.0, 0.1]],
                    **TOKEN_MASKS,
                },
                {"beta": 0.5, "alpha": 0.5},
                [0.362809],
            ),
        ),
        hyper={"beta": 0.3, "alpha": 0.5},
        out_of_range=(NEGATIVE_BETA, ("alpha", -0.1, "[0, inf)")),
        hidden=_hidden("policy_{}_token_logps", "{}_token_rewards"),
        extremes={f"{s}_token_rewards": (-0.5, 0.0, 0.5) for s in SIDES},
        pinned=_treg_pinned,
    ),
    Row(
        "simpo_reg",
        lambda rng: {k: v for k, v in _treg_inputs(rng).items() if not k.startswith("reference")},
        TOKEN_POLICY,
        # means -0.75 and -1.5: margin 2 * 0.75 - 0.5 = 1; softplus(-1) - 0.5 * 2 * s(-1) * 0.3
        hand=(
            (
                {
                    **TOKENS,
                    "chosen_token_rewards": [[0.2, 0.1, 9.0]],
                    "rejected_token_rewards": [[-0.3, 9.0, 0.1]],
                    **TOKEN_MASKS,
                },
                {"beta": 2.0, "gamma": 0.5, "alpha": 0.5},
                [0.232579],
            ),
        ),
        hyper={"beta": 1.5, "gamma": 0.3, "alpha": 0.5},
        out_of_range=(NEGATIVE_BETA, ("gamma", -0.1, "[0, inf)"), ("alpha", -0.1, "[0, inf)")),
        hidden=_hidden("policy_{}_token_logps", "{}_token_rewards"),
        extremes={f"{s}_token_rewards": (-0.5, 0.0, 0.5) for s in SIDES},
        pinned=_simpo_reg_pinned,
    ),
    Row(
        "sparse_token_dpo",
        lambda rng: _token_pair(rng, "reference_{}_token_logps", "{}_token_scores"),
        (*TOKEN_POLICY, "chosen_token_scores", "rejected_token_scores"),
        # gates 1/2, 3/4 and 1/4, 1/2; margin 0.25 + 0.25; softplus(-0.25) + 0.1 * 2
        hand=(
            (
                {
                    **TOKENS,
                    **TOKEN_REFERENCE,
                    "chosen_token_scores": [[0.0, np.log(3), 9.0]],
                    "rejected_token_scores": [[-np.log(3), 9.0, 0.0]],
                    **TOKEN_MASKS,
                },
                {"beta": 0.5, "sparsity": 0.1},
                [0.775939],
            ),
        ),
        hyper={"beta": 0.3, "sparsity": 0.05},
        out_of_range=(NEGATIVE_BETA, ("sparsity", -0.1, "[0, inf)")),
        hidden=_hidden("policy_{}_token_logps", "reference_{}_token_logps", "{}_token_scores"),
    ),
    Row(
        "cpl",
        _token_pair,
        TOKEN_POLICY,
        # A = 0.5 * (-0.5 - 0.5) = -0.5 and 0.5 * (-2 - 0.5) = -1.25; 0.75 softplus(-0.125) + 0.25 softplus(1)
        hand=(
            (
                {**TOKENS, **TOKEN_MASKS},
                {"alpha": 0.5, "contrastive_bias": 0.5, "gamma": 0.5, "label_smoothing": 0.25},
                [0.802765],
            ),
        ),
        hyper=CPL_HYPER,
        out_of_range=CPL_OUT_OF_RANGE,
        hidden=_hidden("policy_{}_token_logps"),
    ),
    Row(
        "cpl_kl",
        _with_reference,
        TOKEN_POLICY,
        # A = 0.5 * 0.5 and 0.5 * -1 (the later tokens' ratios are 0); softplus(-0.25 - 0.25)
        hand=(
            (
                {**TOKENS, **TOKEN_REFERENCE, **TOKEN_MASKS},
                {"alpha": 0.5, "contrastive_bias": 0.5, "gamma": 0.5},
                [0.474077],
            ),
        ),
        hyper=CPL_HYPER,
        out_of_range=CPL_OUT_OF_RANGE,
        hidden=_hidden("policy_{}_token_logps", "reference_{}_token_logps"),
    ),
    Row(
        "ld_dpo_logp",
        lambda rng: {
            "token_logps": -1.5 + rng.normal(size=(B, T)),
            "mask": token_mask(rng, (B, T)),
            "shorter_lengths": rng.integers(1, 3, B),
        },
        ("token_logps",),
        # -1 - 2 in full, half of -4
        hand=(
            (
                {
                    "token_logps": [[-1.0, -2.0, 9.0, -4.0]],
                    "mask": [[True, True, False, True]],
                    "shorter_lengths": [2],
                },
                {"alpha": 0.5},
                [-5.0],
            ),
        ),
        hyper={"alpha": 0.3},
        out_of_range=(("alpha", -0.1, "[0, 1]"), ("alpha", 1.1, "[0, 1]")),
        hidden={"token_logps": hidden_tokens("mask")},
    ),
    Row(
        "ld_dpo",
        _with_reference,
        TOKEN_POLICY,
        # two chosen tokens: 0.5; three rejected: -1 + 0 + 0.5 * 1; softplus(-0.5 * 1)
        hand=(
            (
                {
                    "policy_chosen_token_logps": [[-0.5, -1.0, 9.0]],
                    "policy_rejected_token_logps": [[-2.0, -1.0, -1.0]],
                    "reference_chosen_token_logps": [[-1.0, -1.0, 9.0]],
                    "reference_rejected_token_logps": [[-1.0, -1.0, -2.0]],
                    "chosen_mask": [[True, True, False]],
                    "rejected_mask": [[True, True, True]],
                },
                {"beta": 0.5, "alpha": 0.5},
                [0.474077],
            ),
        ),
        hyper={"beta": 0.3, "alpha": 0.4},
        out_of_range=(NEGATIVE_BETA, ("alpha", -0.1, "[0, 1]"), ("alpha", 1.1, "[0, 1]")),
        hidden=_hidden("policy_{}_token_logps", "reference_{}_token_logps"),
    ),
)
