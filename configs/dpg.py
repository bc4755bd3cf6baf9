"""Distributional policy gradient (Khalifa et al., 2020, arXiv 2012.11635) towards the base model's right answers.

python -m experiments.reinforce --config=configs/dpg.py --workdir=runs/dpg

The target is the warmed-up model restricted to answers that pass the check, each prompt with a normaliser of its own
(Korbak et al., 2021, arXiv 2112.00791). Samples come from a copy of the policy, which becomes the policy every 16
iterations if that has come nearer to the target (KL-adaptive DPG).

Not measured yet.
"""

from configs import online


def get_config():
    config = online.after_warm_up(
        shaping={
            "gdc_pointwise_target": {"gives": "target_logps", "order": 0},
            "prompt_log_partitions": {"gives": "log_partitions", "order": 1},
        },
        advantages={},
        objective={"dpg": {"weight": 1.0}},
        metrics=online.TARGET_METRICS,
    )
    config.rollout.engine = "experiments.engines:nearest_policy"
    config.rollout.engine_settings = {"refresh_every": 16}
    return config
