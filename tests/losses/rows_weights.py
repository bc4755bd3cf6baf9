"""Rows of the contract suite for alignment.losses.weights."""

from contract import NEGATIVE_BETA, PAIR, POLICY, B, Row, T, hidden_tokens, pair, token_mask

from alignment import losses

SIDES = ("chosen", "rejected")


def _tokens(rng):
    return {
        # Likely enough that no product reaches 1, where the weight would not notice its inputs.
        **{f"policy_{s}_token_logps": -2 + 0.5 * rng.normal(size=(B, T)) for s in SIDES},
        **{f"policy_{s}_token_collision_probs": rng.uniform(0.3, 0.6, (B, T)) for s in SIDES},
        **{f"{s}_mask": token_mask(rng, (B, T)) for s in SIDES},
    }


def _wpo_pinned(inputs, hyper):
    weight = losses.wpo_weight(*list(inputs.values())[4:])
    return lambda *arrays: weight * losses.dpo(*arrays[:4], **hyper)


HIDDEN = {f"policy_{s}_token_{x}": hidden_tokens(f"{s}_mask") for s in SIDES for x in ("logps", "collision_probs")}
EXTREMES = {f"policy_{s}_token_collision_probs": (1e-6, 0.5, 1.0) for s in SIDES}
# log of the aligned probabilities: (log 1/2 + log 1/2) / 2 and log 1/4, so the weight is 1/8
TOKENS = {
    "policy_chosen_token_logps": [[-1.3862944, -0.6931472, 9.0]],
    "policy_rejected_token_logps": [[-2.0794415, 9.0, -2.0794415]],
    "policy_chosen_token_collision_probs": [[0.5, 1.0, 9.0]],
    "policy_rejected_token_collision_probs": [[0.5, 9.0, 0.5]],
    "chosen_mask": [[True, True, False]],
    "rejected_mask": [[True, False, True]],
}

ROWS = (
    Row(
        "wpo_weight",
        _tokens,
        (),
        hand=((TOKENS, {}, [0.125]),),
        hidden=HIDDEN,
        extremes=EXTREMES,
    ),
    Row(
        "wpo",
        lambda rng: {**pair(rng), **_tokens(rng)},
        POLICY,
        hand=(({**PAIR, **TOKENS}, {"beta": 0.5}, [0.0483589]),),  # 0.386871 / 8
        hyper={"beta": 0.3},
        out_of_range=(NEGATIVE_BETA,),
        hidden=HIDDEN,
        extremes=EXTREMES,
        pinned=_wpo_pinned,
    ),
)
