"""RRHF (Yuan et al., 2023, arXiv 2304.05302) on ranked lists of four after SFT.

python -m experiments.finetune --config=configs/rrhf_list.py --workdir=runs/rrhf_list

Not measured yet.
"""

from configs import common


def get_config():
    config = common.after_sft({"rrhf_list": {"weight": 1.0, "lambda_": 1.0}}, {"token_nll": {"side": "responses"}})
    config.data.kind = "lists"
    config.data.batch_size = 16
    return config
