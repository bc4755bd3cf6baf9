"""AlignGuard-LoRA (Das et al., 2025, arXiv 2508.02079): adapters that learn a task and keep refusals where they are.

python -m experiments.finetune --config=configs/alignguard_lora.py --workdir=runs/alignguard_lora

The model first learns the retain authors' facts and to refuse questions about the forget authors; the adapters then
learn other authors' facts. The evaluation is on the refusals, so its token_nll is the drift.

Not measured yet.
"""

from configs import common


def get_config():
    config = common.starting_from(common.authors("holdout"), common.authors("guarded"))
    config.data.eval_source = "authors:refused"
    config.data.corpus_eval_size = 20  # each question once
    config.guard.source = "authors:refused"
    config.guard.examples = 20
    config.adapter.rank = 8
    config.adapter.alpha = 16.0
    config.optimizer.learning_rate = 2e-3
    config.training.steps, config.training.eval_every, config.checkpoints.every = 100, 20, 100
    return config
