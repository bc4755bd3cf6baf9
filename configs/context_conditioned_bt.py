"""Context-conditioned rewards (Pitis et al., 2024, arXiv 2407.14916): the same pair is ranked both ways.

python -m experiments.make_data context_conditioned_bt --output=runs/contexts.jsonl
python -m experiments.make_data context_conditioned_bt --seed=1 --output=runs/contexts_eval.jsonl

Then --config.data.source=runs/contexts.jsonl --config.data.eval_source=runs/contexts_eval.jsonl; without them this is a
plain reward model. A file made with --reverse or --without has the contexts reversed or left out: a model that ignores
them is right half of the time on any of the three.

python -m experiments.finetune --config=configs/context_conditioned_bt.py --workdir=runs/context_conditioned_bt

Not measured yet.
"""

from configs import common


def get_config():
    config = common.reward_model({"bt_reward_loss": {"weight": 1.0}}, {"reward_model_accuracy": {}})
    config.model.reward_heads = 1
    config.data.prompt_length = 40
    return config
