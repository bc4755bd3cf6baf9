"""Rows of the contract suite for alignment.policy_gradients.token_rollouts."""

import jax
import jax.numpy as jnp
import numpy as np
from contract import B, Row, T, V, hidden_tokens, token_mask

from alignment import policy_gradients

DRAWS = 3
BETA = (("beta", float("inf"), "(-inf, inf)"), ("beta", float("nan"), "(-inf, inf)"))
SHARE = {"uniforms": (0.0, 0.5, 0.999), "coins": (0.0, 0.5, 0.999)}


def number(name):
    """Bool and integer results as numbers, which is what the suite compares."""

    def loss(*arrays, **hyper):
        return getattr(policy_gradients, name)(*arrays, **hyper).astype(jnp.float32)

    return loss


def sampled(rng):
    return {
        "policy_sampled_token_logps": -2 + 0.5 * rng.normal(size=(B, T, DRAWS)),
        "sampled_tokens": rng.integers(0, 3, (B, T, DRAWS)),
        "tokens": rng.integers(0, 3, (B, T)),
        "mask": token_mask(rng, (B, T)),
    }


def vocabulary(rng):
    return {
        "policy_logits": rng.normal(size=(B, T, V)),
        "tokens": rng.integers(0, V, (B, T)),
        "mask": token_mask(rng, (B, T)),
    }


def hidden_in(size):
    return lambda inputs: np.broadcast_to(~inputs["mask"][..., None], (B, T, size))


def _otr_exact_pinned(inputs, hyper):
    tempered = jax.nn.softmax(inputs["policy_logits"] / hyper["kappa"])
    own = jnp.arange(V) == inputs["tokens"][..., None]
    weights = jnp.where(own, 1.0, hyper["beta"]) * tempered

    def loss(logits, tokens, mask):
        return jnp.where(mask, -jnp.sum(weights * jax.nn.log_softmax(logits), -1), 0.0)

    return loss


def restricted(rng):
    inputs = vocabulary(rng)
    actions = rng.random((B, T, V)) < 0.5
    np.put_along_axis(actions, inputs["tokens"][..., None], True, axis=-1)
    return {
        "policy_logits": inputs["policy_logits"],
        "action_mask": actions,
        **{k: inputs[k] for k in ("tokens", "mask")},
    }


def last_axis_is_the_vocabulary(rng):
    actions = rng.random((B, T)) < 0.6
    actions[:, 0] = True
    return {"policy_logits": rng.normal(size=(B, T)), "action_mask": actions}


def mask_policy(rng):
    return {"mask_policy_logits": rng.normal(size=(B, T)), "always_kept": rng.random((B, T)) < 0.2}


def rolled(*first):
    draw = {
        "coins": lambda rng: rng.random(B),
        "iterations": lambda rng: rng.integers(0, 4, B),
        "roll_in_lengths": lambda rng: rng.integers(0, T, B),
        "mask": lambda rng: token_mask(rng, (B, T)),
    }
    return lambda rng: {name: draw[name](rng) for name in (*first, "roll_in_lengths", "mask")}


# Probabilities 0.5, 0.3, 0.15 and 0.05, in another order; the last token is always kept.
MASK_POLICY = {"mask_policy_logits": np.log([[0.15, 0.5, 0.3, 0.05]]), "always_kept": [[False, False, False, True]]}
# The second token is not of the completion (a hole, as of a tool's answer): positions count completion tokens.
ROLLED = {"roll_in_lengths": [2, 0], "mask": [[True, False, True, True], [True, True, True, False]]}
AFTER, WITHIN = [[0, 0, 0, 1], [1, 1, 1, 0]], [[1, 0, 1, 0], [0, 0, 0, 0]]

ROWS = (
    Row(
        "otr",
        sampled,
        ("policy_sampled_token_logps",),
        # two draws at the only position that counts: its own token, and another
        hand=(
            (
                {
                    "policy_sampled_token_logps": [[[-0.5, -2.0], [np.nan, np.inf]]],
                    "sampled_tokens": [[[4, 6], [0, 0]]],
                    "tokens": [[4, 0]],
                    "mask": [[True, False]],
                },
                {},
                [[(0.5 - 0.1 * 2.0) / 2, 0.0]],
            ),
        ),
        hyper={"beta": -0.2},
        out_of_range=BETA,
        hidden={"policy_sampled_token_logps": hidden_in(DRAWS)},
        per="token",
    ),
    Row(
        "otr_exact",
        vocabulary,
        ("policy_logits",),
        # uniform over two tokens: (1 + beta) / 2 * log 2, whatever the temperature
        hand=(
            (
                {
                    "policy_logits": [[[3.0, 3.0], [np.nan, 0.0]]],
                    "tokens": [[1, 9]],
                    "mask": [[True, False]],
                },
                {"beta": -0.5},
                [[0.25 * 0.6931472, 0.0]],
            ),
        ),
        hyper={"beta": -0.2, "kappa": 1.3},
        out_of_range=(*BETA, ("kappa", 0.0, "(0, inf)")),
        hidden={"policy_logits": hidden_in(V)},
        per="token",
        pinned=_otr_exact_pinned,
    ),
    Row(
        "nlpo_top_p",
        mask_policy,
        (),
        hand=(
            (MASK_POLICY, {"p": 0.6, "min_tokens": 1}, [[0, 1, 1, 1]]),
            (MASK_POLICY, {"p": 0.4, "min_tokens": 1}, [[0, 1, 0, 1]]),
            (MASK_POLICY, {"p": 0.4, "min_tokens": 3}, [[1, 1, 1, 1]]),
        ),
        hyper={"p": 0.5, "min_tokens": 1},
        out_of_range=(("p", -0.1, "[0, 1]"), ("p", 1.1, "[0, 1]"), ("min_tokens", 0, "[1, inf)")),
        per="token",
        loss=number("nlpo_top_p"),
    ),
    Row(
        "nlpo_top_k",
        mask_policy,
        (),
        hand=((MASK_POLICY, {"k": 2}, [[0, 1, 1, 1]]), (MASK_POLICY, {"k": 1}, [[0, 1, 0, 1]])),
        hyper={"k": 2},
        out_of_range=(("k", 0, "[1, inf)"),),
        per="token",
        loss=number("nlpo_top_k"),
    ),
    Row(
        "nlpo_logps",
        last_axis_is_the_vocabulary,
        ("policy_logits",),
        # probabilities 0.5 and 0.25 of what is left, divided by 0.75
        hand=(
            (
                {"policy_logits": np.log([[0.5, 0.25, 0.25]]), "action_mask": [[True, False, True]]},
                {},
                [[-0.4054651, -1e30, -1.0986123]],
            ),
        ),
        hidden={"policy_logits": hidden_tokens("action_mask")},
        per="token",
    ),
    Row(
        "nlpo_token_logps",
        restricted,
        ("policy_logits",),
        hand=(
            (
                {
                    "policy_logits": [[np.log([0.5, 0.25, 0.25]), [np.nan, 0.0, 0.0]]],
                    "action_mask": [[[True, False, True], [True, True, True]]],
                    "tokens": [[2, 7]],
                    "mask": [[True, False]],
                },
                {},
                [[-1.0986123, 0.0]],
            ),
        ),
        hidden={"policy_logits": hidden_in(V)},
        per="token",
    ),
    Row(
        "rlgf_roll_in_lengths",
        lambda rng: {"coins": rng.random(B), "uniforms": rng.random(B), "lengths": rng.integers(0, 9, B)},
        (),
        # 0.99 of 0 .. 3; the coin says no; too short
        hand=(
            (
                {"coins": [0.7, 0.9, 0.1, 0.1], "uniforms": [0.99, 0.99, 0.99, 0.5], "lengths": [5, 5, 1, 5]},
                {},
                [3, 0, 0, 2],
            ),
        ),
        hyper={"beta": 0.6},
        out_of_range=(("beta", -0.1, "[0, 1]"), ("beta", 1.1, "[0, 1]")),
        loss=number("rlgf_roll_in_lengths"),
        extremes=SHARE,
    ),
    Row(
        "ppo_plus_plus_mask",
        rolled(),
        (),
        hand=((ROLLED, {}, AFTER),),
        per="token",
        loss=number("ppo_plus_plus_mask"),
    ),
    Row("aggrevated_mask", rolled(), (), hand=((ROLLED, {}, WITHIN),), per="token", loss=number("aggrevated_mask")),
    Row(
        "lols_mask",
        rolled("coins"),
        (),
        hand=(({"coins": [0.7, 0.9], **ROLLED}, {}, [AFTER[0], WITHIN[1]]),),
        hyper={"tau": 0.5},
        out_of_range=(("tau", -0.1, "[0, 1]"), ("tau", 1.1, "[0, 1]")),
        per="token",
        loss=number("lols_mask"),
        extremes=SHARE,
    ),
    Row(
        "d2lols_mask",
        rolled("iterations"),
        (),
        hand=(({"iterations": [1, 2], **ROLLED}, {"tau": 2}, [WITHIN[0], AFTER[1]]),),
        hyper={"tau": 2},
        out_of_range=(("tau", -1, "[0, inf)"),),
        per="token",
        loss=number("d2lols_mask"),
    ),
)
