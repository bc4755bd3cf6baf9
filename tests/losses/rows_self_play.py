"""Rows of the contract suite for alignment.losses.self_play."""

import numpy as np
from contract import (
    NAN_BETA,
    NEGATIVE_BETA,
    PAIR,
    POLICY,
    ZERO_BETA,
    B,
    K,
    Row,
    T,
    pair,
    token_mask,
)

BETA = (NEGATIVE_BETA, ZERO_BETA, NAN_BETA)
ETA = (("eta", 0.0, "(0, inf)"), ("eta", -1.0, "(0, inf)"), ("eta", float("nan"), "(0, inf)"))
ALPHA = (("alpha", -1e-3, "[0, inf)"),)
RATES = {name: (0.0, 1.0) for name in ("chosen_win_rates", "rejected_win_rates")}
SAMPLES = ("policy_samples_logps",)


def compared(rng):
    return {**pair(rng), **{name: rng.random(B) for name in RATES}}


def with_proportions(rng):
    return {**pair(rng), "preference_proportions": rng.random(B)}


def of_three_policies(rng):
    drawn = pair(rng)
    old = {f"behaviour_{s}_logps": -10 + 4 * rng.normal(size=B) for s in ("chosen", "rejected")}
    first, second, *references = drawn.items()
    return dict([first, second, *old.items(), *references])


def with_samples(rng, reference=False):
    mask = token_mask(rng, (B, K, T))
    mask[:3, -1] = mask[0] = False
    names = ("policy_samples_logps", *(["reference_samples_logps"] if reference else []))
    return {**pair(rng), **{n: -10 + 4 * rng.normal(size=(B, K)) for n in names}, "samples_mask": mask}


def ordered_pairs(rng):
    mask = token_mask(rng, (B, 4, T))
    mask[:3, -1] = mask[0, 1] = False
    labels = np.stack([rng.permutation([1.0, 0.5, 0.5, 0.0]) for _ in range(B)])
    return {"responses_rewards": rng.normal(size=(B, 4)), "labels": labels, "responses_mask": mask}


def hidden_samples(inputs):
    return ~inputs["samples_mask"].any(-1)


# Of PAIR: a_w = 0.5, a_l = -1, h = 1.5.
RATED = {**PAIR, "chosen_win_rates": [0.75], "rejected_win_rates": [0.4]}
THREE = {
    "policy_chosen_logps": [-1.0],
    "policy_rejected_logps": [-2.0],
    "behaviour_chosen_logps": [-1.25],
    "behaviour_rejected_logps": [-1.75],
    "reference_chosen_logps": [-1.5],
    "reference_rejected_logps": [-1.0],
}
# Two samples, with log-probs -3 and -5 under the policy and -2 and -7 under the reference, and a third not there.
SAMPLED = {
    **PAIR,
    "policy_samples_logps": [[-3.0, -5.0, np.nan]],
    "samples_mask": [[[True, True], [True, False], [False, False]]],
}
SAMPLED_TWICE = {
    **PAIR,
    "policy_samples_logps": SAMPLED["policy_samples_logps"],
    "reference_samples_logps": [[-2.0, -7.0, np.nan]],
    "samples_mask": SAMPLED["samples_mask"],
}

ROWS = (
    Row(
        "spin",
        pair,
        POLICY,
        hand=((PAIR, {"beta": 0.5}, [0.386871]),),
        hyper={"beta": 0.3},
        out_of_range=BETA,
    ),
    Row(
        "spin_hinge",
        pair,
        POLICY,
        hand=((PAIR, {"beta": 0.5}, [0.25]), (PAIR, {"beta": 1.0}, [0.0])),
        hyper={"beta": 0.3},
        out_of_range=BETA,
    ),
    Row(
        "online_dpo",
        pair,
        POLICY,
        hand=((PAIR, {"beta": 0.5}, [0.386871]),),
        hyper={"beta": 0.3},
        out_of_range=BETA,
    ),
    Row(
        "dno_prct",
        pair,
        POLICY,
        hand=((PAIR, {"eta": 0.5}, [0.386871]),),
        hyper={"eta": 0.3},
        out_of_range=ETA,
    ),
    Row(
        "sppo",
        compared,
        POLICY,
        hand=((RATED, {"eta": 2.0}, [0.32]),),  # targets 0.5 and -0.2: (0 + 0.8^2) / 2
        hyper={"eta": 3.0},
        out_of_range=ETA,
        extremes=RATES,
    ),
    Row(
        "sppo_hard",
        pair,
        POLICY,
        hand=((PAIR, {"eta": 2.0}, [0.25]),),  # (0.5 - 1)^2 + (-1 + 1)^2
        hyper={"eta": 3.0},
        out_of_range=ETA,
    ),
    Row(
        "dno",
        compared,
        POLICY,
        # z = s(0.35) = 0.586618; 0.586618 * 0.386871 + 0.413382 * 1.136871
        hand=((RATED, {"eta": 0.5}, [0.696908]),),
        hyper={"eta": 0.3},
        out_of_range=ETA,
        extremes=RATES,
    ),
    Row(
        "ipo_md",
        with_proportions,
        POLICY,
        # 0.75 * (1.5 - 1)^2 + 0.25 * (1.5 + 1)^2
        hand=(({**PAIR, "preference_proportions": [0.75]}, {"tau": 0.5}, [1.75]),),
        hyper={"tau": 0.4},
        out_of_range=(("tau", 0.0, "(0, inf)"),),
        extremes={"preference_proportions": (0.0, 1.0)},
    ),
    Row(
        "inpo",
        of_three_policies,
        POLICY,
        # 1 - 0.25 * (-0.5) - 0.75 * 0.5 - 1 = -0.25
        hand=((THREE, {"eta": 0.5, "tau": 0.125}, [0.0625]),),
        hyper={"eta": 0.4, "tau": 0.1},
        out_of_range=(*ETA, ("tau", -0.1, "[0, inf)")),
    ),
    Row(
        "onpo",
        pair,
        POLICY,
        hand=((PAIR, {"eta": 1.0}, [1.0]),),
        hyper={"eta": 0.6},
        out_of_range=ETA,
    ),
    Row(
        "xpo",
        with_samples,
        (*POLICY, *SAMPLES),
        hand=((SAMPLED, {"beta": 0.5, "alpha": 0.1}, [-0.013129]),),  # 0.386871 - 0.1 * 4
        hyper={"beta": 0.3, "alpha": 0.2},
        out_of_range=(*BETA, *ALPHA),
        hidden={"policy_samples_logps": hidden_samples},
    ),
    Row(
        "selm",
        lambda rng: with_samples(rng, reference=True),
        (*POLICY, *SAMPLES),
        # log-ratios -1 and 2: 0.386871 + 0.2 * 0.5 * 0.5
        hand=((SAMPLED_TWICE, {"beta": 0.5, "alpha": 0.2}, [0.436871]),),
        hyper={"beta": 0.3, "alpha": 0.2},
        out_of_range=(*BETA, *ALPHA),
        hidden={name: hidden_samples for name in ("policy_samples_logps", "reference_samples_logps")},
    ),
    Row(
        "pit_gap_loss",
        ordered_pairs,
        ("responses_rewards",),
        # softplus(-1) + softplus(-0.5) + softplus(-1) + softplus(-1.5); without the second only those of 0, 2 and 3
        hand=(
            (
                {
                    "responses_rewards": [[1.0, 0.0, 0.5, -1.0], [1.0, np.nan, 0.5, -1.0]],
                    "labels": [[1.0, 0.5, 0.5, 0.0], [1.0, np.nan, 0.5, 0.0]],
                    "responses_mask": [[[True]] * 4, [[True], [False], [True], [True]]],
                },
                {},
                [1.302014, 0.67549],
            ),
        ),
        hidden={n: lambda inputs: ~inputs["responses_mask"].any(-1) for n in ("responses_rewards", "labels")},
    ),
)
