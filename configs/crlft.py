"""C-RLFT (OpenChat; Wang et al., 2023, arXiv 2309.11235): two sources, named in the prompt, of different weight.

python -m experiments.finetune --config=configs/crlft.py --workdir=runs/crlft
python -m experiments.finetune --config=configs/crlft.py:crlft_per_sequence --workdir=runs/crlft_per_sequence

Half of the demonstrations are an expert's. Samples are asked of the expert; `--config.gold.prompt="GPT3 User: {}"` asks
the other source. `python -m experiments.make_data crlft --input=FILE` makes such data of {prompt, completion, source}.

Not measured yet.
"""

from configs import common


def get_config(loss="crlft"):
    config = common.demonstrations("crlft", {loss: {"weight": 1.0}})
    config.data.prompt_length = 48
    config.gold.prompt = "GPT4 User: {}"
    return config
