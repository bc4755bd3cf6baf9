"""SFT."""

from configs import common


def get_config():
    return common.sft()
