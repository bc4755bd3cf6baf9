"""Rows of the contract suite for alignment.policy_gradients.masked_diffusion. T maskings of L tokens, or T tokens."""

import jax.numpy as jnp
import numpy as np
from contract import B, Row, T, V, hidden_tokens, token_mask

from alignment import policy_gradients

L = 4
UNIFORM = (0.0, 0.5, 0.999)
RATE = (("rate", -0.1, "[0, 1]"), ("rate", 1.1, "[0, 1]"))


def number(name):
    def loss(*arrays, **hyper):
        return getattr(policy_gradients, name)(*arrays, **hyper).astype(jnp.float32)

    return loss


def maskings(rng):
    return {
        "policy_masked_token_logps": -2 + 0.5 * rng.normal(size=(B, T, L)),
        "masked": rng.random((B, T, L)) < 0.6,
    }


def terms(rng):
    behaviour = -5 + rng.normal(size=(B, T))
    return {
        "policy_elbo_terms": behaviour + 0.5 * rng.normal(size=(B, T)),
        "behaviour_elbo_terms": behaviour,
        "advantages": rng.normal(size=B),
    }


def matching(rng):
    logps = -1 + 0.3 * rng.normal(size=B)
    return {
        "policy_logps": logps + 0.5 * rng.normal(size=B),
        "behaviour_logps": logps,
        "advantages": 2 * rng.normal(size=B),
    }


def logits(rng):
    return {
        "policy_logits": rng.normal(size=(B, T, V)),
        "tokens": rng.integers(0, V, (B, T)),
        "mask": token_mask(rng, (B, T)),
    }


def hints(rng):
    return {
        "length_uniforms": rng.random((B, T)),
        "chunk_uniforms": rng.random((B, T)),
        "shares": rng.random(B),
        "mask": token_mask(rng, (B, T)),
    }


def replaced(rng):
    ids = np.array([3, 9, 3, 3, 9, 9, 3, 9])
    valid = np.ones(B, bool)
    valid[7] = False
    return {
        "rewards": np.where(ids == 3, 0.0, rng.random(B)),
        "in_painted_correct": rng.random(B) < 0.7,
        "group_ids": ids,
        "valid": valid,
    }


def is_replaced(*arrays, **hyper):
    """The numbers of rows change when rows that only pad go; which rows are replaced does not."""
    return (policy_gradients.igpo_replacements(*arrays, **hyper) >= 0).astype(jnp.float32)


ELBO = {
    "policy_elbo_terms": [[-1.0, -2.0], [-1.0, -2.0]],
    "behaviour_elbo_terms": [[-1.5, -1.0], [-1.5, -1.0]],
    "advantages": [2.0, -2.0],
}
# every non-empty set of two tokens, and the empty one
SUBSETS = [[False, False], [True, False], [False, True], [True, True]]

ROWS = (
    Row(
        "mdlm_masks",
        lambda rng: {
            "uniforms": rng.random((B, T, T)),
            "times": rng.random((B, T)),
            "mask": token_mask(rng, (B, T)),
        },
        (),
        hand=(
            (
                {"uniforms": [[[0.4, 0.6, 0.1]]], "times": [[0.5]], "mask": [[True, True, False]]},
                {},
                [[1.0]],
            ),
        ),
        per="token",
        # How many of each masking are hidden: the suite compares arrays of one shape.
        loss=lambda *a: jnp.sum(policy_gradients.mdlm_masks(*a), -1).astype(jnp.float32),
        extremes={"uniforms": UNIFORM, "times": (0.0, 0.5, 1.0)},
    ),
    Row(
        "mdlm_elbo_terms",
        lambda rng: {**maskings(rng), "times": 0.1 + 0.9 * rng.random((B, T))},
        ("policy_masked_token_logps",),
        # (-1 - 2) / 0.5, and -1 / 0.001 for a smaller t
        hand=(
            (
                {
                    "policy_masked_token_logps": [[[-1.0, -2.0, np.nan], [-1.0, np.inf, -9.0]]],
                    "masked": [[[True, True, False], [True, False, False]]],
                    "times": [[0.5, 1e-5]],
                },
                {},
                [[-6.0, -1000.0]],
            ),
        ),
        hyper={"smallest_time": 0.3},
        out_of_range=(("smallest_time", 0.0, "(0, 1]"), ("smallest_time", 1.5, "(0, 1]")),
        hidden={"policy_masked_token_logps": lambda inputs: ~inputs["masked"]},
        per="token",
        extremes={"times": (0.1, 0.5, 1.0)},
    ),
    Row(
        "mdlm_elbo_terms_by_count",
        lambda rng: {**maskings(rng), "mask": rng.random((B, L)) < 0.8},
        ("policy_masked_token_logps",),
        # 3 / 2 * (-1 - 2)
        hand=(
            (
                {
                    "policy_masked_token_logps": [[[-1.0, -2.0, np.nan]]],
                    "masked": [[[True, True, False]]],
                    "mask": [[True, True, True]],
                },
                {},
                [[-4.5]],
            ),
        ),
        hidden={"policy_masked_token_logps": lambda inputs: ~inputs["masked"]},
        per="token",
    ),
    Row(
        "mdlm_elbo_exact",
        lambda rng: {
            "policy_subset_token_logps": -2 + rng.normal(size=(B, 8, 3)),
            "subsets": np.broadcast_to(np.arange(8)[:, None] >> np.arange(3) & 1 > 0, (B, 8, 3)).copy(),
        },
        ("policy_subset_token_logps",),
        # each set weighs 1/2: orders first-second (-3 then -2) and second-first (-4 then -1)
        hand=(
            (
                {
                    "policy_subset_token_logps": [[[0.0, np.nan], [-1.0, np.inf], [np.nan, -2.0], [-3.0, -4.0]]],
                    "subsets": [SUBSETS],
                },
                {},
                [-5.0],
            ),
        ),
        hidden={"policy_subset_token_logps": lambda inputs: ~inputs["subsets"]},
    ),
    Row(
        "elbo_surrogate",
        terms,
        ("policy_elbo_terms",),
        hand=((ELBO, {}, [-1.557602, 1.557602]),),  # d = 0.5 and -1, exp(-0.25) = 0.778801
    ),
    Row(
        "bgpo",
        terms,
        ("policy_elbo_terms",),
        # 1 - 0.25; (e^0.5 + e^-1) / 2 = 1.008300
        hand=((ELBO, {}, [-1.5, 2.016601]),),
    ),
    Row(
        "diffu_grpo_prompt_masks",
        lambda rng: {"uniforms": rng.random((B, T)), "prompt_mask": token_mask(rng, (B, T))},
        (),
        hand=(({"uniforms": [[0.1, 0.2, 0.1]], "prompt_mask": [[True, True, False]]}, {}, [[1, 0, 0]]),),
        hyper={"rate": 0.4},
        out_of_range=RATE,
        per="token",
        loss=number("diffu_grpo_prompt_masks"),
        extremes={"uniforms": UNIFORM},
    ),
    Row(
        "mean_field_token_logps",
        logits,
        ("policy_logits",),
        hand=(
            (
                {
                    "policy_logits": [[np.log([0.5, 0.25, 0.25]), [np.nan, 0.0, 0.0]]],
                    "tokens": [[2, 7]],
                    "mask": [[True, False]],
                },
                {},
                [[-1.3862944, 0.0]],
            ),
        ),
        hidden={"policy_logits": lambda inputs: np.broadcast_to(~inputs["mask"][..., None], (B, T, V))},
        per="token",
    ),
    Row(
        "igpo_hint_masks",
        hints,
        (),
        # chunks of 1, 2, 1 and the rest of the second row; two of three, then all, then none
        hand=(
            (
                {
                    "length_uniforms": [[0.1, 0.9, 0.1, 0.1]] * 3,
                    "chunk_uniforms": [[0.5, 0.8, 0.2, 0.0]] * 3,
                    "shares": [0.6, 1.0, 0.0],
                    "mask": [[True, True, True, True], [True, True, True, False], [True] * 4],
                },
                {"smallest_chunk": 1, "largest_chunk": 2},
                [[1, 0, 0, 1], [1, 1, 1, 0], [0, 0, 0, 0]],
            ),
        ),
        hyper={"smallest_chunk": 1, "largest_chunk": 2},
        out_of_range=(("smallest_chunk", 0, "[1, inf)"), ("largest_chunk", 2, "[smallest_chunk, inf)")),
        per="token",
        loss=number("igpo_hint_masks"),
        extremes={"length_uniforms": UNIFORM, "chunk_uniforms": UNIFORM, "shares": (0.0, 0.5, 1.0)},
    ),
    Row(
        "igpo_replacements",
        replaced,
        (),
        # group 3 is all wrong: two of four by the two first correct samples; group 9 has a success
        hand=(
            (
                {
                    "rewards": [0.0, 1.0, 0.0, 0.0, 0.0, 0.0, np.nan],
                    "in_painted_correct": [False, True, True, True, True, True, True],
                    "group_ids": [3, 9, 3, 3, 9, 3, 3],
                    "valid": [True, True, True, True, True, True, False],
                },
                {},
                [1, 0, 1, 0, 0, 0, 0],
            ),
        ),
        hyper={"lambda_": 0.7},
        out_of_range=(("lambda_", -0.1, "[0, 1]"), ("lambda_", 1.1, "[0, 1]")),
        hidden={"rewards": lambda inputs: ~inputs["valid"]},
        loss=is_replaced,
        batch_wide=True,
    ),
    Row(
        "igpo_token_mask",
        lambda rng: {
            "token_entropies": rng.random((B, T)),
            "hint_mask": rng.random((B, T)) < 0.6,
            "mask": token_mask(rng, (B, T)),
        },
        (),
        # half of four hints: the two most uncertain, and the token that was generated
        hand=(
            (
                {
                    "token_entropies": [[0.1, 0.9, 0.5, 0.3, 0.0, np.nan]],
                    "hint_mask": [[True, True, True, True, False, True]],
                    "mask": [[True, True, True, True, True, False]],
                },
                {"tau": 0.5},
                [[0, 1, 1, 0, 1, 0]],
            ),
        ),
        hyper={"tau": 0.5},
        out_of_range=(("tau", -0.1, "[0, 1]"), ("tau", 1.1, "[0, 1]")),
        hidden={"token_entropies": hidden_tokens("mask")},
        per="token",
        loss=number("igpo_token_mask"),
    ),
    Row(
        "awm_logps",
        lambda rng: {
            **{name: rng.normal(size=(B, T)) for name in ("policy_velocities", "samples", "noises")},
            "time_weights": rng.random(B),
        },
        ("policy_velocities",),
        # targets 1 and -2; errors 1 and 2: -0.5 * 2.5
        hand=(
            (
                {
                    "policy_velocities": [[2.0, 0.0]],
                    "samples": [[-1.0, 2.0]],
                    "noises": [[0.0, 0.0]],
                    "time_weights": [0.5],
                },
                {},
                [-1.25],
            ),
        ),
    ),
    Row(
        "awm",
        matching,
        ("policy_logps",),
        # ratio 1.5: -2 * 1.2 for A = 2, and 2 * 1.5 for A = -2, which the clip does not help; A = 9 counts as 5
        hand=(
            (
                {
                    "policy_logps": [-0.5945349, -0.5945349, -1.0],
                    "behaviour_logps": [-1.0, -1.0, -1.0],
                    "advantages": [2.0, -2.0, 9.0],
                },
                {"clip": 0.2},
                [-2.4, 3.0, -5.0],
            ),
        ),
        hyper={"clip": 0.2, "largest_advantage": 3.0},
        out_of_range=(("clip", -0.1, "[0, inf)"), ("largest_advantage", 0.0, "(0, inf)")),
    ),
    Row(
        "awm_velocity_penalty",
        lambda rng: {f"{w}_velocities": rng.normal(size=(B, T)) for w in ("policy", "reference")},
        ("policy_velocities",),
        hand=(({"policy_velocities": [[2.0, 0.0]], "reference_velocities": [[1.0, 2.0]]}, {}, [2.5]),),
    ),
)
