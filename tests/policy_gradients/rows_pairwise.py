"""Rows of the contract suite for alignment.policy_gradients.pairwise."""

import jax.numpy as jnp
import numpy as np
from contract import NEGATIVE_BETA, ZERO_BETA, B, K, Row, T, hidden_responses, token_mask

POLICY = ("policy_responses_logps",)
BETA = ("beta", -0.1, "[0, inf)")
EPS = ("eps", -0.1, "[0, inf)")
WITH_TOKENS = tuple(f"{w}_responses_token_logps" for w in ("policy", "behaviour", "reference"))


def mask(rng, size):
    there = token_mask(rng, (B, size, T))
    there[:2, -1] = False
    there[0] = False
    return there


def sampled_pair(rng):
    behaviour = -10 + 4 * rng.normal(size=(B, 2))
    return {
        "policy_responses_logps": behaviour + 0.3 * rng.normal(size=(B, 2)),
        "behaviour_responses_logps": behaviour,
        "reference_responses_logps": behaviour + rng.normal(size=(B, 2)),
        "labels": rng.normal(size=(B, 2)),
        "responses_mask": mask(rng, 2),
    }


def responses(rng):
    return {
        "policy_responses_logps": -10 + 4 * rng.normal(size=(B, K)),
        "reference_responses_logps": -10 + 4 * rng.normal(size=(B, K)),
        "labels": rng.normal(size=(B, K)),
        "responses_mask": mask(rng, K),
    }


def ranked(rng):
    inputs = {name: value for name, value in responses(rng).items() if name != "reference_responses_logps"}
    inputs["labels"] = -np.sort(-inputs["labels"], axis=-1)
    return inputs


def tokens(rng):
    behaviour = -1 + 0.3 * rng.normal(size=(B, K, T))
    return {
        "policy_responses_token_logps": behaviour + 0.3 * rng.normal(size=(B, K, T)),
        "behaviour_responses_token_logps": behaviour,
        "reference_responses_token_logps": behaviour + 0.3 * rng.normal(size=(B, K, T)),
        "labels": rng.normal(size=(B, K)),
        "responses_mask": mask(rng, K),
    }


def _p3o_pieces(inputs, hyper):
    policy, behaviour, reference, labels, there = inputs.values()
    rewards = labels - hyper["beta"] * (behaviour - reference)
    return rewards[:, 0] - rewards[:, 1], jnp.exp(policy - behaviour), there.any(-1).all(-1)


def _separate_pinned(inputs, hyper):
    gap, fixed, both = _p3o_pieces(inputs, hyper)
    b = jnp.stack([gap * fixed[:, 1], -gap * fixed[:, 0]], -1)

    def loss(policy, behaviour, *_):
        w = jnp.exp(policy - behaviour)
        gains = jnp.minimum(b * w, b * jnp.clip(w, 1 - hyper["eps"], 1 + hyper["eps"]))
        return jnp.where(both, -jnp.sum(gains, -1) / 2, 0.0)

    return loss


def _joint_pinned(inputs, hyper):
    gap, fixed, both = _p3o_pieces(inputs, hyper)
    o = jnp.prod(fixed, -1)

    def loss(policy, behaviour, *_):
        u = (policy[:, 0] - behaviour[:, 0] - policy[:, 1] + behaviour[:, 1]) / 2
        e2 = hyper["eps_difference"]
        clipped = gap * jnp.clip(o, 1 - hyper["eps"], 1 + hyper["eps"]) * jnp.clip(u, -e2, e2)
        return jnp.where(both, -jnp.minimum(gap * o * u, clipped), 0.0)

    return loss


def _copg_pinned(inputs, hyper):
    policy, reference, labels, there = inputs.values()
    fixed = labels - hyper["beta"] * (policy - reference)
    valid = there.any(-1)
    pairs = valid[:, :, None] & valid[:, None, :]
    others = jnp.maximum(valid.sum(-1) - 1, 1)

    def loss(policy, *_):
        terms = (fixed[:, :, None] - fixed[:, None, :]) * (policy[:, :, None] - policy[:, None, :])
        return -jnp.where(pairs, terms, 0.0).sum((1, 2)) / 2 / others

    return loss


def hide(*names):
    return {name: hidden_responses for name in names}


def hidden_tokens(inputs):
    return ~inputs["responses_mask"]


HIDDEN = hide("policy_responses_logps", "reference_responses_logps", "labels")
# w = (1.5, 1); rewards 1.1 - 0.1 * 1 and 0, so D = 1. The second list has one response: no pair.
SAMPLED = {
    "policy_responses_logps": [[-1.0 + 0.4054651, -2.0], [-1.0, np.nan]],
    "behaviour_responses_logps": [[-1.0, -2.0], [-3.0, np.inf]],
    "reference_responses_logps": [[-2.0, -2.0], [-3.0, np.inf]],
    "labels": [[1.1, 0.0], [1.0, np.nan]],
    "responses_mask": [[[True], [True]], [[True], [False]]],
}
# log-ratios 0.5 and -1; the third response is not there
LIST = {
    "policy_responses_logps": [[-1.0, -2.0, np.nan]],
    "reference_responses_logps": [[-1.5, -1.0, np.inf]],
    "labels": [[1.0, 0.0, 9.0]],
    "responses_mask": [[[True, True], [True, False], [False, False]]],
}
WITHOUT = {name: value for name, value in LIST.items() if name != "reference_responses_logps"}

ROWS = (
    Row(
        "p3o_separate",
        sampled_pair,
        POLICY,
        # B = (1, -1.5): min(1.5, 1.2) and min(-1.5, -1.5), minus half of the sum
        hand=((SAMPLED, {"beta": 0.1}, [0.15, 0.0]),),
        hyper={"beta": 0.3, "eps": 0.2},
        out_of_range=(EPS, BETA),
        hidden={**HIDDEN, **hide("behaviour_responses_logps")},
        pinned=_separate_pinned,
    ),
    Row(
        "p3o_joint",
        sampled_pair,
        POLICY,
        # o = 1.5, u = 0.2027: the smaller of 0.304 and 1.2 * 0.2
        hand=((SAMPLED, {"beta": 0.1}, [-0.24, 0.0]),),
        hyper={"beta": 0.3, "eps": 0.3, "eps_difference": 0.25},
        out_of_range=(EPS, BETA, ("eps_difference", -0.1, "[0, inf)")),
        hidden={**HIDDEN, **hide("behaviour_responses_logps")},
        pinned=_joint_pinned,
    ),
    Row(
        "copg",
        responses,
        POLICY,
        # R_b = 1 - 0.25 and 0 + 0.5; -(0.25) * (-1 + 2)
        hand=((LIST, {"beta": 0.5}, [-0.25]),),
        hyper={"beta": 0.3},
        out_of_range=(NEGATIVE_BETA, ZERO_BETA),
        hidden=HIDDEN,
        pinned=_copg_pinned,
    ),
    Row(
        "copg_squared",
        responses,
        POLICY,
        hand=((LIST, {"beta": 0.5}, [0.0625]),),
        hyper={"beta": 0.3},
        out_of_range=(NEGATIVE_BETA, ZERO_BETA),
        hidden=HIDDEN,
    ),
    Row(
        "rdp",
        responses,
        POLICY,
        hand=((LIST, {"beta": 0.5}, [0.25]),),  # (1.5 - 1 / 0.5)^2
        hyper={"beta": 0.3},
        out_of_range=(NEGATIVE_BETA, ZERO_BETA),
        hidden=HIDDEN,
    ),
    Row(
        "prdp",
        tokens,
        ("policy_responses_token_logps",),
        # log-ratios 0.3, 0.2 and -1; the first was 0, so it is clipped to 0.1: (1.3 - 2)^2 beats (1.5 - 2)^2
        hand=(
            (
                {
                    "policy_responses_token_logps": [[[-0.7, -0.8], [-2.0, np.nan]]],
                    "behaviour_responses_token_logps": [[[-1.0, -0.8], [-2.0, np.inf]]],
                    "reference_responses_token_logps": [[[-1.0, -1.0], [-1.0, np.nan]]],
                    "labels": [[1.0, 0.0]],
                    "responses_mask": [[[True, True], [True, False]]],
                },
                {"beta": 0.5, "eps": 0.1},
                [0.49],
            ),
        ),
        hyper={"beta": 0.3, "eps": 0.1},
        out_of_range=(NEGATIVE_BETA, ZERO_BETA, EPS),
        hidden={**{name: hidden_tokens for name in WITH_TOKENS}, "labels": hidden_responses},
    ),
    Row(
        "pro",
        ranked,
        POLICY,
        # scores -0.5 and -2, inverse temperature 1: softplus(-1.5) + 0.05 * 1 * 0.5
        hand=((WITHOUT, {}, [0.226413]),),
        hyper={"sft_weight": 0.2},
        out_of_range=(("sft_weight", -0.1, "[0, inf)"),),
        hidden=hide("policy_responses_logps", "labels"),
    ),
)
