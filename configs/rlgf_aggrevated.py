"""AggreVaTeD (Chang et al., 2023, arXiv 2306.11816): a guide completes what the policy began.

python -m experiments.reinforce --config=configs/rlgf_aggrevated.py --workdir=runs/rlgf_aggrevated

Not measured yet.
"""

from configs.rlgf_ppo_plus_plus import with_guide


def get_config():
    return with_guide("aggrevated", beta=0.9)
