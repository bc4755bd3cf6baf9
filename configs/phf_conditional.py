"""Conditional training (Korbak et al., 2023, arXiv 2302.08582): a control token says whether what follows is bad.

python -m experiments.finetune --config=configs/phf_conditional.py --workdir=runs/phf_conditional

The control tokens are the bytes + and -, which no sentence has. Samples are asked for after +;
`--config.gold.prompt="{}-"` asks for bad ones. A sentence is one segment here, so that a sampler need not be kept from
control tokens. `python -m experiments.make_data phf_conditional --input=FILE` makes such data of scored segments.

Not measured yet.
"""

from configs import common


def get_config():
    config = common.demonstrations("phf_conditional")
    config.data.prompt_length, config.data.completion_length = 33, 49  # the control token stands in either
    config.gold.prompt = "{}+"
    return config
