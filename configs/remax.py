"""ReMax (Li et al., 2023, arXiv 2310.10505): the greedy completion's reward as baseline.

python -m experiments.reinforce --config=configs/remax.py --workdir=runs/remax

Not measured yet.
"""

from configs import online


def get_config():
    config = online.after_warm_up(
        shaping={},
        advantages={"remax_one_step_kl_advantages": {"beta": 0.01}},
        objective={"reinforce": {"weight": 1.0, "reduction": "token_mean"}},
    )
    return config
