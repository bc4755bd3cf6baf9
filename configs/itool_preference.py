"""iTool (Zeng et al., 2025, arXiv 2501.09766), one round: pairs of a tree search on prompts that the policy finds hard.

python -m experiments.make_data itool_preference --policy=runs/dpo/before --temperature=1 --output=runs/itool.jsonl
python -m experiments.finetune --config=configs/itool_preference.py --workdir=runs/itool \
    --config.data.source=runs/itool.jsonl

SimPO with the paper's beta 2.5 and gamma 0.5. A further round is the same two commands with `--policy=runs/itool`.
Without `--config.data.source` it is SimPO on the corpus' own pairs.

Not measured yet.
"""

from configs import common


def get_config():
    config = common.after_sft(
        {"simpo": {"weight": 1.0, "beta": 2.5, "gamma": 0.5}}, {"chosen_logp": {}, "rejected_logp": {}}
    )
    config.data.eval_source = "corpus"
    return config
