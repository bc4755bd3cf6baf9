"""Rows of the contract suite for alignment.losses.anchored."""

from contract import NEGATIVE_BETA, PAIR, POLICY, ZERO_BETA, Row, pair

BETA = (NEGATIVE_BETA, ZERO_BETA)
# The pair the other way round: a_w = -1, a_l = 0.5, h = -1.5.
TURNED = dict(zip(PAIR, (PAIR[n] for n in (*reversed(POLICY), *list(PAIR)[:1:-1])), strict=True))

# At beta = 0.5, beta * a_w = 0.25 and beta * a_l = -0.5: s(0.25) = 0.562177, s(-0.5) = 0.377541, s(0.75) = 0.679179,
# softplus(-0.25) = 0.575939, softplus(0.25) = 0.825939, softplus(-0.5) = 0.474077.
ROWS = (
    Row(
        "dpop",
        pair,
        POLICY,
        # above the reference DPO's value; below it softplus(0.5 * (1.5 + 2 * 1)) = softplus(1.75)
        hand=(
            (PAIR, {"beta": 0.5, "lambda_": 2.0}, [0.386871]),
            (TURNED, {"beta": 0.5, "lambda_": 2.0}, [1.910224]),
        ),
        hyper={"beta": 0.05, "lambda_": 2.0},
        out_of_range=(*BETA, ("lambda_", -0.1, "[0, inf)")),
    ),
    Row(
        "sft_dpo",
        pair,
        POLICY,
        hand=((PAIR, {"beta": 0.5, "lambda_": 0.25}, [0.636871]),),  # 0.386871 + 0.25 * 1
        hyper={"beta": 0.3, "lambda_": 0.2},
        out_of_range=(*BETA, ("lambda_", -0.1, "[0, inf)")),
    ),
    Row(
        "cal_dpo",
        pair,
        POLICY,
        # softplus(-1.5) = 0.201413, targets 1 and -1: 0.5 * (0.25 + 0)
        hand=((PAIR, {"beta": 0.5, "lambda_": 0.5}, [0.326413]),),
        hyper={"beta": 0.3, "lambda_": 0.2},
        out_of_range=(*BETA, ("lambda_", -0.1, "[0, inf)")),
    ),
    Row(
        "apo_zero",
        pair,
        POLICY,
        hand=((PAIR, {"beta": 0.5}, [0.815364]),),  # 0.437823 + 0.377541
        hyper={"beta": 0.3},
        out_of_range=BETA,
    ),
    Row(
        "apo_down",
        pair,
        POLICY,
        hand=((PAIR, {"beta": 0.5}, [0.882998]),),  # 0.562177 + 0.320821
        hyper={"beta": 0.3},
        out_of_range=BETA,
    ),
    Row(
        "nca_pair",
        pair,
        POLICY,
        hand=((PAIR, {"beta": 0.5}, [1.225947]),),  # 0.575939 + (0.825939 + 0.474077) / 2
        hyper={"beta": 0.3},
        out_of_range=BETA,
    ),
    Row(
        "bco_pair",
        pair,
        POLICY,
        hand=((PAIR, {"beta": 0.5}, [1.050016]),),  # 0.575939 + 0.474077
        hyper={"beta": 0.3},
        out_of_range=BETA,
    ),
)
