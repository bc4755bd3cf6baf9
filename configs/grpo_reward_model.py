"""GRPO (Shao et al., 2024, arXiv 2402.03300) on a trained reward ensemble (Coste et al., 2023, arXiv 2310.02743).

The reward is the ensemble of configs/bt_reward_heads.py, mean less variance (UWO), which must be there:

python -m experiments.finetune --config=configs/bt_reward_heads.py --workdir=runs/bt_reward_heads

python -m experiments.reinforce --config=configs/grpo_reward_model.py --workdir=runs/grpo_reward_model

Not measured yet.
"""

from ml_collections import ConfigDict

from configs import common, online


def get_config():
    config = common.starting_from(online.base(), common.sft())
    config.data.source, config.data.prompt_length, config.data.completion_length = "corpus", 32, 48
    config.rewards = ConfigDict(
        {
            "ensemble": {
                "checkpoint": "runs/bt_reward_heads",
                "combine": "uncertainty_weighted",
                "penalty": 0.1,
                "standardise": True,
            }
        }
    )
    config.advantages = ConfigDict({"grpo_advantages": {}})
    config.objective = ConfigDict(
        {
            "ppo": {"weight": 1.0, "reduction": "token_mean"},
            "kl_k3": {"weight": 0.05, "reduction": "token_mean"},
        }
    )
    config.optimizer.learning_rate = 1e-4
    config.optimizer.schedule = "constant"
    config.optimizer.warmup_steps = 5
    return config
