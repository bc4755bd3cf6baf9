"""PPO with a value head and generalised advantage estimation (Schulman et al., 2017, arXiv 1707.06347).

python -m experiments.reinforce --config=configs/ppo.py --workdir=runs/ppo

--config.value.model=separate --config.model.reward_heads=0 takes a value network of its own (and
--config.value.learning_rate its rate) in place of the head. Not measured yet.
"""

from ml_collections import ConfigDict

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
    return config


def on_corpus(before: ConfigDict) -> ConfigDict:
    """The same on the corpus' true reward (for a reward model's), from the model that the config `before` trains."""
    config = common.starting_from(get_config(), before)
    config.data.source = config.data.eval_source = "corpus"
    config.data.completion_length = 48
    config.rewards = ConfigDict({"gold": {"function": "alignment.data.corpus:reward"}})
    return config
