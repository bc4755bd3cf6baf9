"""Nash-EMA-PG (Munos et al., 2023, arXiv 2312.00886): the policy against its moving average.

python -m experiments.reinforce --config=configs/nash_ema_pg.py --workdir=runs/nash_ema_pg

Not measured yet.
"""

from configs import online


def get_config():
    config = online.after_warm_up(shaping={}, advantages={}, objective={"nash_md_pg": {"tau": 0.008}})
    config.rollout.judge = "rewards"
    config.rollout.engine = "experiments.engines:nash_ema"
    config.rollout.engine_settings = {"decay": 0.95}
    return config
