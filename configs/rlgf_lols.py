"""LOLS (Chang et al., 2023, arXiv 2306.11816): mostly PPO++, now and then AggreVaTeD.

python -m experiments.reinforce --config=configs/rlgf_lols.py --workdir=runs/rlgf_lols

Not measured yet.
"""

from configs.rlgf_ppo_plus_plus import with_guide


def get_config():
    return with_guide("lols", {"tau": 0.8}, beta=0.8, policy_beta=0.9, tau=0.8)
