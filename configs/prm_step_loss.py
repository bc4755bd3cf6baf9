"""Process reward model (Lightman et al., 2023, arXiv 2305.20050): is each step right? Two classes at every line's end.

--config=configs/prm_step_loss.py:prm_last_step_loss learns from the last step alone. A run names it as its reward by
{"checkpoint": WORKDIR, "combine": "step_min"}, or another of alignment.rewards.process.

python -m experiments.finetune --config=configs/prm_step_loss.py --workdir=runs/prm_step_loss

Not measured yet.
"""

from configs import common


def get_config(loss="prm_step_loss"):
    config = common.reward_model({loss: {"weight": 1.0}}, {"step_accuracy": {}})
    config.model.reward_heads = 2
    config.data.kind = "steps"
    return config
