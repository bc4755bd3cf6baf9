"""ULD's assistant, which learns what is to be forgotten and nothing else (Ji et al., 2024, arXiv 2406.08607).

LoRA on the model that knows all; the paper's assistant has the first quarter of its layers only. What forgets is the
model in WORKDIR/before minus alpha times this one in logits: configs/uld_decoding.py with config.models.target =
runs/uld/before, config.models.assistant = runs/uld/hugging_face and a file of questions as config.data.source.

python -m experiments.finetune --config=configs/uld.py --workdir=runs/uld

Not measured yet.
"""

from configs import common


def get_config():
    config = common.unlearning({"sft": {"weight": 1.0, "side": "forget"}, "uniform_retain": {"weight": 5.0}})
    config.data.source = "authors:assistant"
    config.adapter.rank, config.adapter.alpha = 8, 16.0
    config.checkpoints.export_hugging_face = True  # with the adapters merged in, as decoding reads it
    return config
