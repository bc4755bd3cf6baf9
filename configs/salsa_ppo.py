"""SALSA (Chegini et al., 2024, arXiv 2411.01798): PPO whose reference is a soup of two supervised models.

python -m experiments.reinforce --config=configs/salsa_ppo.py --workdir=runs/salsa_ppo

As in configs/salsa.py the two models follow each other, where the paper fine-tunes them independently. The corpus' true
reward stands for a reward model.

Not measured yet.
"""

from configs import online, salsa


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
    config.before = salsa.get_config().before
    config.reference.soup = ("BEFORE/before",)
    config.reference.soup_weight = 0.5
    config.data.source = config.data.eval_source = "corpus"
    config.data.completion_length = 48
    config.rewards = {"gold": {"function": "alignment.data.corpus:reward"}}
    return config
