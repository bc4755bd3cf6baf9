"""Token-level distillation (Hinton et al., 2015, arXiv 1503.02531): a small model learns a larger one's distributions.

python -m experiments.finetune --config=configs/forward_kl_distill.py --workdir=runs/forward_kl_distill

The teacher is trained first, on the same data, in WORKDIR/teacher.

Not measured yet.
"""

from configs import common


def get_config():
    return common.distillation({"forward_kl_distill": {"weight": 1.0, "reduction": "token_mean"}})
