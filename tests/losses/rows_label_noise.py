"""Rows of the contract suite for alignment.losses.label_noise."""

from contract import NEGATIVE_BETA, PAIR, POLICY, B, Row, pair

from alignment import losses
from alignment.losses import links
from alignment.losses.label_noise import LcpoState

PROBABILITY = (0.0, 0.5, 1.0)


def _base_losses(rng):
    return {"observed_losses": rng.gamma(1.0, size=B), "swapped_losses": rng.gamma(1.0, size=B)}


def _run(method, arrays, hyper):
    return method.loss(*arrays[:-1], LcpoState(arrays[-1]), **{"num_annotators": 3, **hyper})


def _lcpo(*arrays, **hyper):
    return _run(losses.lcpo, arrays, hyper)[0]


def _lcpo_pinned(inputs, hyper):
    arrays = list(inputs.values())
    w = _run(losses.lcpo, arrays, hyper)[1]["posteriors"]

    def loss(*arrays):
        c, r, rc, rr = arrays[:4]
        dpo = losses.dpo
        beta = hyper["beta"]
        return losses.lcpo_loss(dpo(c, r, rc, rr, beta=beta), dpo(r, c, rr, rc, beta=beta), w)

    return loss


def _on(name, base_losses):
    """Loss and pinned loss of LCPO around a base, whose losses of both orders are written out here."""
    method = getattr(losses, name)

    def loss(*arrays, **hyper):
        return _run(method, arrays, hyper)[0]

    def pinned(inputs, hyper):
        w = _run(method, list(inputs.values()), hyper)[1]["posteriors"]
        return lambda *arrays: losses.lcpo_loss(*base_losses(*arrays[:-2], **hyper), w)

    return {"loss": loss, "pinned": pinned, "shared": ("state",), "extremes": {"state": PROBABILITY}}


def _ipo(c, r, rc, rr, tau):
    return losses.ipo(c, r, rc, rr, tau=tau), losses.ipo(r, c, rr, rc, tau=tau)


def _simpo(c, r, lc, lr, beta, gamma):
    d = beta * (c / lc - r / lr)
    return links.logistic(d - gamma), links.logistic(-d - gamma)


def _cpo(c, r, beta):
    return links.logistic(beta * (c - r)) - c, links.logistic(beta * (r - c)) - r


def _annotated(rng):
    return {"annotator_ids": rng.integers(0, 3, B), "state": rng.uniform(0.6, 0.9, 3)}


def _policy_pair(rng):
    return {name: pair(rng)[name] for name in POLICY}


THREE_QUARTERS = {"annotator_ids": [1], "state": [0.1, 0.75, 0.2]}
RELIABILITY_OUT_OF_RANGE = (
    ("num_annotators", 0, "[1, inf)"),
    ("eta_0", 0.0, "(0, 1)"),
    ("eta_0", 1.0, "(0, 1)"),
    ("alpha", 0.0, "(0, 1]"),
)

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
            *RELIABILITY_OUT_OF_RANGE,
        ),
        shared=("state",),
        extremes={"state": PROBABILITY},
        loss=_lcpo,
        pinned=_lcpo_pinned,
    ),
    Row(
        "lcpo_ipo",
        lambda rng: {**pair(rng), **_annotated(rng)},
        POLICY,
        # 2 * 1.5 / 4 = 0.75, so p and with it the value are those of lcpo above
        hand=(({**PAIR, **THREE_QUARTERS}, {"tau": 4.0}, [0.488898]),),
        hyper={"tau": 2.0},
        out_of_range=(("tau", 0.0, "(0, inf)"), *RELIABILITY_OUT_OF_RANGE),
        **_on("lcpo_ipo", _ipo),
    ),
    Row(
        "lcpo_simpo",
        lambda rng: {
            **_policy_pair(rng),
            **{f"{s}_lengths": rng.integers(1, 9, B) for s in ("chosen", "rejected")},
            **_annotated(rng),
        },
        POLICY,
        # D = 2 * (-1 / 2 + 4 / 4) = 1; logit p = softplus(1 + 1) - softplus(1 - 1) = 2.126928 - 0.693147 = 1.433781;
        # p = 0.807490, w = 12.583584 / 13.583584 = 0.926382; 0.926382 * 0.213825 + 0.073618 * 1.647606
        hand=(
            (
                {
                    "policy_chosen_logps": [-1.0],
                    "policy_rejected_logps": [-4.0],
                    "chosen_lengths": [2],
                    "rejected_lengths": [4],
                    **THREE_QUARTERS,
                },
                {"beta": 2.0, "gamma": 1.0},
                [0.319378],
            ),
        ),
        hyper={"beta": 1.5, "gamma": 0.4},
        out_of_range=(NEGATIVE_BETA, ("gamma", -0.1, "[0, inf)"), *RELIABILITY_OUT_OF_RANGE),
        **_on("lcpo_simpo", _simpo),
    ),
    Row(
        "lcpo_cpo",
        lambda rng: {**{k: v / 5 for k, v in _policy_pair(rng).items()}, **_annotated(rng)},
        POLICY,
        # 1.5 * 0.5 = 0.75 again
        hand=(
            (
                {"policy_chosen_logps": [-1.0], "policy_rejected_logps": [-1.5], **THREE_QUARTERS},
                {"beta": 0.5},
                [0.488898],
            ),
        ),
        hyper={"beta": 0.3},
        out_of_range=(NEGATIVE_BETA, *RELIABILITY_OUT_OF_RANGE),
        **_on("lcpo_cpo", _cpo),
    ),
)
