"""MEET, second stage (Xue et al., 2023, arXiv 2310.00819): control tokens and model are finetuned together.

python -m experiments.finetune --config=configs/meet.py --workdir=runs/meet

Runs configs/meet_controls.py first, whose control tokens it starts from; `--config.before_workdir=runs/meet_controls`
takes that stage from where it was run. The tokens learn at a hundred times the rate of the model. Samples are those
after the tokens for good answers.

Not measured yet.
"""

from configs import common, meet_controls


def get_config():
    config = common.starting_from(meet_controls.get_config(), meet_controls.get_config())
    config.before_controls = True
    config.optimizer.only = ()
    config.optimizer.learning_rate = 4e-5
    config.optimizer.multipliers.control_embeddings = 100.0
    return config
