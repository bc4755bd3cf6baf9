"""SELM (Zhang et al., 2024, arXiv 2405.19332): rounds of DPO with an optimistic bonus.

python -m experiments.reinforce --config=configs/selm.py --workdir=runs/selm

The best and the worst of a fresh sample of the reference and the two answers that the data have; the bonus is for the
sample. `--config.data.source=FILE` are prompts with a field `demonstrations` of two texts.

Not measured yet.
"""

from configs import common, online


def get_config():
    config = online.in_rounds(online.on_pairs({"selm": {"weight": 1.0, "beta": 0.1, "alpha": 1e-3}}))
    config = common.starting_from(config, common.sft())
    config.data.source, config.data.prompt_length, config.data.completion_length = "recipe:answered_prompts", 32, 48
    config.rewards = {"gold": {"weight": 1.0, "function": "alignment.data.corpus:reward"}}
    config.rollout.engine = "experiments.engines:selm"
    config.rollout.engine_settings = {"opponents": 1, "refresh_every": 1}  # as the reference is, once in 8 steps
    config.rollout.group_size, config.rollout.demonstrations = 3, 2
    return config
