"""PIT (Wang et al., 2023, arXiv 2310.00898): RL that makes an answer better than the one that the prompt shows.

python -m experiments.finetune --config=configs/pit_gap_loss.py --workdir=runs/pit_gap_loss
python -m experiments.reinforce --config=configs/pit.py --workdir=runs/pit

The reward is the gap model's view of (new answer, shown answer). This is the first stage of the curriculum: shown are
the rejected answers of pairs, and the run begins with the supervised stage. In the second it is samples of a model:

python -m experiments.make_data candidates --policy=runs/dpo/before --samples=32 --output=runs/candidates.jsonl
python -m experiments.make_data pit --what=samples --input=runs/candidates.jsonl --output=runs/pit_samples.jsonl
python -m experiments.reinforce --config=configs/pit.py:second --workdir=runs/pit_second

Advantages are GRPO's; the paper trains by PPO. Not measured yet.
"""

from ml_collections import ConfigDict

from configs import common, online


def get_config(stage: str = "first"):
    if stage not in ("first", "second"):
        raise ValueError(f"configs/pit.py:{stage}: is not one of first, second")
    before = common.demonstrations("pit_improvements")
    before.data.prompt_length = 96  # a prompt and an answer
    before.gold.samples = 0  # asked without an answer to improve it would say anything
    config = common.starting_from(online.base(), before)
    config.data.source, config.data.prompt_length, config.data.completion_length = "recipe:pit_tasks", 96, 48
    gap = {"checkpoint": "runs/pit_gap_loss", "reads": "alignment.data.recipes.pit:gap_input", "weight": 1.0}
    config.rewards = ConfigDict({"gap": gap})
    config.advantages = ConfigDict({"grpo_advantages": {}})
    config.objective = ConfigDict(
        {
            "ppo": {"weight": 1.0, "reduction": "token_mean"},
            "kl_k3": {"weight": 0.05, "reduction": "token_mean"},  # from the supervised stage, in both stages
        }
    )
    config.metrics = ConfigDict({"sequence_kl": {}})
    config.optimizer.learning_rate, config.optimizer.schedule = 1e-4, "constant"
    if stage == "second":
        config.before = ConfigDict()
        config.data.source, config.data.tokenizer = "runs/pit_samples.jsonl", "bytes"
        config.model.hugging_face = "runs/pit/hugging_face"
        config.reference.soup, config.reference.soup_weight = ("runs/pit/before",), 1.0
    return config
