"""D2LOLS (Chang et al., 2023, arXiv 2306.11816): AggreVaTeD for the first 20 iterations, then PPO++.

python -m experiments.reinforce --config=configs/rlgf_d2lols.py --workdir=runs/rlgf_d2lols

Not measured yet.
"""

from configs.rlgf_ppo_plus_plus import with_guide


def get_config():
    return with_guide("d2lols", {"tau": 20}, beta=0.8, policy_beta=0.9, tau=20)
