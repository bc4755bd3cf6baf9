"""Statistical rejection sampling (Liu et al., 2023, arXiv 2309.06657): DPO, the paper's rso-sigmoid-norm, on its pairs.

python -m experiments.finetune --config=configs/rso.py --workdir=runs/rso --config.data.source=runs/rso.jsonl

The pairs are made before that, from samples of the model that this run starts from (a run of configs/dpo.py leaves the
same one in its before/):

python -m experiments.make_data candidates --policy=runs/dpo/before --samples=512 --output=runs/candidates.jsonl
python -m experiments.make_data statistical_rejection_sampling --k=64 --input=runs/candidates.jsonl \
    --output=runs/rso.jsonl

The paper's 8 of 64 would give about 170 pairs of the corpus' 48 prompts; 64 of 512 is the same share and more pairs.
Without `--config.data.source` it is DPO on the corpus' own pairs, and no RSO.

Not measured yet.
"""

from configs import common


def get_config():
    config = common.preference({"dpo": {"weight": 1.0, "beta": 0.5}})
    config.data.eval_source = "corpus"
    return config
