"""Rows of the contract suite for alignment.policy_gradients.target_distributions."""

import numpy as np
from contract import B, Row

from alignment import policy_gradients
from alignment.policy_gradients.target_distributions import MomentState, PartitionState

VALID = np.array([True, True, False, True, True, True, False, True])
LOG3 = float(np.log(3.0))


def _invalid(inputs):
    return ~inputs["valid"]


def _logps(rng, *names):
    return {name: -5 + rng.normal(size=B) for name in names}


def _moments(rng):
    features = {"objective_rewards": rng.random((B, 2))}
    return _logps(rng, "reference_logps", "behaviour_logps") | features | {"valid": VALID}


def _moment_target(reference_logps, behaviour_logps, objective_rewards, valid, state, **hyper):
    state = MomentState(state, 0 * state)
    hyper = {"moments": (0.5, 0.2)} | hyper
    return policy_gradients.gdc_moment_target.loss(
        reference_logps, behaviour_logps, objective_rewards, valid, state, **hyper
    )[0]


def _partition(target_logps, behaviour_logps, valid, state, **hyper):
    state = PartitionState(state[:, 0], state[:, 1])
    return policy_gradients.log_partition.loss(target_logps, behaviour_logps, valid, state, **hyper)[0]


def _partitions(target_logps, behaviour_logps, prompt_ids, valid, state, **hyper):
    state, hyper = PartitionState(state[:, 0], state[:, 1]), {"num_prompts": 3} | hyper
    return policy_gradients.prompt_log_partitions.loss(
        target_logps, behaviour_logps, prompt_ids, valid, state, **hyper
    )[0]


WEIGHTS = {"target_logps": [-2.0, LOG3 - 1, 9.0], "behaviour_logps": [-2.0, -1.0, 0.0], "valid": [True, True, False]}
DECAY = (("decay", 0.0, "(0, 1]"), ("decay", 1.1, "(0, 1]"))
HIDDEN = {"target_logps": _invalid, "behaviour_logps": _invalid}

ROWS = (
    Row(
        "rlhf_target",
        lambda rng: _logps(rng, "reference_logps", "rewards"),
        (),
        hand=(({"reference_logps": [-1.0], "rewards": [2.0]}, {"beta": 0.5}, [3.0]),),
        out_of_range=(("beta", 0.0, "(0, inf)"),),
    ),
    Row(
        "gdc_pointwise_target",
        lambda rng: _logps(rng, "reference_logps") | {"correct": VALID},
        (),
        hand=(({"reference_logps": [-1.0, -2.0], "correct": [True, False]}, {}, [-1.0, -1e30]),),
        hidden={"reference_logps": lambda inputs: ~inputs["correct"]},
    ),
    Row(
        "gdc_moment_update",
        lambda rng: {"coefficients": 0.3 * rng.normal(size=2)} | _moments(rng),
        (),
        # w = 1 and 3: E[phi] = 3 / 4, so 0.5 - 0.1 * (0.75 - 0.25); with e^0.5 for the second 3 e^0.5 / (1 + 3 e^0.5)
        hand=(
            (
                {
                    "coefficients": [0.0],
                    "reference_logps": [-2.0, LOG3 - 1, 9.0],
                    "behaviour_logps": [-2.0, -1.0, 0.0],
                    "objective_rewards": [[0.0], [1.0], [9.0]],
                    "valid": [True, True, False],
                },
                {"moments": (0.25,), "learning_rate": 0.1},
                [-0.05],
            ),
        ),
        hyper={"moments": (0.5, 0.2), "learning_rate": 0.5},
        out_of_range=(("learning_rate", 0.0, "(0, inf)"),),
        hidden={
            "reference_logps": _invalid,
            "behaviour_logps": _invalid,
            "objective_rewards": lambda inputs: np.repeat(~inputs["valid"][:, None], 2, axis=1),
        },
        per="state",
        size=(2,),
        shared=("coefficients",),
    ),
    Row(
        "gdc_moment_target",
        lambda rng: _moments(rng) | {"state": 0.3 * rng.normal(size=2)},
        (),
        hand=(
            (
                {
                    "reference_logps": [-1.0],
                    "behaviour_logps": [-3.0],
                    "objective_rewards": [[1.0, 2.0]],
                    "valid": [True],
                    "state": [0.5, -1.0],
                },
                {},
                [-2.5],
            ),
        ),
        out_of_range=(("learning_rate", 0.0, "(0, inf)"),),
        hidden={"reference_logps": _invalid, "behaviour_logps": _invalid},
        shared=("state",),
        loss=_moment_target,
    ),
    Row(
        "log_partition",
        lambda rng: _logps(rng, "target_logps", "behaviour_logps") | {"valid": VALID, "state": np.array([[1.3, 3.0]])},
        (),
        # weights 1 and 3 after a sum of 4 over one: 8 / 3; half forgotten: 6 / 2.5; nothing before: 2
        hand=(
            (WEIGHTS | {"state": [[np.log(4.0), 1.0]]}, {}, [np.log(8 / 3)] * 3),
            (WEIGHTS | {"state": [[np.log(4.0), 1.0]]}, {"decay": 0.5}, [np.log(2.4)] * 3),
            (WEIGHTS | {"state": [[-1e30, 0.0]]}, {}, [np.log(2.0)] * 3),
        ),
        hyper={"decay": 0.7},
        out_of_range=DECAY,
        hidden=HIDDEN,
        shared=("state",),
        any_length=("state",),  # of one row; half of it is itself
        loss=_partition,
        batch_wide=True,
    ),
    Row(
        "prompt_log_partitions",
        lambda rng: {
            **_logps(rng, "target_logps", "behaviour_logps"),
            "prompt_ids": np.array([0, 1, 2, 1, 0, 0, 2, 2]),
            "valid": VALID,
            "state": np.abs(rng.normal(size=(3, 2))),
        },
        (),
        # prompt 1: weights 1 and 3 after 4 over one; prompt 0 has none before, and 3
        hand=(
            (
                {
                    "target_logps": [-2.0, LOG3 - 1, LOG3],
                    "behaviour_logps": [-2.0, -1.0, 0.0],
                    "prompt_ids": [1, 1, 0],
                    "valid": [True, True, True],
                    "state": [[-1e30, 0.0], [np.log(4.0), 1.0], [0.0, 1.0]],
                },
                {},
                [np.log(8 / 3), np.log(8 / 3), LOG3],
            ),
        ),
        hyper={"decay": 0.7},
        out_of_range=(*DECAY, ("num_prompts", 0, "[1, inf)")),
        hidden=HIDDEN,
        shared=("state",),
        loss=_partitions,
        batch_wide=True,
    ),
    Row(
        "target_effective_sample_share",
        lambda rng: _logps(rng, "target_logps", "behaviour_logps") | {"valid": VALID},
        (),
        # (1 + 3)^2 / (2 (1 + 9))
        hand=((WEIGHTS, {}, [0.8] * 3),),
        hidden=HIDDEN,
        batch_wide=True,
    ),
)
