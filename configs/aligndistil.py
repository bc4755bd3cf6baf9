"""AlignDistil (Zhang et al., 2025, arXiv 2503.02832): distillation from a DPO model, led on from its reverse.

python -m experiments.finetune --config=configs/aligndistil.py --workdir=runs/aligndistil

Off-policy, on the corpus' demonstrations, with the paper's strength for that. The DPO model and the reverse one, whose
pairs are all swapped, are trained first, from the model that this run starts from.

Not measured yet.
"""

from configs import common


def get_config():
    config = common.after_sft(
        {"aligndistil": {"weight": 1.0, "strength": 10.0, "beta": 0.1, "reduction": "sequence_mean"}},
        {"token_nll": {}, "kl_to_teacher": {}},
    )
    config.data.kind = "completion"
    for role, swapped in (("teacher", 0.0), ("contrast", 1.0)):
        run = common.preference({"dpo": {"weight": 1.0, "beta": 0.5}})
        run.data.label_noise, run.gold.samples = swapped, 0
        common.taught_by(config, run, role)
    return config
