"""Rows of the contract suite for alignment.losses.preference."""

from contract import (
    NAN_BETA,
    NEGATIVE_BETA,
    PAIR,
    POLICY,
    SMOOTHING,
    ZERO_BETA,
    B,
    Row,
    pair,
)

ROWS = (
    Row(
        "dpo",
        pair,
        POLICY,
        hand=((PAIR, {"beta": 0.5}, [0.386871]),),
        hyper={"beta": 0.3},
        out_of_range=(NEGATIVE_BETA, ZERO_BETA, NAN_BETA),
    ),
    Row(
        "implicit_reward",
        lambda rng: {"policy_logps": rng.normal(size=B), "reference_logps": rng.normal(size=B)},
        (),
        hand=(({"policy_logps": [-1.0], "reference_logps": [-1.5]}, {"beta": 0.5}, [0.25]),),
        out_of_range=(NEGATIVE_BETA, ZERO_BETA),
    ),
    Row(
        "cdpo",
        pair,
        POLICY,
        # 0.386871 + 0.25 * 0.75
        hand=((PAIR, {"beta": 0.5, "label_smoothing": 0.25}, [0.574371]), (PAIR, {"beta": 0.5}, [0.386871])),
        hyper={"beta": 0.3, "label_smoothing": 0.2},
        out_of_range=(NEGATIVE_BETA, *SMOOTHING),
    ),
    Row(
        "ipo",
        pair,
        POLICY,
        hand=((PAIR, {"tau": 0.5}, [0.25]), (PAIR, {}, [12.25])),  # (1.5 - 1)^2, (1.5 - 5)^2
        hyper={"tau": 0.4},
        out_of_range=(("tau", 0.0, "(0, inf)"), ("tau", -1.0, "(0, inf)")),
    ),
    Row(
        "ipo_length_normalized",
        lambda rng: {**pair(rng), **{f"{s}_lengths": rng.integers(1, 9, B) for s in ("chosen", "rejected")}},
        POLICY,
        # 0.5 / 2 + 1 / 4 = 0.5, target 1 / 4
        hand=(({**PAIR, "chosen_lengths": [2], "rejected_lengths": [4]}, {"tau": 2.0}, [0.0625]),),
        hyper={"tau": 0.4},
        out_of_range=(("tau", 0.0, "(0, inf)"),),
    ),
    Row(
        "focal_po",
        pair,
        POLICY,
        hand=((PAIR, {"beta": 0.5, "gamma": 2.0}, [0.178457]),),  # 0.679179^2 * 0.386871
        hyper={"beta": 0.3, "gamma": 0.2},
        out_of_range=(NEGATIVE_BETA, ("gamma", -0.1, "[0, inf)")),
    ),
)
