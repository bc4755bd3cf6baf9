"""SALSA (Chegini et al., 2024, arXiv 2411.01798): PPO whose reference is a soup of two supervised models.

python -m experiments.reinforce --config=configs/salsa_ppo.py --workdir=runs/salsa_ppo

As in configs/salsa.py the two models follow each other, where the paper fine-tunes them independently. The corpus' true
reward stands for a reward model.

Not measured yet.
"""

from configs import common, ppo, salsa


def get_config():
    config = ppo.on_corpus(common.sft())
    config.before = salsa.get_config().before
    config.model.reward_heads, config.value.model = 0, "separate"  # so that all models of the soup are of one kind
    config.reference.soup = ("BEFORE/before",)
    config.reference.soup_weight = 0.5
    return config
