"""DPO after SFT."""

from configs import common


def get_config():
    return common.preference(dpo={"weight": 1.0, "beta": 0.1})
