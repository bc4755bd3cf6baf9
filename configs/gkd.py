"""GKD (Agarwal et al., 2023, arXiv 2306.13649): distillation on the student's own samples and on data, half and half.

python -m experiments.reinforce --config=configs/gkd.py --workdir=runs/gkd

The paper's lambda, the share of the student's samples, is 1 - demonstrations / group_size; it draws a coin per batch,
here every group has both. The temperature is that of the samples and of the divergence. The reward trains nothing: it
shows what becomes of the task.

Not measured yet.
"""

from configs import common, online


def get_config():
    config = online.after_warm_up(
        shaping={},
        advantages={},
        objective={"gkd": {"weight": 1.0, "beta": 0.5, "reduction": "token_mean"}},
        metrics={"kl_to_teacher": {}, "forward_kl_to_teacher": {}},
    )
    config.rollout.prompts, config.rollout.group_size, config.rollout.demonstrations = 64, 2, 1
    config.rollout.temperature = 0.9
    return common.taught_by(config, common.bigger(online.warm_up()))
