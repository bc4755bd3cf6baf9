"""MiniLLM (Gu et al., 2023, arXiv 2306.08543): reverse KL of whole sequences, on samples that the teacher helps with.

python -m experiments.reinforce --config=configs/minillm.py --workdir=runs/minillm

Without the paper's language-modelling term on pre-training text, of which there is none here. The reward trains
nothing: it shows what becomes of the task.

Not measured yet.
"""

from configs import common, online


def get_config():
    config = online.after_warm_up(
        shaping={},
        advantages={},
        objective={"minillm": {"weight": 1.0, "eps": 0.2, "reduction": "token_mean"}},
        metrics={"kl_to_teacher": {}, "forward_kl_to_teacher": {}},
    )
    config.rollout.engine = "experiments.engines:teacher_mixed"
    config.rollout.engine_settings = {"share": 0.2}
    return common.taught_by(config, common.bigger(online.warm_up()))
