"""Direct RLHF (Zheng et al., 2024, arXiv 2403.02513): PPO on a base model, which is also the reference; no SFT between.

python -m experiments.reinforce --config=configs/direct_harmless_rlhf.py --workdir=runs/direct_harmless_rlhf

Not measured yet.
"""

from configs import common, online


def get_config():
    config = online.after_warm_up(
        shaping={"kl_shaped_rewards": {"beta": 0.05}},
        advantages={"gae_whitened": {}},
        objective={
            "ppo": {"weight": 1.0, "reduction": "token_mean"},
            "ppo_value_loss": {"weight": 0.1, "reduction": "token_mean"},
        },
        metrics=online.PPO_METRICS,
    )
    config.model.reward_heads = 1  # the value head
    # The base model: a language model of the corpus, whose true reward stands for a reward model's.
    config = common.starting_from(config, common.sft())
    config.data.source = config.data.eval_source = "corpus"
    config.data.completion_length = 48
    config.rewards = {"gold": {"function": "alignment.data.corpus:reward"}}
    return config
