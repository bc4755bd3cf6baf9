"""ExPO (Zhou et al., 2025, arXiv 2507.02834): GRPO, and imitation of how the policy explains a revealed answer.

python -m experiments.reinforce --config=configs/expo.py --workdir=runs/expo

Not measured yet.
"""

from configs import online


def get_config():
    config = online.after_warm_up(
        shaping={"sampled_tokens_mask": {"gives": "trained_mask"}},
        advantages={"expo_advantages": {}},
        objective={
            "ppo": {"weight": 1.0, "reduction": "sequence_mean", "mask": "trained_mask"},
            "demonstration_nll": {"weight": 0.1, "reduction": "token_mean"},
        },
    )
    config.rollout.demonstrations = 1  # the last of each group, where the explanation is right
    config.rollout.reveal = "alignment.rewards.feedback:revealed"
    return config
