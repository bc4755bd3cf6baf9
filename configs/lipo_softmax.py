"""LiPO, softmax cross-entropy (Liu et al., 2024, arXiv 2402.01878), on ranked lists of four after SFT.

python -m experiments.finetune --config=configs/lipo_softmax.py --workdir=runs/lipo_softmax

Not measured yet.
"""

from configs import common


def get_config():
    config = common.after_sft({"lipo_softmax": {"weight": 1.0, "beta": 0.05}}, {"token_nll": {"side": "responses"}})
    config.data.kind = "lists"
    config.data.batch_size = 16
    return config
