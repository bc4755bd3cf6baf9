"""FActScore (Min et al., 2023, arXiv 2305.14251) of two writers, with a splitter and a verifier that are rules.

python -m experiments.evaluate --config=configs/evaluate_facts.py --workdir=runs/evaluate_facts

Takes seconds. With a model, `claims.split` and `claims.verify` name functions that ask it
(`alignment.rewards.judges.ModelJudge` is such a verifier); then give it `workers` and a `time_limit`.
"""

from configs import evaluate


def get_config():
    config = evaluate.base()
    config.files = (str(evaluate.EXAMPLES / "descriptions.jsonl"),)
    config.claims.split = "alignment.rewards.claims:sentences"
    config.claims.verify = "alignment.rewards.claims:stated_in_knowledge"
    config.metrics = {"factscore": {}, "without_penalty": {"metric": "factscore", "gamma": 0.0}}
    return config
