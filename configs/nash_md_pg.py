"""Nash-MD-PG (Munos et al., 2023, arXiv 2312.00886): the policy against a mixture of itself and the start.

python -m experiments.reinforce --config=configs/nash_md_pg.py --workdir=runs/nash_md_pg

Not measured yet.
"""

from configs import online


def get_config():
    config = online.after_warm_up(
        shaping={}, advantages={}, objective={"nash_md_pg_tokens": {"tau": 0.008, "reduction": "sequence_sum"}}
    )
    config.rollout.judge = "rewards"
    config.rollout.engine = "experiments.engines:nash_md"
    config.rollout.engine_settings = {"mixture": 0.25}
    return config
