"""Direct RLHF (Zheng et al., 2024, arXiv 2403.02513): PPO on a base model, which is also the reference; no SFT between.

python -m experiments.reinforce --config=configs/direct_harmless_rlhf.py --workdir=runs/direct_harmless_rlhf

Not measured yet.
"""

from configs import common, ppo


def get_config():
    # The base model: a language model of the corpus.
    return ppo.on_corpus(common.sft())
