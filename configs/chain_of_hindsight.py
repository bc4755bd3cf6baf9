"""Chain of hindsight (Liu et al., 2023, arXiv 2302.02676): good and bad answers in one text, each after its marker.

python -m experiments.finetune --config=configs/chain_of_hindsight.py --workdir=runs/chain_of_hindsight

Answers are learnt and markers only read. The paper's second term, plain text, is in the data with a weight of 0.01.
Samples are asked for with the good marker; `--config.gold.prompt="{}Bad: "` asks for the others. The paper's random
attention mask (forgetful causal masking), off in the authors' code, is not there.
`python -m experiments.make_data chain_of_hindsight --input=FILE` makes such data of pairs.

Not measured yet.
"""

from ml_collections import ConfigDict

from configs import common


def get_config():
    config = common.demonstrations("chain_of_hindsight", {"crlft_per_sequence": {"mask": "trained_mask"}})
    config.metrics = ConfigDict({"token_nll": {"mask": "trained_mask"}})
    config.data.kind = "segments"
    config.data.prompt_length, config.data.completion_length = 40, 104
    config.data.corpus_size = 1024  # pairs, of which each gives four texts
    config.gold.prompt = "{}Good: "
    return config
