"""Rows of the contract suite for alignment.losses.pair_links."""

from contract import NEGATIVE_BETA, PAIR, POLICY, ZERO_BETA, Row, pair

GAMMA = (("gamma", 0.0, "(0, inf)"), ("gamma", -0.1, "(0, inf)"))

ROWS = (
    Row(
        "robust_dpo",
        pair,
        POLICY,
        hand=((PAIR, {"beta": 0.5, "flip_rate": 0.25}, [0.011871]),),  # 0.386871 - 0.75 * 0.25 / 0.5
        hyper={"beta": 0.3, "flip_rate": 0.2},
        out_of_range=(NEGATIVE_BETA, ("flip_rate", -0.1, "[0, 0.5)"), ("flip_rate", 0.5, "[0, 0.5)")),
    ),
    Row(
        "rso_sigmoid_norm",
        pair,
        POLICY,
        hand=((PAIR, {"gamma": 0.5}, [0.386871]),),
        hyper={"gamma": 0.3},
        out_of_range=GAMMA,
    ),
    Row(
        "rso_hinge_norm",
        pair,
        POLICY,
        hand=((PAIR, {"gamma": 0.5}, [0.25]), (PAIR, {"gamma": 1.0}, [0.0])),  # 1 - 0.75, 1 - 1.5 < 0
        hyper={"gamma": 0.1},
        out_of_range=GAMMA,
    ),
    Row(
        "rso_hinge",
        lambda rng: {name: value for name, value in pair(rng).items() if name in POLICY},
        POLICY,
        hand=(({name: PAIR[name] for name in POLICY}, {"gamma": 0.25}, [0.75]),),  # 1 - 0.25 * (-1 + 2)
        hyper={"gamma": 0.1},
        out_of_range=GAMMA,
    ),
    Row(
        "discopop",
        pair,
        POLICY,
        # m = s(1.5) = 0.817574: 0.182426 * 0.386871 + 0.817574 * exp(-0.75)
        hand=((PAIR, {"beta": 0.5, "tau": 0.5}, [0.456770]),),
        hyper={"beta": 0.3, "tau": 0.2},
        out_of_range=(NEGATIVE_BETA, ZERO_BETA, ("tau", 0.0, "(0, 1]"), ("tau", 1.1, "(0, 1]")),
    ),
)
