"""SFT as imitation by an f-divergence (Wang et al., 2025, arXiv 2507.00018): pearson, hellinger or total_variation.

python -m experiments.finetune --config=configs/fdiv_sft.py --workdir=runs/fdiv_sft
python -m experiments.finetune --config=configs/fdiv_sft.py:hellinger --workdir=runs/fdiv_sft_hellinger

total_variation is plain SFT with beta times the gradient: what the others are to be compared with.

Not measured yet.
"""

from configs import common


def get_config(divergence="pearson"):
    config = common.after_sft({f"fdiv_sft_{divergence}": {"weight": 1.0, "beta": 0.5}}, {"token_nll": {}})
    config.data.kind = "completion"
    return config
