"""Rows of the contract suite for alignment.losses.label_noise."""

from contract import NEGATIVE_BETA, PAIR, POLICY, B, Row, pair

from alignment import losses
from alignment.losses.label_noise import LcpoState

PROBABILITY = (0.0, 0.5, 1.0)


def _base_losses(rng):
    return {"observed_losses": rng.gamma(1.0, size=B), "swapped_losses": rng.gamma(1.0, size=B)}


def _lcpo(*arrays, **hyper):
    return losses.lcpo.loss(*arrays[:-1], LcpoState(arrays[-1]), **{"num_annotators": 3, **hyper})[0]


def _lcpo_pinned(inputs, hyper):
    arrays = list(inputs.values())
    w = losses.lcpo.loss(*arrays[:-1], LcpoState(arrays[-1]), **{"num_annotators": 3, **hyper})[1]["posteriors"]

    def loss(*arrays):
        c, r, rc, rr = arrays[:4]
        dpo = losses.dpo
        beta = hyper["beta"]
        return losses.lcpo_loss(dpo(c, r, rc, rr, beta=beta), dpo(r, c, rr, rc, beta=beta), w)

    return loss


ROWS = (
    Row(
        "lcpo_preference_probability",
        _base_losses,
        ("observed_losses", "swapped_losses"),
        hand=(({"observed_losses": [0.5], "swapped_losses": [1.5]}, {}, [0.731059]),),
    ),
    Row(
        "lcpo_posterior",
        lambda rng: {**_base_losses(rng), "reliabilities": rng.uniform(0.1, 1.0, B)},
        (),
        # 0.731059 * 0.75 / (0.731059 * 0.75 + 0.268941 * 0.25)
        hand=(({"observed_losses": [0.5], "swapped_losses": [1.5], "reliabilities": [0.75]}, {}, [0.890768]),),
        extremes={"reliabilities": PROBABILITY},
    ),
    Row(
        "lcpo_loss",
        lambda rng: {**_base_losses(rng), "posteriors": rng.random(B)},
        ("observed_losses", "swapped_losses"),
        # 0.75 * 0.313262 + 0.25 * 1.313262
        hand=(({"observed_losses": [0.5], "swapped_losses": [1.5], "posteriors": [0.75]}, {}, [0.563262]),),
        extremes={"posteriors": PROBABILITY},
    ),
    Row(
        "lcpo_eta_update",
        lambda rng: {"eta": rng.random(3), "posteriors": rng.random(B), "annotator_ids": rng.integers(0, 2, B)},
        (),
        # half-way from 0.9 to the mean 0.8; no pair, so kept; half-way from 0.2 to 0.4; ids 3 and -1 are nobody's
        hand=(
            (
                {"eta": [0.9, 0.5, 0.2], "posteriors": [0.6, 1.0, 0.4, 0.9, 0.9], "annotator_ids": [0, 0, 2, 3, -1]},
                {"alpha": 0.5},
                [0.85, 0.5, 0.3],
            ),
        ),
        hyper={"alpha": 0.3},
        out_of_range=(("alpha", 0.0, "(0, 1]"), ("alpha", 1.5, "(0, 1]")),
        per="state",
        shared=("eta",),
        extremes={"eta": PROBABILITY, "posteriors": PROBABILITY},
    ),
    Row(
        "lcpo",
        lambda rng: {**pair(rng), "annotator_ids": rng.integers(0, 3, B), "state": rng.uniform(0.6, 0.9, 3)},
        POLICY,
        # eta = 3/4: w = 0.679179 * 3 / (0.679179 * 3 + 0.320821) = 0.863964, and w * 0.386871 + (1 - w) * 1.136871
        hand=(({**PAIR, "annotator_ids": [1], "state": [0.1, 0.75, 0.2]}, {"beta": 0.5}, [0.488898]),),
        hyper={"beta": 0.3},
        out_of_range=(
            NEGATIVE_BETA,
            ("num_annotators", 0, "[1, inf)"),
            ("eta_0", 0.0, "(0, 1)"),
            ("eta_0", 1.0, "(0, 1)"),
            ("alpha", 0.0, "(0, 1]"),
        ),
        shared=("state",),
        extremes={"state": PROBABILITY},
        loss=_lcpo,
        pinned=_lcpo_pinned,
    ),
)
