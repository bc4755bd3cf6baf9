"""Rows of the contract suite for alignment.policy_gradients.advantages and .whitening."""

from contract import B, Row, T, hidden_tokens, token_mask

from alignment.policy_gradients import gae, gae_whitened


def _valid(rng):
    valid = rng.random(B) < 0.7
    valid[:2] = True
    return valid


def _groups(rng):
    return {"rewards": rng.normal(size=B), "group_ids": rng.integers(0, 2, B), "valid": _valid(rng)}


def _tokens(*names):
    def inputs(rng):
        return {**{name: rng.normal(size=(B, T)) for name in names}, "mask": token_mask(rng, (B, T))}

    return inputs


def _tokens_of_valid_rows(*names):
    return lambda rng: {**_tokens(*names)(rng), "valid": _valid(rng)}


def _remax_with_kl(rng):
    return {
        "rewards": rng.normal(size=B),
        "greedy_rewards": rng.normal(size=B),
        **_tokens("behaviour_token_logps", "reference_token_logps")(rng),
    }


def _process(rng):
    groups = _groups(rng)
    tokens = _tokens("token_rewards")(rng)
    return {
        "token_rewards": tokens["token_rewards"],
        "step_mask": tokens["mask"],
        "group_ids": groups["group_ids"],
        "valid": groups["valid"],
    }


def _both(estimator):
    """Advantages and returns in one array, so that the suite looks at both."""

    def kernel(*arrays, **hyper):
        out = estimator(*arrays, **hyper)
        return out["token_advantages"] + 2 * out["token_returns"]

    return kernel


def _hidden_rows(inputs):
    return ~inputs["valid"]


def _hidden_tokens_and_rows(inputs):
    return ~(inputs["mask"] & inputs["valid"][:, None])


HIDDEN_REWARDS = {"rewards": _hidden_rows}
GAMMA = (("gamma", -0.1, "[0, 1]"), ("gamma", 1.1, "[0, 1]"))
LAM = (("lam", -0.1, "[0, 1]"), ("lam", 1.1, "[0, 1]"))
EPS = (("eps", 0.0, "(0, inf)"),)
LIMIT = (("limit", 0.0, "(0, inf]"),)
# Group 0 has mean 2 and squared deviations 1, 1; the third row is alone in its group, the fourth does not count.
FOUR = {
    "rewards": [1.0, 3.0, 7.0, 5.0],
    "group_ids": [0, 0, 1, 1],
    "valid": [True, True, True, False],
}
# k1 is 0.5 and -1.
KL = {
    "rewards": [3.0],
    "greedy_rewards": [1.0],
    "behaviour_token_logps": [[-1.0, -2.0, 9.0]],
    "reference_token_logps": [[-1.5, -1.0, 9.0]],
    "mask": [[True, True, False]],
}
# Last token: A = 2 - 1 = 1. First: delta = 1 + 0.5 * 1 - 0.5 = 1, A = 1 + 0.25 * 1 = 1.25. Returns 1.75 and 2.
EPISODE = {
    "token_rewards": [[1.0, 9.0, 2.0]],
    "behaviour_token_values": [[0.5, 9.0, 1.0]],
    "mask": [[True, False, True]],
}
# Mean 2, unbiased variance 2.
TWO_ROWS = {"mask": [[True, True, False], [True, True, True]], "valid": [True, False]}
VALUES = [[1.0, 3.0, 9.0], [5.0, 6.0, 5.0]]
R = 0.707107

ROWS = (
    Row(
        "grpo_advantages",
        _groups,
        (),
        hand=(
            (FOUR, {}, [-R, R, 0.0, 0.0]),
            (FOUR, {"ddof": 0}, [-1.0, 1.0, 0.0, 0.0]),
            (FOUR, {"eps": 1.0, "ddof": 0}, [-0.5, 0.5, 0.0, 0.0]),
        ),
        out_of_range=(*EPS, ("ddof", 2, "{0, 1}")),
        hidden=HIDDEN_REWARDS,
        batch_wide=True,
    ),
    Row(
        "grpo_process_advantages",
        _process,
        (),
        # Steps 1, 3 and 5: mean 3, standard deviation 2, scores -1 and 0 in one row, 1 in the other.
        hand=(
            (
                {
                    "token_rewards": [[1.0, 9.0, 3.0, 9.0], [9.0, 5.0, 9.0, 9.0]],
                    "step_mask": [[True, False, True, False], [False, True, False, False]],
                    "group_ids": [4, 4],
                    "valid": [True, True],
                },
                {},
                [[-1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0]],
            ),
        ),
        out_of_range=EPS,
        hidden={"token_rewards": lambda inputs: ~(inputs["step_mask"] & inputs["valid"][:, None])},
        per="token",
        batch_wide=True,
    ),
    Row(
        "dr_grpo_advantages",
        _groups,
        (),
        hand=((FOUR, {}, [-1.0, 1.0, 0.0, 0.0]),),
        hidden=HIDDEN_REWARDS,
        batch_wide=True,
    ),
    Row(
        "rloo_advantages",
        _groups,
        (),
        hand=((FOUR, {}, [-2.0, 2.0, 7.0, 0.0]),),
        hidden=HIDDEN_REWARDS,
        batch_wide=True,
    ),
    Row(
        "remax_advantages",
        lambda rng: {"rewards": rng.normal(size=B), "greedy_rewards": rng.normal(size=B)},
        (),
        hand=(({"rewards": [3.0, 9.0], "greedy_rewards": [1.0, 1.0]}, {}, [2.0, 5.0]),),
        out_of_range=LIMIT,
    ),
    Row(
        "remax_one_step_kl_advantages",
        _remax_with_kl,
        (),
        hand=((KL, {"beta": 0.5}, [[1.75, 2.5, 0.0]]),),
        out_of_range=(("beta", -0.1, "[0, inf)"), *LIMIT),
        hidden=dict.fromkeys(("behaviour_token_logps", "reference_token_logps"), hidden_tokens("mask")),
        per="token",
    ),
    Row(
        "remax_kl_to_go_advantages",
        _remax_with_kl,
        (),
        hand=((KL, {"beta": 0.5}, [[2.25, 2.5, 0.0]]),),
        out_of_range=(("beta", -0.1, "[0, inf)"), *LIMIT),
        hidden=dict.fromkeys(("behaviour_token_logps", "reference_token_logps"), hidden_tokens("mask")),
        per="token",
    ),
    Row(
        "gae",
        _tokens("token_rewards", "behaviour_token_values"),
        (),
        hand=((EPISODE, {"gamma": 0.5, "lam": 0.5}, [[1.25 + 3.5, 0.0, 1.0 + 4.0]]),),
        hyper={"gamma": 0.9, "lam": 0.8},
        out_of_range=(*GAMMA, *LAM),
        hidden=dict.fromkeys(("token_rewards", "behaviour_token_values"), hidden_tokens("mask")),
        per="token",
        loss=_both(gae),
    ),
    Row(
        "gae_whitened",
        _tokens_of_valid_rows("token_rewards", "behaviour_token_values"),
        (),
        hand=(({**EPISODE, "valid": [True]}, {"gamma": 0.5, "lam": 0.5}, [[R + 3.5, 0.0, -R + 4.0]]),),
        hyper={"gamma": 0.9, "lam": 0.8},
        out_of_range=(*GAMMA, *LAM),
        hidden=dict.fromkeys(("token_rewards", "behaviour_token_values"), hidden_tokens("mask")),
        per="token",
        loss=_both(gae_whitened),
        batch_wide=True,
    ),
    Row(
        "masked_whiten",
        _tokens_of_valid_rows("token_advantages"),
        (),
        hand=(({"token_advantages": VALUES, **TWO_ROWS}, {}, [[-R, R, 0.0], [0.0, 0.0, 0.0]]),),
        out_of_range=EPS,
        hidden={"token_advantages": _hidden_tokens_and_rows},
        per="token",
        batch_wide=True,
    ),
    Row(
        "masked_whiten_keep_mean",
        _tokens_of_valid_rows("token_rewards"),
        (),
        hand=(({"token_rewards": VALUES, **TWO_ROWS}, {}, [[2 - R, 2 + R, 0.0], [0.0, 0.0, 0.0]]),),
        out_of_range=EPS,
        hidden={"token_rewards": _hidden_tokens_and_rows},
        per="token",
        batch_wide=True,
    ),
    Row(
        "balance_groups",
        lambda rng: {
            "token_advantages": rng.normal(size=(B, T)),
            "group_ids": rng.integers(0, 2, B),
            "mask": token_mask(rng, (B, T)),
            "valid": _valid(rng),
        },
        (),
        # Three tokens in two groups, one and two of them: weights 3 / (2 * 1) and 3 / (2 * 2).
        hand=(
            (
                {
                    "token_advantages": [[4.0, 9.0], [4.0, 8.0], [9.0, 9.0]],
                    "group_ids": [0, 1, 1],
                    "mask": [[True, False], [True, True], [True, True]],
                    "valid": [True, True, False],
                },
                {},
                [[6.0, 0.0], [3.0, 6.0], [0.0, 0.0]],
            ),
        ),
        hidden={"token_advantages": _hidden_tokens_and_rows},
        per="token",
        batch_wide=True,
    ),
    Row(
        "clip_advantages",
        _tokens("token_advantages"),
        (),
        hand=(({"token_advantages": [[2.0, -0.2, 9.0]], "mask": [[True, True, False]]}, {}, [[0.5, -0.2, 0.0]]),),
        out_of_range=LIMIT,
        hidden={"token_advantages": hidden_tokens("mask")},
        per="token",
    ),
    Row(
        "reinforce_pp_advantages",
        _tokens_of_valid_rows("token_rewards"),
        (),
        # Rewards to go 3 and 2.
        hand=(
            (
                {"token_rewards": [[1.0, 9.0, 2.0]], "mask": [[True, False, True]], "valid": [True]},
                {},
                [[R, 0.0, -R]],
            ),
        ),
        hyper={"gamma": 0.9},
        out_of_range=GAMMA,
        hidden={"token_rewards": _hidden_tokens_and_rows},
        per="token",
        batch_wide=True,
    ),
    Row(
        "reinforce_pp_baseline_advantages",
        lambda rng: {
            "rewards": rng.normal(size=B),
            "group_ids": rng.integers(0, 2, B),
            "mask": token_mask(rng, (B, T)),
            "valid": _valid(rng),
        },
        (),
        # -1, -1 and 1: mean -1/3, unbiased variance (4/9 + 4/9 + 16/9) / 2 = 4/3.
        hand=(
            (
                {
                    "rewards": [1.0, 3.0],
                    "group_ids": [0, 0],
                    "mask": [[True, True], [True, False]],
                    "valid": [True, True],
                },
                {},
                [[-0.577350, -0.577350], [1.154701, 0.0]],
            ),
        ),
        hidden=HIDDEN_REWARDS,
        per="token",
        batch_wide=True,
    ),
)
