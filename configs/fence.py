"""FenCE (2024): SFT on answers revised after a critic of single claims, then DPO between better and worse supported.

python -m experiments.finetune --config=configs/fence.py --workdir=runs/fence

The critic knows the corpus; `python -m experiments.make_data fence --input=FILE` takes others. The model of the first
stage, WORKDIR/before, is the reference of the second.

Not measured yet.
"""

from configs import common


def get_config():
    config = common.preference({"dpo": {"weight": 1.0, "beta": 0.5}})
    common.starting_from(config, common.demonstrations("fence"))
    config.data.source = "recipe:fence_pairs"
    config.data.corpus_size, config.before.data.corpus_size = 256, 1024  # prompts, of which each gives several
    config.data.corpus_eval_size = config.before.data.corpus_eval_size = 32
    return config
