"""A draft model taught online, the text part of SpecVLM (Huang et al., 2025, arXiv 2509.11815).

python -m experiments.finetune --config=configs/specvlm_online_distill.py --workdir=runs/specvlm_online_distill

One layer learns what the six of the target say and feel; both have one width. `draft_acceptance` is how often the
target would accept a token that the draft proposes.

Not measured yet.
"""

from configs import common


def get_config():
    config = common.distillation({"specvlm_online_distill": {"weight": 1.0, "reduction": "token_mean"}})
    config.metrics.draft_acceptance = {}
    target = config.teacher.run.model
    for size in ("hidden_size", "intermediate_size", "num_heads", "num_kv_heads"):
        config.model[size] = target[size]
    config.model.num_layers = 1
    return config
