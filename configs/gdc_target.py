"""GDC with a moment constraint (Khalifa et al., 2020, arXiv 2012.11635): half of the answers right, all else as it was.

python -m experiments.reinforce --config=configs/gdc_target.py --workdir=runs/gdc_target

The coefficients of the target are learnt beside the policy, from the same samples; the normaliser forgets, since the
target moves. Features are the entries of config.rewards in the order of their names.

Not measured yet.
"""

from configs import online


def get_config():
    return online.after_warm_up(
        shaping={
            "gdc_moment_target": {"moments": (0.5,), "learning_rate": 0.5, "gives": "target_logps", "order": 0},
            "log_partition": {"decay": 0.9, "gives": "log_partitions", "order": 1},
        },
        advantages={},
        objective={"f_dpg_forward_kl": {"weight": 1.0}},
        metrics=online.TARGET_METRICS,
    )
