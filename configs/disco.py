"""DisCO (2025, arXiv 2505.12366): discriminative constrained optimisation, log-likelihood scores.

python -m experiments.reinforce --config=configs/disco.py --workdir=runs/disco

Not measured yet.
"""

from configs import online


def get_config():
    config = online.after_warm_up(
        shaping={},
        advantages={},
        objective={"disco_log_likelihood": {"weight": 1.0}, "disco_trust_region": {"weight": 1.0}},
    )
    return config
