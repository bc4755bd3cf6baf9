"""Rows of the contract suite for alignment.policy_gradients.unified_estimator and unified_surrogate."""

import jax.numpy as jnp
from contract import B, Row, T, token_mask

POLICY = ("policy_token_logps",)
LOG2, LOG4 = 0.6931472, 1.3862944
# Ratios 2 and 1/2, then a token that is not there.
PAIR = {"policy_token_logps": [[-1.0, -2.0, 9.0]], "behaviour_token_logps": [[-1.0 - LOG2, -2.0 + LOG2, 0.0]]}
MASK = {"mask": [[True, True, False]]}
UP = {"token_advantages": [[1.0, 1.0, 5.0]]}


def _tokens(*names):
    def draw(rng):
        return {**{name: rng.normal(size=(B, T)) for name in names}, "mask": token_mask(rng, (B, T))}

    return draw


def _hidden(*names):
    return {name: (lambda inputs: ~inputs["mask"]) for name in names}


def _row(name, names, hand, **rest):
    return Row(name, _tokens(*names), (), hand, hidden=_hidden(*names), per="token", **rest)


def _with_demonstrations(rng):
    inputs = _tokens("policy_token_logps", "behaviour_token_logps", "token_advantages")(rng)
    mask = inputs.pop("mask")
    return {**inputs, "demonstration_mask": rng.random((B, T)) < 0.4, "mask": mask}


def _upge_pinned(inputs, hyper):
    """The mask of the clip and the scale of the imitation, pi / pi held fixed, are those of the inputs."""
    policy, behaviour, advantages, shown, mask = inputs.values()
    ratios = jnp.exp(policy - behaviour)
    low, high = 1 - hyper["eps_low"], 1 + hyper["eps_high"]
    clipped = ((advantages > 0) & (ratios > high)) | ((advantages < 0) & (ratios < low))
    stable = jnp.where(shown, 1.0, jnp.where(clipped, 0.0, 1.0))

    def loss(logps, *_):
        value = -stable * advantages * jnp.exp(logps - behaviour) - shown * hyper["mu"] * jnp.exp(logps - policy)
        return jnp.where(mask, value, 0.0)

    return loss


ONE = ("policy_token_logps",)
TWO = ("policy_token_logps", "behaviour_token_logps")
THREE = (*TWO, "token_advantages")
CLIP = (("eps_low", 1.5, "[0, 1]"), ("eps_high", -0.1, "[0, inf)"))
LOGPS = {"policy_token_logps": [[-1.0, -LOG4, 9.0]]}

ROWS = (
    _row("upge_policy_denominator", ONE, (({**LOGPS, **MASK}, {}, [[-1.0, -LOG4, 0.0]]),)),
    _row("upge_unit_denominator", ONE, (({**LOGPS, **MASK}, {}, [[0.0, 0.0, 0.0]]),)),
    _row(
        "upge_behaviour_denominator",
        ("behaviour_token_logps",),
        (({"behaviour_token_logps": [[-1.0, -2.0, 9.0]], **MASK}, {}, [[-1.0, -2.0, 0.0]]),),
    ),
    _row(
        "upge_clipped_weight_denominator",
        TWO,
        # clip(2, 1/2, 3/2) = 3/2, log 0.405465; clip(1/2) is 1/2, so log pi_old
        (({**PAIR, **MASK}, {"eps_low": 0.5, "eps_high": 0.5}, [[-1.405465, -2.0 + LOG2, 0.0]]),),
        hyper={"eps_low": 0.3, "eps_high": 0.4},
        out_of_range=CLIP,
    ),
    _row("upge_sequence_denominator", TWO, (({**PAIR, **MASK}, {}, [[-1.0, -2.0, 0.0]]),)),  # mean log-ratio 0
    _row(
        "upge_geometric_denominator",
        THREE,
        # log-ratios 0.693 and -0.693, the first clipped to 0.4: mean -0.146574
        (({**PAIR, **UP, **MASK}, {}, [[-0.853426, -1.853426, 0.0]]),),
        hyper={"eps": 0.5},
        out_of_range=(("eps", 0.0, "(0, inf)"),),
    ),
    _row(
        "upge_shaped_denominator",
        ONE,
        # pi = 1/4 and gamma = 1/4: 2 log(1/2) - log(1/4) = 0; pi = e^-1: 2 log(0.617879) + 1.386294 = 0.423370
        (({**LOGPS, **MASK}, {"gamma": 0.25}, [[0.423370, 0.0, 0.0]]),),
        hyper={"gamma": 0.2},
        out_of_range=(("gamma", 0.0, "(0, inf)"),),
    ),
    _row(
        "upge_floored_denominator",
        ONE,
        (({**LOGPS, **MASK}, {"floor": 0.3333333}, [[0.0, -0.287682, 0.0]]),),  # log((1/4) / (1/3))
        hyper={"floor": 0.4},
        out_of_range=(("floor", 0.0, "(0, 1]"), ("floor", 1.5, "(0, 1]")),
    ),
    _row(
        "upge_clipped_sequence_denominator",
        ("policy_token_logps", "reference_token_logps"),
        # ratio of the completion e^0.5, clipped to 1.25: log 0.223144
        (
            (
                {
                    "policy_token_logps": [[-1.0, -2.0, 9.0]],
                    "reference_token_logps": [[-2.0, -1.5, 9.0]],
                    **MASK,
                },
                {"eps": 0.25},
                [[-1.223144, -2.223144, 0.0]],
            ),
        ),
        hyper={"eps": 0.5},
        out_of_range=(("eps", 0.0, "(0, 1)"), ("eps", 1.0, "(0, 1)")),
    ),
    _row("upge_no_stabilisation", ONE, (({**LOGPS, **MASK}, {}, [[1.0, 1.0, 0.0]]),)),
    _row(
        "upge_ppo_stabilisation",
        THREE,
        (({**PAIR, **UP, **MASK}, {}, [[0.0, 1.0, 0.0]]),),  # A > 0: ratio 2 is beyond 1.2, ratio 1/2 is not clipped
        hyper={"eps_low": 0.5, "eps_high": 0.8},
        out_of_range=CLIP,
    ),
    _row(
        "upge_sequence_stabilisation",
        THREE,
        (({**PAIR, **UP, **MASK}, {}, [[1.0, 1.0, 0.0]]),),  # s = 1
        hyper={"eps_low": 0.2, "eps_high": 0.3},
        out_of_range=CLIP,
    ),
    _row(
        "upge_log_stabilisation",
        THREE,
        (
            ({**PAIR, **UP, **MASK}, {"eps": 0.69}, [[0.0, 1.0, 0.0]]),
            ({**PAIR, **UP, **MASK}, {"eps": 0.7}, [[1, 1, 0]]),
        ),
        out_of_range=(("eps", 0.0, "(0, inf)"),),
    ),
    Row(
        "upge_advantages",
        _with_demonstrations,
        (),
        # first token 1 + 4 * 1/2; the second is no demonstration
        hand=(
            (
                {**PAIR, **UP, "demonstration_mask": [[True, False, True]], **MASK},
                {"mu": 4.0},
                [[3.0, 1.0, 0.0]],
            ),
        ),
        hyper={"mu": 0.5},
        out_of_range=(("mu", -0.1, "[0, inf)"),),
        hidden=_hidden(*THREE),
        per="token",
    ),
    Row(
        "upge_surrogate",
        _tokens("policy_token_logps", "token_log_denominators", "token_advantages", "token_stabilisation"),
        POLICY,
        # -1 * 3 * 2 and -0 * ...
        hand=(
            (
                {
                    "policy_token_logps": [[-1.0, -2.0, 9.0]],
                    "token_log_denominators": [[-1.0 - LOG2, -2.0, 0.0]],
                    "token_advantages": [[3.0, 1.0, 5.0]],
                    "token_stabilisation": [[1.0, 0.0, 1.0]],
                    **MASK,
                },
                {},
                [[-6.0, 0.0, 0.0]],
            ),
        ),
        hidden=_hidden("policy_token_logps", "token_log_denominators", "token_advantages", "token_stabilisation"),
        per="token",
    ),
    Row(
        "upge",
        _with_demonstrations,
        POLICY,
        # a demonstration: -(1 * 2) - 4; a rollout: -1/2
        hand=(
            (
                {**PAIR, **UP, "demonstration_mask": [[True, False, True]], **MASK},
                {"mu": 4.0},
                [[-6.0, -0.5, 0.0]],
            ),
        ),
        hyper={"mu": 0.5, "eps_low": 0.5, "eps_high": 0.8},
        out_of_range=(("mu", -0.1, "[0, inf)"), *CLIP),
        hidden=_hidden(*THREE),
        per="token",
        pinned=_upge_pinned,
    ),
)
