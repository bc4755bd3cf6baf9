"""Rows of the contract suite for alignment.losses.divergences."""

from contract import NEGATIVE_BETA, PAIR, POLICY, ZERO_BETA, Row, pair

BETA = (NEGATIVE_BETA, ZERO_BETA)

ROWS = (
    Row(
        "f_dpo",
        pair,
        POLICY,
        # 0: DPO; 1: -exp(-0.5) + exp(1) = 2.111751; 1/2: 2 * (exp(0.5) - exp(-0.25)) = 1.739841; halved, softplus(-.)
        hand=(
            (PAIR, {"beta": 0.5, "alpha": 0.0}, [0.386871]),
            (PAIR, {"beta": 0.5, "alpha": 1.0}, [0.298539]),
            (PAIR, {"beta": 0.5, "alpha": 0.5}, [0.349942]),
        ),
        hyper={"beta": 0.3, "alpha": 0.2},
        out_of_range=(*BETA, ("alpha", -0.1, "[0, 1]"), ("alpha", 1.1, "[0, 1]")),
    ),
    Row(
        "f_dpo_jensen_shannon",
        pair,
        POLICY,
        # softplus(1) - softplus(-0.5) = 1.313262 - 0.474077 = 0.839185; halved, softplus(-0.419592)
        hand=((PAIR, {"beta": 0.5}, [0.505199]),),
        hyper={"beta": 0.3},
        out_of_range=BETA,
    ),
    Row(
        "exo_pair",
        pair,
        POLICY,
        # 0.679179 * (-0.386871 - log 0.75) + 0.320821 * (-1.136871 - log 0.25)
        hand=((PAIR, {"beta": 0.5, "label_smoothing": 0.25}, [0.012653]),),
        hyper={"beta": 0.3, "label_smoothing": 0.2},
        out_of_range=(*BETA, ("label_smoothing", 0.0, "(0, 0.5)"), ("label_smoothing", 0.5, "(0, 0.5)")),
    ),
)
