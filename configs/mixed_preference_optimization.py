"""Mixed preference optimisation (Gou and Nguyen, 2024, arXiv 2403.19443), stage 1: DPO on pairs of a large reward gap.

python -m experiments.make_data mixed_preference_optimization --gamma=1.5 --output=runs/easy.jsonl \
    --prompts=runs/difficult.jsonl
python -m experiments.finetune --config=configs/mixed_preference_optimization.py --workdir=runs/mpo \
    --config.data.source=runs/easy.jsonl

Stage 2, PPO on runs/difficult.jsonl from this policy: configs/mixed_preference_optimization_stage2.py.
Without `--config.data.source` all pairs of the corpus are trained on.

Not measured yet.
"""

from configs import common


def get_config():
    config = common.preference({"dpo": {"weight": 1.0, "beta": 0.5}})
    config.data.eval_source = "corpus"
    return config
