"""MEET, second stage (Xue et al., 2023, arXiv 2310.00819): control tokens and model are finetuned together.

python -m experiments.finetune --config=configs/meet.py --workdir=runs/meet

Runs configs/meet_controls.py first, whose control tokens it starts from; `--config.before_workdir=runs/meet_controls`
takes that stage from where it was run. The tokens learn at twenty times the rate of the model. Samples are those
after the tokens for good answers.

Measured (seed 0, 160 steps after stage 1, 512 prompts): after the good tokens the win rate is 0.541 and the mean gold
reward -0.16, after the bad ones 0.318 and -1.48, one standard error 0.1; stage 1 ended at -0.93 and -1.05. At a rate of
4e-5 (and 4e-3 of the tokens) it is 0.440 and -0.71, 0.399 and -1.01.
"""

from configs import common, meet_controls


def get_config():
    config = common.starting_from(meet_controls.get_config(), meet_controls.get_config())
    config.before_controls = True
    config.optimizer.only = ()
    config.optimizer.learning_rate = 5e-4
    config.optimizer.multipliers.control_embeddings = 20.0
    return config
