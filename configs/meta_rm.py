"""MetaRM (Wang et al., 2024, arXiv 2401.06080): the gradient is taken where unlabelled samples lie further apart.

The samples, of a policy that has moved on, stand beside each pair.

python -m experiments.finetune --config=configs/meta_rm.py --workdir=runs/meta_rm

Not measured yet.
"""

from configs import common


def get_config():
    config = common.reward_model({"bt_reward_loss": {"weight": 1.0}}, {"reward_model_accuracy": {}})
    config.model.reward_heads = 1
    config.data.kind = "sampled_pairs"
    config.training.gradient = "meta_rm"
    config.training.meta_step = 1e-2
    return config
