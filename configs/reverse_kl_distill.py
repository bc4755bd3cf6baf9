"""Mode-seeking token-level distillation, the single-step part of MiniLLM (Gu et al., 2023, arXiv 2306.08543).

python -m experiments.finetune --config=configs/reverse_kl_distill.py --workdir=runs/reverse_kl_distill

On the data's own tokens; on the student's samples it is configs/gkd.py with beta = 1.

Not measured yet.
"""

from configs import common


def get_config():
    return common.distillation({"reverse_kl_distill": {"weight": 1.0, "reduction": "token_mean"}})
