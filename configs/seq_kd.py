"""Sequence-level distillation (Kim and Rush, 2016, arXiv 1606.07947): supervised fine-tuning on a teacher's samples.

python -m experiments.finetune --config=configs/seq_kd.py --workdir=runs/seq_kd --config.data.source=runs/seq_kd.jsonl

The samples are drawn before that, from any finished run of a larger model (that of configs/forward_kl_distill.py leaves
one in its teacher/):

python -m experiments.make_data seq_kd --policy=runs/forward_kl_distill/teacher --samples=16 --output=runs/seq_kd.jsonl

`--temperature=0` gives the teacher's likeliest texts, as the paper's beams nearly do: then its mode is learnt, and not
its distribution. Without `--config.data.source` it is supervised fine-tuning on the corpus, and no distillation.

Not measured yet.
"""

from configs import common


def get_config():
    config = common.sft()
    config.data.eval_source = "corpus"
    return config
