"""Rows of the contract suite for alignment.losses.reference_free."""

from contract import NEGATIVE_BETA, POLICY, SMOOTHING, ZERO_BETA, B, Row

GOLD = "policy_gold_logps"
NEGATIVE_LAMBDA = ("lambda_", -0.1, "[0, inf)")
NEGATIVE_GAMMA = ("gamma", -0.1, "[0, inf)")
NEGATIVE_ALPHA = ("alpha", -0.1, "[0, inf)")


def _logps(*sides):
    return lambda rng: {f"policy_{side}_logps": -rng.gamma(2.0, 2.0, B) for side in sides}


def _with_lengths(*sides):
    def inputs(rng):
        return {**_logps(*sides)(rng), **{f"{s}_lengths": rng.integers(1, 9, B) for s in ("chosen", "rejected")}}

    return inputs


pair, triple = _logps("chosen", "rejected"), _logps("chosen", "rejected", "gold")
measured_pair, measured_triple = _with_lengths("chosen", "rejected"), _with_lengths("chosen", "rejected", "gold")
# Means -1/2 and -2, or -4/4 where a value says so.
PAIR = {"policy_chosen_logps": [-1.0], "policy_rejected_logps": [-2.0]}
LENGTHS = {"chosen_lengths": [2], "rejected_lengths": [1]}

ROWS = (
    Row(
        "slic_hf",
        pair,
        POLICY,
        # 1.5 + 1 - 2 = 0.5 short of the margin, and 0.25 * 1; with the default margin of 1 just reached, 0.1 * 1
        hand=((PAIR, {"delta": 1.5, "lambda_": 0.25}, [0.75]), (PAIR, {}, [0.1])),
        hyper={"delta": 1.5, "lambda_": 0.2},
        out_of_range=(("delta", -0.1, "[0, inf)"), NEGATIVE_LAMBDA),
    ),
    Row(
        "slic_hf_target",
        triple,
        (*POLICY, GOLD),
        hand=(({**PAIR, GOLD: [-4.0]}, {"delta": 1.5, "lambda_": 0.25}, [1.5]),),  # 0.5 + 0.25 * 4
        hyper={"delta": 1.5, "lambda_": 0.2},
        out_of_range=(("delta", -0.1, "[0, inf)"), NEGATIVE_LAMBDA),
    ),
    Row(
        "simpo",
        measured_pair,
        POLICY,
        hand=(({**PAIR, **LENGTHS}, {"beta": 0.5, "gamma": 0.25}, [0.474077]),),  # softplus(-(0.5 * 1.5 - 0.25))
        hyper={"beta": 0.7, "gamma": 0.3},
        out_of_range=(NEGATIVE_BETA, ZERO_BETA, NEGATIVE_GAMMA),
    ),
    Row(
        "alpha_po",
        measured_pair,
        POLICY,
        # rewards (1 - e^0.25) / 0.5 = -0.568051 and (1 - e^0.5) / 0.5 = -1.297443: softplus(-(0.729392 - 0.25))
        hand=(
            (
                {**PAIR, "policy_rejected_logps": [-4.0], "chosen_lengths": [2], "rejected_lengths": [4]},
                {"alpha": 0.5, "beta": 1.0, "gamma": 0.25},
                [0.481907],
            ),
        ),
        hyper={"alpha": 0.3, "beta": 0.7, "gamma": 0.2},
        out_of_range=(("alpha", float("inf"), "(-inf, inf)"), NEGATIVE_BETA, NEGATIVE_GAMMA),
    ),
    Row(
        "cpo",
        pair,
        POLICY,
        # softplus(-0.5) + 0.1 * 0.5 + 0.2 * 1
        hand=((PAIR, {"beta": 0.5, "lambda_": 0.2, "label_smoothing": 0.1}, [0.724077]),),
        hyper={"beta": 0.3, "lambda_": 0.4, "label_smoothing": 0.1},
        out_of_range=(NEGATIVE_BETA, ZERO_BETA, NEGATIVE_LAMBDA, *SMOOTHING),
    ),
    Row(
        "orpo_odds_ratio",
        measured_pair,
        POLICY,
        # log-odds -0.5 - log(1 - e^-0.5) = 0.432752 and -2 - log(1 - e^-2) = -1.854587: softplus(-2.287339)
        hand=(({**PAIR, **LENGTHS}, {}, [0.096706]),),
    ),
    Row(
        "orpo",
        measured_pair,
        POLICY,
        hand=(({**PAIR, **LENGTHS}, {"lambda_": 0.2}, [0.519341]),),  # 0.5 + 0.2 * 0.096706
        hyper={"lambda_": 0.4},
        out_of_range=(NEGATIVE_LAMBDA,),
    ),
    Row(
        "rrhf",
        measured_pair,
        POLICY,
        # in order: 0.5 * 1; with four rejected tokens means -0.5 against -0.5; with eight, 0.25 short
        hand=(
            ({**PAIR, **LENGTHS}, {"lambda_": 0.5}, [0.5]),
            ({**PAIR, "chosen_lengths": [2], "rejected_lengths": [4]}, {"lambda_": 0.5}, [0.5]),
            ({**PAIR, "chosen_lengths": [2], "rejected_lengths": [8]}, {"lambda_": 0.5}, [0.75]),
        ),
        hyper={"lambda_": 0.4},
        out_of_range=(NEGATIVE_LAMBDA,),
    ),
    Row(
        "tpo",
        triple,
        (*POLICY, GOLD),
        hand=(({**PAIR, GOLD: [-4.0]}, {"beta": 0.5, "alpha": 0.2}, [1.274077]),),  # softplus(-0.5) + 0.2 * 4
        hyper={"beta": 0.3, "alpha": 0.4},
        out_of_range=(NEGATIVE_BETA, ZERO_BETA, NEGATIVE_ALPHA),
    ),
    Row(
        "tpo_l",
        measured_triple,
        (*POLICY, GOLD),
        # softplus(-(0.5 * 1.5 - 0.25)) + 0.2 * 4
        hand=(({**PAIR, GOLD: [-4.0], **LENGTHS}, {"beta": 0.5, "gamma": 0.25, "alpha": 0.2}, [1.274077]),),
        hyper={"beta": 0.3, "gamma": 0.2, "alpha": 0.4},
        out_of_range=(NEGATIVE_BETA, ZERO_BETA, NEGATIVE_GAMMA, NEGATIVE_ALPHA),
    ),
)
