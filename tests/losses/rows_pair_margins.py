"""Rows of the contract suite for alignment.losses.pair_margins."""

from contract import NEGATIVE_BETA, PAIR, POLICY, ZERO_BETA, B, Row, pair


def with_lengths(rng):
    return {**pair(rng), **{f"{side}_lengths": rng.integers(1, 9, B) for side in ("chosen", "rejected")}}


# softplus(-1) = 0.313262, softplus(-0.5) = 0.474077
ROWS = (
    Row(
        "dpo_gamma",
        pair,
        POLICY,
        hand=((PAIR, {"beta": 0.5, "gamma": 2.0}, [0.313262]),),  # 0.5 * (1 - 2 * -0.5)
        hyper={"beta": 0.3, "gamma": 0.7},
        out_of_range=(NEGATIVE_BETA, ZERO_BETA, ("gamma", -0.1, "[0, inf)")),
    ),
    Row(
        "flex_dpo",
        pair,
        POLICY,
        hand=((PAIR, {"beta_chosen": 0.5, "beta_rejected": 0.25}, [0.474077]),),  # 0.5 * 0.5 + 0.25 * 1
        hyper={"beta_chosen": 0.3, "beta_rejected": 0.2},
        out_of_range=(("beta_chosen", -0.1, "[0, inf)"), ("beta_rejected", -0.1, "[0, inf)")),
    ),
    Row(
        "length_normalized_dpo",
        with_lengths,
        POLICY,
        hand=(
            ({**PAIR, "chosen_lengths": [2], "rejected_lengths": [4]}, {"beta": 2.0}, [0.313262]),
        ),  # 2 * (1/4 + 1/4)
        hyper={"beta": 0.4},
        out_of_range=(NEGATIVE_BETA, ZERO_BETA),
    ),
    Row(
        "length_regularized_dpo",
        with_lengths,
        POLICY,
        # 0.75 + 0.125 * (6 - 4)
        hand=(({**PAIR, "chosen_lengths": [6], "rejected_lengths": [4]}, {"beta": 0.5, "alpha": 0.125}, [0.313262]),),
        hyper={"beta": 0.3, "alpha": 0.2},
        out_of_range=(NEGATIVE_BETA, ZERO_BETA, ("alpha", -0.1, "[0, inf)")),
    ),
)
