"""f-DPG with the Jensen-Shannon divergence (Go et al., 2023, arXiv 2302.08215) towards the optimum of RLHF.

python -m experiments.reinforce --config=configs/f_dpg.py --workdir=runs/f_dpg

Other divergences are kernels of their own, f_dpg_forward_kl, f_dpg_reverse_kl (RLHF's), f_dpg_total_variation,
f_dpg_chi_squared and f_dpg_reverse_chi_squared: `--config.objective="{'f_dpg_reverse_kl': {'weight': 1.0}}"`.

Not measured yet.
"""

from configs import online


def get_config():
    return online.after_warm_up(
        shaping={
            "rlhf_target": {"beta": 0.1, "gives": "target_logps", "order": 0},
            "prompt_log_partitions": {"gives": "log_partitions", "order": 1},
        },
        advantages={},
        objective={"f_dpg_jensen_shannon": {"weight": 1.0}},
        metrics=online.TARGET_METRICS,
    )
