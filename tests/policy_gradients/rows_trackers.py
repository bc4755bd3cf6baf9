"""Rows of the contract suite for alignment.policy_gradients.trackers."""

import numpy as np
from contract import B, Row, T, hidden_tokens, token_mask

from alignment.policy_gradients import (
    adaptive_kl_rewards,
    adaptive_kl_rewards_fixed_gain,
    reward_normalization,
    reward_scaling,
)
from alignment.policy_gradients.trackers import AdaptiveKlState, RewardMomentsState


def _rewards(rng):
    valid = rng.random(B) < 0.7
    valid[:2] = True
    return {"rewards": rng.normal(size=B), "valid": valid}


def _controller(rng):
    return {"beta": np.asarray(0.1), "sequence_kls": rng.gamma(3.0, size=B), "valid": rng.random(B) < 0.7}


def _kl(rng):
    return {
        "rewards": rng.normal(size=B),
        "behaviour_token_logps": rng.normal(size=(B, T)),
        "reference_token_logps": rng.normal(size=(B, T)),
        "mask": token_mask(rng, (B, T)),
        "valid": rng.random(B) < 0.7,
        "state": np.asarray([0.2, 5.0]),
    }


def _adaptive(method):
    def kernel(rewards, behaviour, reference, mask, valid, state, **hyper):
        assert state.shape == (2,)
        return method.loss(rewards, behaviour, reference, mask, valid, AdaptiveKlState(*state), **hyper)[0]

    return kernel


def _scaled(method):
    return lambda rewards, valid, state, **hyper: method.loss(rewards, valid, RewardMomentsState(state), **hyper)[0]


def _seen(rng):
    return np.asarray([0.5, 2.0, 20.0])


HIDDEN_ROWS = {"rewards": lambda inputs: ~inputs["valid"]}
HIDDEN_TOKENS = dict.fromkeys(("behaviour_token_logps", "reference_token_logps"), hidden_tokens("mask"))
# The mean KL is 7.
THREE = {"beta": 0.1, "sequence_kls": [9.0, 5.0, 100.0], "valid": [True, True, False]}
# k1 is 0.5 and -1.
SHAPED = {
    "rewards": [2.0],
    "behaviour_token_logps": [[-1.0, -2.0, 9.0]],
    "reference_token_logps": [[-1.5, -1.0, 9.0]],
    "mask": [[True, True, False]],
    "valid": [True],
    "state": [0.5, 0.0],
}
# 1, 3 and then 5, 7: mean 4, squares 9 + 1 + 1 + 9 = 20, unbiased standard deviation sqrt(20 / 3) = 2.581989.
SEEN = {"rewards": [5.0, 7.0, 99.0], "valid": [True, True, False], "state": [2.0, 1.0, 2.0]}
BETA_TARGET = (("beta", 0.0, "(0, inf)"), ("target", 0.0, "(0, inf)"))

ROWS = (
    Row(
        "kl_coefficient_update",
        _controller,
        (),
        # 7 / 5 - 1 = 0.4 is clipped to 0.2; 7 / 6.5 - 1 = 1 / 13; both times 2 / 10.
        hand=(
            (THREE, {"target": 5.0, "horizon": 10}, 0.104),
            (THREE, {"target": 6.5, "horizon": 10}, 0.1015385),
            (THREE, {"target": 7.0, "horizon": 10}, 0.1),
        ),
        out_of_range=(("target", 0.0, "(0, inf)"), ("horizon", 0, "[1, inf)")),
        hidden={"sequence_kls": lambda inputs: ~inputs["valid"]},
        per="state",
        size=(),
        shared=("beta",),
    ),
    Row(
        "kl_coefficient_update_fixed_gain",
        _controller,
        (),
        hand=((THREE, {"target": 5.0}, 0.102), (THREE, {"target": 6.5, "gain": 1.3}, 0.11)),
        out_of_range=(("target", 0.0, "(0, inf)"), ("gain", 0.0, "(0, 5)"), ("gain", 5.0, "(0, 5)")),
        hidden={"sequence_kls": lambda inputs: ~inputs["valid"]},
        per="state",
        size=(),
        shared=("beta",),
    ),
    Row(
        "adaptive_kl_rewards",
        _kl,
        (),
        hand=((SHAPED, {}, [[-0.25, 2.5, 0.0]]),),
        out_of_range=(*BETA_TARGET, ("horizon", 0, "[1, inf)")),
        hidden=HIDDEN_TOKENS,
        per="token",
        shared=("state",),
        loss=_adaptive(adaptive_kl_rewards),
    ),
    Row(
        "adaptive_kl_rewards_fixed_gain",
        _kl,
        (),
        hand=((SHAPED, {}, [[-0.25, 2.5, 0.0]]),),
        out_of_range=(*BETA_TARGET, ("gain", 0.0, "(0, 5)")),
        hidden=HIDDEN_TOKENS,
        per="token",
        shared=("state",),
        loss=_adaptive(adaptive_kl_rewards_fixed_gain),
    ),
    Row(
        "running_reward_moments",
        lambda rng: {"moments": _seen(rng), **_rewards(rng)},
        (),
        hand=(
            ({"moments": [2.0, 1.0, 2.0], "rewards": SEEN["rewards"], "valid": SEEN["valid"]}, {}, [4.0, 5.0, 4.0]),
            ({"moments": [0.0, 0.0, 0.0], "rewards": SEEN["rewards"], "valid": SEEN["valid"]}, {}, [6.0, 1.0, 2.0]),
        ),
        hidden=HIDDEN_ROWS,
        per="state",
        size=(3,),
        shared=("moments",),
    ),
    Row(
        "reward_scaling",
        lambda rng: {**_rewards(rng), "state": _seen(rng)},
        (),
        hand=((SEEN, {}, [1.936492, 2.711088, 0.0]),),
        hidden=HIDDEN_ROWS,
        shared=("state",),
        loss=_scaled(reward_scaling),
        batch_wide=True,
        extremes={"state": (0.0, 1.0, 1e4)},
    ),
    Row(
        "reward_normalization",
        lambda rng: {**_rewards(rng), "state": _seen(rng)},
        (),
        hand=((SEEN, {}, [0.387298, 1.161895, 0.0]),),
        hidden=HIDDEN_ROWS,
        shared=("state",),
        loss=_scaled(reward_normalization),
        batch_wide=True,
        extremes={"state": (0.0, 1.0, 1e4)},
    ),
)
