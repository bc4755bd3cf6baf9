"""Rows of the contract suite for alignment.losses.several_objectives."""

import numpy as np
from contract import NAN_BETA, NEGATIVE_BETA, PAIR, POLICY, ZERO_BETA, B, K, Row, hidden_responses, pair, ranked_list

HIDDEN = dict.fromkeys(("policy_responses_logps", "reference_responses_logps", "labels"), hidden_responses)
# The second is the best satisfying response, the third the only violating one.
LIST = {
    "policy_responses_logps": [[-2.0, -3.0, -4.0]],
    "reference_responses_logps": [[-2.0, -3.0, -5.0]],
    "labels": [[1.0, 2.0, 3.0]],
    "judgements": [[True, True, False]],
    "responses_mask": [[[True, True], [True, True], [True, False]]],
}


def _judged(rng):
    lists = ranked_list(rng)
    mask = lists.pop("responses_mask")
    return lists | {"judgements": rng.random((B, K)) < 0.6, "responses_mask": mask}


def _crraft(rng):
    lists = _judged(rng)
    policy, reference = lists["policy_responses_logps"], lists["reference_responses_logps"]
    lists["judgements"][:, 0] = True
    return {
        "policy_responses_logps": policy,
        "behaviour_responses_logps": reference + rng.normal(size=(B, K)),
        "reference_responses_logps": reference,
        "labels": lists["labels"],
        "prompt_baselines": rng.normal(size=B),
        "judgements": lists["judgements"],
        "responses_mask": lists["responses_mask"],
    }


ROWS = (
    Row(
        "modpo",
        lambda rng: (
            pair(rng)
            | {"chosen_margin_rewards": rng.normal(size=(B, 2)), "rejected_margin_rewards": rng.normal(size=(B, 2))}
        ),
        POLICY,
        # (0.75 - 0.5 * 0.5) / 0.5 = 1
        hand=(
            (
                PAIR | {"chosen_margin_rewards": [[1.0]], "rejected_margin_rewards": [[0.5]]},
                {"beta": 0.5, "margin_shares": (1.0,)},
                [0.313262],
            ),
        ),
        hyper={"margin_shares": (0.25, 0.75)},
        out_of_range=(NEGATIVE_BETA, ZERO_BETA, NAN_BETA, ("share", 0.0, "(0, 1]"), ("share", 1.5, "(0, 1]")),
    ),
    Row(
        "mah_dpo",
        lambda rng: (
            pair(rng)
            | {
                "objective_ids": np.array([0, 1, 0, 1, 1, 0, 0, 0]),
                "valid": np.array([True, True, True, True, False, True, True, True]),
            }
        ),
        POLICY,
        # 0.386871 times 0.5 * 3 / 2 and 0.5 * 3
        hand=(
            (
                {name: value * 3 for name, value in PAIR.items()}
                | {"objective_ids": [0, 0, 1], "valid": [True, True, True]},
                {"beta": 0.5},
                [0.290153, 0.290153, 0.580307],
            ),
        ),
        out_of_range=(NEGATIVE_BETA, ZERO_BETA, NAN_BETA),
        hidden=dict.fromkeys(pair(np.random.default_rng(0)), lambda inputs: ~inputs["valid"]),
        batch_wide=True,
    ),
    Row(
        "safe_rlhf_cost",
        lambda rng: {
            "chosen_rewards": rng.normal(size=B),
            "rejected_rewards": rng.normal(size=B),
            "chosen_harmful": rng.random(B) < 0.3,
            "rejected_harmful": rng.random(B) < 0.7,
        },
        ("chosen_rewards", "rejected_rewards"),
        # 3 log 2; -log s(1) - log s(-1) - log s(2)
        hand=(
            (
                {
                    "chosen_rewards": [0.0, 1.0],
                    "rejected_rewards": [0.0, 2.0],
                    "chosen_harmful": [False, False],
                    "rejected_harmful": [True, True],
                },
                {},
                [2.079442, 1.753452],
            ),
        ),
    ),
    Row(
        "cgpo_codpo",
        _judged,
        ("policy_responses_logps",),
        # the pair is the second and the third: softplus(0.5), and 2 * 3 / 2; nothing satisfied: 0
        hand=(
            (LIST, {"beta": 0.5, "nll_weight": 2.0}, [3.974077]),
            (LIST | {"judgements": [[False] * 3]}, {}, [0.0]),
        ),
        out_of_range=(NEGATIVE_BETA, ZERO_BETA, NAN_BETA, ("nll_weight", -0.1, "[0, inf)")),
        hidden=HIDDEN,
    ),
    Row(
        "cgpo_crraft",
        _crraft,
        ("policy_responses_logps",),
        # the second has drifted by 6 nats, the third violates: s(1) * 2
        hand=(
            (
                {
                    "policy_responses_logps": LIST["policy_responses_logps"],
                    "behaviour_responses_logps": [[-2.0, -3.0, -4.0]],
                    "reference_responses_logps": [[-2.0, -9.0, -4.0]],
                    "labels": LIST["labels"],
                    "prompt_baselines": [0.0],
                    "judgements": LIST["judgements"],
                    "responses_mask": LIST["responses_mask"],
                },
                {},
                [1.462117],
            ),
        ),
        out_of_range=(("kl_max", 0.0, "(0, inf)"),),
        hidden=HIDDEN | {"behaviour_responses_logps": hidden_responses},
    ),
)
