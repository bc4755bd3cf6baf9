"""Rows of the contract suite for alignment.losses.dynamic_beta."""

import jax
import numpy as np
from contract import NEGATIVE_BETA, POLICY, ZERO_BETA, B, Row, pair

from alignment import losses
from alignment.losses.dynamic_beta import BetaDpoState

MOMENTUM = (("momentum", -0.1, "[0, 1)"), ("momentum", 1.0, "[0, 1)"))
KEY = losses.beta_dpo.init(seed=3).key


def _valid():
    return {"valid": np.arange(B) != B - 1}


def _moments(rng):
    return np.array([rng.normal(), rng.uniform(2, 4)])


def _run(arrays, hyper):
    return losses.beta_dpo.loss(*arrays[:-1], BetaDpoState(arrays[-1], KEY), **hyper)


def _beta_dpo(*arrays, **hyper):
    return _run(arrays, hyper)[0]


def _pinned(inputs, hyper):
    """Which pairs are drawn and with what beta, frozen at the inputs."""
    _, aux = _run(list(inputs.values()), hyper)
    h, valid, drawn = np.asarray(aux["margins"]), np.asarray(aux["valid"]), np.asarray(aux["drawn"])
    old = np.asarray(inputs["state"])
    mean = hyper["momentum"] * old[0] + (1 - hyper["momentum"]) * h[valid].mean()
    beta = hyper["beta"] * (1 + hyper["alpha"] * (h[drawn].mean() - mean))
    assert beta > 1e-3

    def loss(c, r, rc, rr, valid, state):
        return drawn * valid.sum() / drawn.sum() * jax.nn.softplus(-beta * ((c - rc) - (r - rr)))

    return loss


# margins 1.5 and 0.5
TWO_PAIRS = {
    "policy_chosen_logps": [-1.0, -1.0],
    "policy_rejected_logps": [-2.0, -2.0],
    "reference_chosen_logps": [-1.5, -1.5],
    "reference_rejected_logps": [-1.0, -2.0],
    "valid": [True, True],
}

ROWS = (
    Row(
        "beta_dpo_stats",
        lambda rng: {"margins": rng.normal(size=B), **_valid(), "moments": _moments(rng)},
        (),
        # half-way to the mean 2 and to the deviation sqrt(2) of 1 and 3; 9 only pads
        hand=(
            (
                {"margins": [1.0, 3.0, 9.0], "valid": [True, True, False], "moments": [0.5, 1.0]},
                {"momentum": 0.5},
                [1.25, 1.207107],
            ),
        ),
        hyper={"momentum": 0.7},
        out_of_range=MOMENTUM,
        per="state",
        size=(2,),
        shared=("moments",),
    ),
    Row(
        "beta_dpo_sampling_weights",
        lambda rng: {"margins": rng.normal(size=B), **_valid(), "moments": _moments(rng)},
        (),
        # at the mean; one deviation off, exp(-1/2); a row that only pads
        hand=(
            (
                {"margins": [1.0, 3.0, 1.0], "valid": [True, True, False], "moments": [1.0, 2.0]},
                {},
                [1.0, 0.606531, 0.0],
            ),
        ),
        hidden={"margins": lambda inputs: ~inputs["valid"]},
        shared=("moments",),
    ),
    Row(
        "beta_dpo",
        lambda rng: {**pair(rng), **_valid(), "state": _moments(rng)},
        POLICY,
        # mean 1, M0 = 1/2, so beta = 0.4 * (1 + 0.5 * 0.5) = 0.5: softplus(-0.75) and softplus(-0.25)
        hand=(
            (
                {**TWO_PAIRS, "state": [0.0, 1.0]},
                {"beta": 0.4, "alpha": 0.5, "rho": 0.0, "momentum": 0.5},
                [0.386871, 0.575939],
            ),
        ),
        hyper={"beta": 0.3, "alpha": 0.2, "rho": 0.3, "momentum": 0.7},
        out_of_range=(
            NEGATIVE_BETA,
            ZERO_BETA,
            ("alpha", -0.1, "[0, inf)"),
            ("rho", -0.1, "[0, 1)"),
            ("rho", 1.0, "[0, 1)"),
            *MOMENTUM,
        ),
        shared=("state",),
        loss=_beta_dpo,
        pinned=_pinned,
        batch_wide=True,
    ),
)
