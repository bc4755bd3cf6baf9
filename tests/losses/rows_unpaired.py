"""Rows of the contract suite for alignment.losses.unpaired."""

import jax
import jax.numpy as jnp
import numpy as np
from contract import NEGATIVE_BETA, ZERO_BETA, B, Row

from alignment import losses
from alignment.losses.unpaired import BcoState

MOMENTUM = (("momentum", -0.1, "[0, 1)"), ("momentum", 1.0, "[0, 1)"))


def _logps(rng, *names):
    return {name: -10 + 2 * rng.normal(size=B) for name in names}


def _valid():
    return {"valid": np.arange(B) != B - 1}


def _labels(rng):
    desirable = rng.random(B) < 0.5
    desirable[:2] = True, False
    return {"desirable": desirable, **_valid()}


def _bco(*arrays, axis_name=None, **hyper):
    return losses.bco.loss(*arrays[:-1], BcoState(arrays[-1]), axis_name=axis_name, **hyper)[0]


def _bco_pinned(inputs, hyper):
    """delta frozen at the inputs."""
    policy, reference, desirable, valid, state = inputs.values()
    beta = hyper["beta"]
    delta = losses.bco_delta(state, beta * (policy - reference), desirable, valid, momentum=hyper["momentum"]).mean()

    def loss(policy, reference, desirable, valid, state):
        gaps = beta * (policy - reference) - delta
        return jax.nn.softplus(jnp.where(desirable, -gaps, gaps))

    return loss


ROWS = (
    Row(
        "kto_kl",
        lambda rng: {**_logps(rng, "policy_mismatched_logps", "reference_mismatched_logps"), **_valid()},
        (),
        hand=(
            # the mean of 1 and 1/2; then a negative mean
            (
                {
                    "policy_mismatched_logps": [-1.0, -2.0, -9.0],
                    "reference_mismatched_logps": [-2.0, -2.5, 0.0],
                    "valid": [True, True, False],
                },
                {},
                0.75,
            ),
            (
                {
                    "policy_mismatched_logps": [-3.0, -2.0],
                    "reference_mismatched_logps": [-2.0, -2.5],
                    "valid": [True, True],
                },
                {},
                0.0,
            ),
        ),
        per="state",
        size=(),
    ),
    Row(
        "kto",
        lambda rng: {
            **_logps(rng, "policy_logps", "reference_logps", "policy_mismatched_logps", "reference_mismatched_logps"),
            **_labels(rng),
        },
        ("policy_logps",),
        # ratios 1/2 and -1, z0 = 1/2: 2 s(0) and 3 s(-0.75) = 3 * 0.320821
        hand=(
            (
                {
                    "policy_logps": [-1.0, -2.0],
                    "reference_logps": [-1.5, -1.0],
                    "policy_mismatched_logps": [-1.0, -1.0],
                    "reference_mismatched_logps": [-1.25, -1.75],
                    "desirable": [True, False],
                    "valid": [True, True],
                },
                {"beta": 0.5, "desirable_weight": 2.0, "undesirable_weight": 3.0},
                [1.0, 0.962463],
            ),
        ),
        hyper={"beta": 0.3, "desirable_weight": 1.2, "undesirable_weight": 0.8},
        out_of_range=(
            NEGATIVE_BETA,
            ZERO_BETA,
            ("desirable_weight", -0.1, "[0, inf)"),
            ("undesirable_weight", -0.1, "[0, inf)"),
        ),
        batch_wide=True,
    ),
    Row(
        "bco_delta",
        lambda rng: {"averages": rng.normal(size=2), "rewards": rng.normal(size=B), **_labels(rng)},
        (),
        # half-way from 0.4 to 1.5 and from -0.2 to -3; the last row only pads
        hand=(
            (
                {
                    "averages": [0.4, -0.2],
                    "rewards": [1.0, 2.0, -3.0, 9.0],
                    "desirable": [True, True, False, True],
                    "valid": [True, True, True, False],
                },
                {"momentum": 0.5},
                [0.95, -1.6],
            ),
        ),
        hyper={"momentum": 0.7},
        out_of_range=MOMENTUM,
        per="state",
        size=(2,),
        shared=("averages",),
    ),
    Row(
        "bco_udm_weight",
        lambda rng: {"desirable_logits": rng.normal(size=B), "desirable": rng.random(B) < 0.5},
        (),
        hand=(
            (
                {"desirable_logits": [1.0986123, 5.0, -5.0, 5.0], "desirable": [False, False, False, True]},
                {},
                [3.0, 10.0, 0.5, 1.0],
            ),
        ),
        out_of_range=(("smallest", 0.0, "(0, inf)"), ("largest", 0.0, "(0, inf)")),
    ),
    Row(
        "bco",
        lambda rng: {**_logps(rng, "policy_logps", "reference_logps"), **_labels(rng), "state": rng.normal(size=2)},
        ("policy_logps",),
        # rewards 0.25 and -0.5, averages 0.5 and -0.3, delta 0.1: softplus(-0.15) and softplus(-0.6)
        hand=(
            (
                {
                    "policy_logps": [-1.0, -2.0],
                    "reference_logps": [-1.5, -1.0],
                    "desirable": [True, False],
                    "valid": [True, True],
                    "state": [0.75, -0.1],
                },
                {"beta": 0.5, "momentum": 0.5},
                [0.620957, 0.437488],
            ),
        ),
        hyper={"beta": 0.3, "momentum": 0.7},
        out_of_range=(NEGATIVE_BETA, ZERO_BETA, *MOMENTUM),
        shared=("state",),
        loss=_bco,
        pinned=_bco_pinned,
        batch_wide=True,
    ),
)
