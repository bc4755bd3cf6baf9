"""Rows of the contract suite for alignment.policy_gradients.objective_groups."""

import numpy as np
from contract import B, Row, T, hidden_tokens, token_mask

EPS = ("eps", -0.1, "[0, inf)")
DDOF = ("ddof", 2, "[0, 1]")
GROUPS = np.array([7, 3, 7, 3, 7, 9, 9, 7])
VALID = np.array([True, True, True, True, False, True, True, True])
HIDDEN = {"objective_rewards": lambda inputs: ~inputs["valid"][:, None]}
# Under both objectives a group of two that differs, and a completion alone.
TWO = {
    "objective_rewards": [[0.0, 30.0], [2.0, 10.0], [5.0, 5.0], [9.0, 9.0]],
    "group_ids": [1, 1, 2, 1],
    "valid": [True, True, True, False],
}
EXACT = {"eps": 0.0, "ddof": 0}


def _groups(objectives):
    return lambda rng: {"objective_rewards": rng.normal(size=(B, objectives)), "group_ids": GROUPS, "valid": VALID}


def _near(rng, **others):
    policy = rng.normal(size=(B, T))
    return {"policy_token_logps": policy, "behaviour_token_logps": policy + 0.05 * rng.normal(size=(B, T)), **others}


HIDDEN_TOKENS = dict.fromkeys(("policy_token_logps", "behaviour_token_logps"), hidden_tokens("mask"))
SAME = {"policy_token_logps": [[-1.0, -2.0, 9.0]], "behaviour_token_logps": [[-1.0, -2.0, 9.0]]}

ROWS = (
    Row(
        "objective_advantages",
        _groups(T),
        (),
        hand=((TWO, EXACT, [[-1.0, 1.0], [1.0, -1.0], [0.0, 0.0], [0.0, 0.0]]),),
        hyper={"eps": 0.1},
        out_of_range=(EPS, DDOF),
        hidden=HIDDEN,
        per="token",
        batch_wide=True,
    ),
    Row(
        "mo_grpo_advantages",
        _groups(2),
        (),
        # sums 22.5 and 9
        hand=((TWO, EXACT | {"weights": (0.25, 0.75)}, [1.0, -1.0, 0.0, 0.0]),),
        hyper={"eps": 0.1},
        out_of_range=(EPS, DDOF),
        hidden=HIDDEN,
        batch_wide=True,
    ),
    Row(
        "mo_grpo_normalized_advantages",
        _groups(2),
        (),
        hand=((TWO, EXACT | {"weights": (0.25, 0.75)}, [0.5, -0.5, 0.0, 0.0]),),
        hyper={"eps": 0.1},
        out_of_range=(EPS, DDOF),
        hidden=HIDDEN,
        batch_wide=True,
    ),
    Row(
        "best_of_group_advantages",
        lambda rng: {"rewards": rng.normal(size=B), "group_ids": GROUPS, "valid": VALID},
        (),
        hand=(({"rewards": [1.0, 3.0, 2.0], "group_ids": [5, 5, 8], "valid": [True] * 3}, {}, [0.0, 2.0, 1.0]),),
        hidden={"rewards": lambda inputs: ~inputs["valid"]},
        batch_wide=True,
    ),
    Row(
        "ppo_of_objective",
        lambda rng: _near(rng, objective_advantages=rng.normal(size=(B, 2)), mask=token_mask(rng, (B, T))),
        ("policy_token_logps",),
        hand=(
            (
                SAME | {"objective_advantages": [[2.0, -3.0]], "mask": [[True, True, False]]},
                {"objective": 1},
                [[3.0, 3.0, 0.0]],
            ),
        ),
        hyper={"objective": 1},
        out_of_range=(
            ("objective", 2, "[0, 2)"),
            ("eps_low", -0.1, "[0, inf)"),
            ("eps_high", -0.1, "[0, inf)"),
        ),
        hidden=HIDDEN_TOKENS,
        per="token",
    ),
    Row(
        "c_morl_barrier",
        lambda rng: _near(rng, objective_rewards=1 + rng.random((B, 3)), mask=token_mask(rng, (B, T)), valid=VALID),
        ("policy_token_logps",),
        # J is (2, 4): -log(0.1 * 4) / 20
        hand=(
            (
                {
                    "policy_token_logps": [[-1.0, 9.0]] * 2,
                    "behaviour_token_logps": [[-1.0, 8.0]] * 2,
                    "objective_rewards": [[1.0, 2.0], [3.0, 6.0]],
                    "mask": [[True, False]] * 2,
                    "valid": [True, True],
                },
                {},
                [[0.0458145, 0.0]] * 2,
            ),
        ),
        hyper={"b": 0.5, "t": 2.0},
        out_of_range=(
            ("objective", 3, "[0, 3)"),
            ("b", 1.0, "(0, 1)"),
            ("t", 0.0, "(0, inf)"),
            ("eps", 1.0, "[0, 1)"),
            ("floor", 0.0, "(0, inf)"),
        ),
        hidden=HIDDEN | HIDDEN_TOKENS,
        per="token",
        batch_wide=True,
    ),
    Row(
        "mogfn_trajectory_balance",
        lambda rng: {
            "policy_logps": -3 + rng.normal(size=B),
            "token_values": rng.normal(size=(B, T)),
            "rewards": rng.random(B),
            "mask": token_mask(rng, (B, T)),
        },
        ("policy_logps", "token_values"),
        # 1 - 2 + 2 * 0.693147 = 0.386294
        hand=(
            (
                {"policy_logps": [-2.0], "token_values": [[1.0, 9.0]], "rewards": [0.5], "mask": [[True, True]]},
                {"beta": 2.0},
                [0.149223],
            ),
        ),
        out_of_range=(("beta", -0.1, "[0, inf)"), ("floor", 0.0, "(0, inf)")),
        hidden={"token_values": hidden_tokens("mask")},
        extremes={"rewards": (0.0, 1.0, 1e4)},
    ),
)
