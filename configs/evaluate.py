"""An evaluation of three writers' answers (docs/evaluate/answers.jsonl): win rates, length control, Elo, IFEval.

python -m experiments.evaluate --config=configs/evaluate.py --workdir=runs/evaluate

Takes seconds. `base` has every key of an evaluation with its default.
"""

from pathlib import Path

from ml_collections import ConfigDict

EXAMPLES = Path(__file__).resolve().parents[1] / "docs" / "evaluate"
FREE = ("columns", "functions", "metrics")


def base() -> ConfigDict:
    config = ConfigDict()
    # JSONL or Parquet. A record's model is its field `model`, or else the name of its file without the suffix.
    config.files = ("",)
    config.columns = ConfigDict()  # what a field is called in the files: {"output": "completion"}

    # Fields made of outputs: config.functions.NAME.function = "package.module:function" is called with the prompt, the
    # output and the record, as rewards and judges are, and gives the field NAME (a number, or true or false).
    config.functions = ConfigDict()
    config.claims = ConfigDict()  # for factscore: the field `supported`, from a splitter and a verifier
    config.claims.split = ""  # package.module:function, (prompt, output, record) -> list of texts; "": no claims
    config.claims.verify = ""  # package.module:function, a judge of one claim: (prompt, claim, record) -> bool
    config.workers = 0  # processes that call functions and judges; 0: this one, and then no time limit protects
    config.time_limit = 5.0  # seconds for one call

    config.baseline = ""  # a model that all others are compared with, prompt by prompt; "": records are comparisons
    config.compare = ConfigDict()  # what decides a comparison, and gives the field `outcome`
    config.compare.by = "reward"  # a field of both outputs, higher is better
    config.compare.tie_within = 0.0  # differences of so much are ties
    # Or a judge, asked in both orders: (prompt, output, record) -> P(output is better than record["opponent_output"]).
    config.compare.judge = ""

    # By name in alignment.evaluation, with hyperparameters; an entry of another name says which: `metric`. `columns`
    # says which fields an entry's arguments are, where they have other names (experiments/evaluation_columns.py).
    config.metrics = ConfigDict()
    return config


def check_numbers(config: ConfigDict) -> None:
    """ValueError for values that are out of range or do not fit each other."""
    if not config.files or not all(config.files):
        raise ValueError("config.files: name at least one file of outputs")
    if not config.metrics:
        raise ValueError("config.metrics: empty; name at least one function of alignment.evaluation")
    if bool(config.claims.split) != bool(config.claims.verify):
        raise ValueError("config.claims: split and verify go together; one of them is empty")
    if config.workers < 0:
        raise ValueError(f"config.workers: must be at least 0, got {config.workers}")
    if not 0 < config.time_limit < float("inf"):
        raise ValueError(f"config.time_limit: must lie in (0, inf) seconds, got {config.time_limit}")
    if not config.compare.tie_within >= 0:
        raise ValueError(f"config.compare.tie_within: must be at least 0, got {config.compare.tie_within}")


def get_config():
    config = base()
    config.files = (str(EXAMPLES / "answers.jsonl"),)
    config.functions = {"reward": {"function": "alignment.data.corpus:reward"}}
    config.baseline = "imitator"
    config.metrics = {
        "win_rate": {},
        "length_controlled_win_rate": {},
        "bradley_terry_elo": {"anchor": "imitator"},
        "ifeval": {},
        "judge_calibration": {},
    }
    return config
