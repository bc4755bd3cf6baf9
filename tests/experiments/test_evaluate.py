"""The script of evaluations: what it computes from files, what fails and is shown, and what it says of bad input."""

import importlib
import json
import subprocess
import sys

import pytest
import tiny_runs

from alignment import evaluation
from configs import evaluate as evaluate_config
from experiments import evaluate

FOUR = ("What is a cat?", "What is a dog?", "What is an owl?", "What is a fox?")


# Functions and judges that a config names ----------------------------------------------------------------------------


def characters(prompt, output, record):
    return len(output)


def fails_on_dogs(prompt, output, record):
    if "dog" in prompt:
        raise RuntimeError("no dogs")
    return len(output)


def prefers_first_and_long(prompt, output, record):
    """A judge of pairs with a bias: the one that is shown first gains 0.2."""
    return min(1.0, max(0.0, 0.5 + 0.2 + 0.1 * (len(output) > len(record["opponent_output"])) - 0.05))


def undecided_but_not_on_dogs(prompt, output, record):
    """Fails in one of the two orders."""
    if "dog" in prompt and record["model"] == "long" and record["opponent_output"] == "ab" and output == "abc":
        raise RuntimeError("no dogs")
    return 0.5


SLOW = """
import time

def slow_on_owls(prompt, output, record):
    time.sleep(60 * ("owl" in prompt))
    return True
"""


def split_at_semicolons(prompt, output, record):
    if "fox" in prompt:
        raise ValueError("cannot split")
    return [c.strip() for c in output.split(";") if c.strip()]


def not_a_list(prompt, output, record):
    return output


def knows_no_x(prompt, claim, record):
    if "unsure" in claim:
        return None
    return "x" not in claim


def uncertain(prompt, claim, record):
    return 0.7


HERE = "test_evaluate"


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """Configs name functions of this file by module and name, in workers too."""
    monkeypatch.syspath_prepend(str(tiny_runs.ROOT / "tests" / "experiments"))
    monkeypatch.setitem(sys.modules, HERE, sys.modules[__name__])


def file(path, *records):
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in records))
    return str(path)


def config(files, metrics, **settings):
    made = evaluate_config.base()
    made.files = (files,) if isinstance(files, str) else tuple(files)
    made.metrics = metrics
    for key, value in settings.items():
        section, _, inner = key.partition("__")
        if inner:
            made[section][inner] = value
        else:
            made[key] = value
    return made


def outputs(model, texts, **fields):
    return [{"model": model, "prompt": p, "output": t, **fields} for p, t in zip(FOUR, texts, strict=True)]


TWO = [*outputs("long", ["abcd", "ab", "abcdef", "a"]), *outputs("base", ["a", "ab", "abc", "ab"])]
LENGTH = {"functions": {"reward": {"function": f"{HERE}:characters"}}, "baseline": "base"}


# What it computes ----------------------------------------------------------------------------------------------------


def test_two_files_are_compared_prompt_by_prompt(tmp_path, capsys):
    """Files without a field `model` are named by their names; lines of one need not be in the order of the other."""
    nameless = [{k: v for k, v in r.items() if k != "model"} for r in TWO]
    files = file(tmp_path / "long.jsonl", *nameless[:4]), file(tmp_path / "base.jsonl", *nameless[:3:-1])
    lines = evaluate.run(config(files, {"win_rate": {}, "judge": {"metric": "win_rate", "level": 0.5}}, **LENGTH),
                         tmp_path / "run")  # fmt: skip
    (line,) = lines["win_rate"]
    assert (line["model"], line["wins"], line["ties"], line["losses"], line["win_rate"]) == ("long", 2, 1, 1, 0.625)
    assert lines["judge"][0]["high"] < line["high"]
    written = [json.loads(one) for one in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert written[0] == {"calls_of": "functions.reward", "calls": 8, "failed": 0}
    assert {k: v for k, v in written[2].items() if k == "win_rate"} == {"win_rate": 0.625}
    pairs = [json.loads(one) for one in (tmp_path / "run" / "comparisons.jsonl").read_text().splitlines()]
    assert [p["outcome"] for p in pairs] == [1, 0.5, 1, 0] and pairs[0]["baseline_output"] == "a"
    assert len((tmp_path / "run" / "records.jsonl").read_text().splitlines()) == 8
    assert (tmp_path / "run" / "figure.png").stat().st_size > 1000
    said = capsys.readouterr().out
    assert "| model | win_rate " in said and (tmp_path / "run" / "table.md").read_text() in said


def test_a_biased_judge_is_asked_in_both_orders(tmp_path):
    path = file(tmp_path / "a.jsonl", *TWO)
    lines = evaluate.run(
        config(path, {"win_rate": {}}, baseline="base", compare__judge=f"{HERE}:prefers_first_and_long"), tmp_path
    )
    # +0.05 where longer, -0.05 where shorter, 0 where equal; the 0.15 for the first place cancels.
    assert lines["win_rate"][0]["win_rate"] == pytest.approx(0.5 + (0.05 + 0 + 0.05 - 0.05) / 4, abs=1e-6)


def test_battles_of_a_file_are_rated_with_verdicts_and_models_of_both_sides(tmp_path):
    battles = [("b", "a", "A>>B"), ("b", "a", "B>A"), ("c", "b", "A=B"), ("d", "a", "B>>A")]
    path = file(tmp_path / "x.jsonl", *({"model": m, "opponent": o, "verdict": v} for m, o, v in battles))
    lines = evaluate.run(
        config(path, {"bradley_terry_elo": {"anchor": "a"}, "win_rate_matrix": {}, "win_rate": {}}), tmp_path
    )
    ratings = {line["model"]: line for line in lines["bradley_terry_elo"]}
    want = evaluation.bradley_terry_elo(
        ["b", "b", "c", "d"], ["a", "a", "b", "a"], [1, 0, 0.5, 0], [3, 1, 1, 3], range(4), anchor="a"
    )
    assert ratings["b"]["rating"] == dict(zip(want.model, want.rating, strict=True))["b"]
    assert ratings["d"]["status"] == "never wins"
    written = [json.loads(one) for one in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    of_d = next(w for w in written if w["metric"] == "bradley_terry_elo" and w["model"] == "d")
    assert of_d["rating"] is None and of_d["status"] == "never wins"  # JSON has no infinity
    matrix = {line["model"]: line for line in lines["win_rate_matrix"]}
    assert matrix["b"]["a"] == 0.5 and matrix["a"]["b"] == 0.5 and matrix["a"]["d"] == 1


def test_tables_pools_scores_and_attributes(tmp_path):
    """One file for each kind of input that a metric reads."""
    runs = [{"run": i // 2, "accuracy": 0.6 + 0.02 * i, "gold": i % 5, "kl": i, "proxy": i} for i in range(8)]
    pools = [{"scores": [2, 1, 0], "proxy_rewards": [1, 2, 3], "rm": [0, 1, 5], "subset": s} for s in "xy"]
    ties = [{"id": "tied:1", "scores": [3, 2, 0], "num_correct": 2}]
    ties += [{"id": "ref:1", "scores": [1, 0], "num_correct": 1}]
    probes = [{"source_attributes": [0, 0], "target_attributes": [1, None], "output_attributes": [0.5, 0]}]
    judged = [{"confidence": 0.9, "correct": True}, {"confidence": 0.8, "correct": 0}]
    cases = {
        "runs": (runs, {"objective_mismatch": {"columns": {"proxies": "accuracy"}}, "turning_point": {}}),
        "pools": (pools, {"best_of_n_curve": {"columns": {"gold_rewards": "rm"}}, "reward_bench_2": {}}),
        "ties": (ties, {"reward_bench_ties": {}}),
        "probes": (probes, {"steerability": {}}),
        "judged": (judged, {"judge_calibration": {"bins": 5}, "brier_score": {}}),
    }
    got = {}
    for name, (records, metrics) in cases.items():
        path = file(tmp_path / f"{name}.jsonl", *records)
        got |= evaluate.run(config(path, metrics), tmp_path / name)
    assert got["objective_mismatch"][0]["runs"] == 4 and got["turning_point"][0]["kl"] == 4
    assert [(line["n"], line["gold"]) for line in got["best_of_n_curve"]] == [
        (1, 2),
        (2, pytest.approx(11 / 3)),
        (3, 5),
    ]
    assert got["reward_bench_2"][0]["score"] == 1 and got["reward_bench_2"][0]["y"] == 1
    assert got["reward_bench_ties"][0]["tied_accuracy"] == 1
    assert got["steerability"][0]["miscalibration"] == pytest.approx(0.5)
    assert got["judge_calibration"][0]["model"] == "judged" and got["brier_score"][0]["value"] == pytest.approx(0.325)


@pytest.mark.parametrize("name", ["evaluate", "evaluate_facts"])
def test_the_configs_run(name, tmp_path):
    made = importlib.import_module(f"configs.{name}").get_config()
    lines = evaluate.run(made, tmp_path)
    assert set(lines) == set(made.metrics) and (tmp_path / "figure.png").is_file()
    if name == "evaluate_facts":
        by_model = {line["model"]: line for line in lines["without_penalty"]}
        assert by_model["careful"]["score"] == 1 and by_model["careful"]["respond_ratio"] == 0.75
        assert by_model["fluent"]["score"] < 0.8 and by_model["fluent"]["respond_ratio"] == 1


def test_the_command_ends_in_one_line_when_something_is_wrong(tmp_path):
    path = file(tmp_path / "a.jsonl", {"model": "m", "outcome": 1}, "{not json}")
    done = subprocess.run(
        tiny_runs.command("configs/evaluate.py", tmp_path / "run", f"--config.files=('{path}',)", script="evaluate"),
        env=tiny_runs.environment(), cwd=tiny_runs.ROOT, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert f"error: {path}:2: invalid JSON at column 2" in done.stderr


# What fails and is shown ---------------------------------------------------------------------------------------------


def test_a_failing_function_is_counted_and_its_records_are_left_out(tmp_path, capsys):
    path = file(tmp_path / "a.jsonl", *TWO)
    functions = {"reward": {"function": f"{HERE}:fails_on_dogs"}}
    lines = evaluate.run(config(path, {"win_rate": {}}, functions=functions, baseline="base"), tmp_path)
    (line,) = lines["win_rate"]
    assert (line["n"], line["left_out"], line["ties"]) == (3, 1, 0)
    said = capsys.readouterr().out
    assert "functions.reward: 8 calls" in said and "exception 2" in said and "no dogs" in said and "left_out" in said
    assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])["exception"] == 2
    assert json.loads((tmp_path / "records.jsonl").read_text().splitlines()[1])["reward"] is None


def test_a_comparison_without_both_orders_is_left_out(tmp_path):
    records = [{**r, "output": "abc"} if r["model"] == "long" and "dog" in r["prompt"] else r for r in TWO]
    path = file(tmp_path / "a.jsonl", *records)
    made = config(path, {"win_rate": {}}, baseline="base", compare__judge=f"{HERE}:undecided_but_not_on_dogs")
    (line,) = evaluate.run(made, tmp_path)["win_rate"]
    assert (line["n"], line["ties"], line["left_out"]) == (3, 3, 1)


def test_two_files_of_one_name_need_a_field_model(tmp_path):
    (tmp_path / "b").mkdir()
    files = [file(tmp_path / d / "x.jsonl", {"outcome": 1}) for d in ("", "b")]
    with pytest.raises(ValueError, match=r"b/x.jsonl:1: field 'model' is missing, and .*x.jsonl has the same name 'x'"):
        evaluate.run(config(files, {"win_rate": {}}), tmp_path / "run")


def test_claims_that_cannot_be_split_or_verified(tmp_path):
    """A splitter that fails leaves the record out, a verifier that fails leaves the claim unsupported."""
    texts = ["a; b x", " ", "c; unsure", "d"]  # the second abstains, the last is about a fox
    path = file(tmp_path / "a.jsonl", *outputs("m", texts))
    facts = {"claims__split": f"{HERE}:split_at_semicolons", "claims__verify": f"{HERE}:knows_no_x"}
    lines = evaluate.run(config(path, {"factscore": {"gamma": 0.0}}, **facts), tmp_path)
    (line,) = lines["factscore"]
    assert (line["score"], line["respond_ratio"], line["n"], line["left_out"]) == (0.5, pytest.approx(2 / 3), 3, 1)
    counts = {w["calls_of"]: w for w in map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines()[:2])}
    assert counts["claims.split"]["exception"] == 1 and counts["claims.verify"]["none"] == 1
    stored = [json.loads(one) for one in (tmp_path / "records.jsonl").read_text().splitlines()]
    assert [r["supported"] for r in stored] == [[True, False], None, [True, False], None]
    assert [r["claims"] for r in stored] == [["a", "b x"], [], ["c", "unsure"], None]


def test_a_judge_that_hangs_is_stopped_and_counted(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)  # a module that imports nothing: workers start quickly
    (tmp_path / "slow_judges.py").write_text(SLOW)
    path = file(tmp_path / "a.jsonl", *outputs("m", ["a", "b", "c", "d"], confidence=0.9))
    made = config(path, {"judge_calibration": {}}, functions={"correct": {"function": "slow_judges:slow_on_owls"}},
                  workers=1, time_limit=3.0)  # fmt: skip
    (line,) = evaluate.run(made, tmp_path)["judge_calibration"]
    assert (line["accuracy"], line["n"], line["left_out"]) == (1, 3, 1)
    assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])["time_out"] == 1


def test_nothing_left_is_an_error(tmp_path):
    path = file(tmp_path / "a.jsonl", {"model": "m", "prompt": "dog", "output": "x"})
    made = config(path, {"judge_calibration": {"columns": {"confidences": "sure", "correct": "sure"}}},
                  functions={"sure": {"function": f"{HERE}:fails_on_dogs"}})  # fmt: skip
    with pytest.raises(ValueError, match=r"config.metrics.judge_calibration \(m\): no record is left"):
        evaluate.run(made, tmp_path)


# Bad input -----------------------------------------------------------------------------------------------------------

BATTLE = {"model": "b", "opponent": "a", "outcome": 1}
POOL = {"proxy_rewards": [1, 2], "gold_rewards": [1, 2]}


@pytest.mark.parametrize(
    "records,metrics,settings,message",
    [
        ([BATTLE, {"model": "b"}], {"win_rate": {}}, {}, r"a.jsonl:2: field 'outcome' is missing \(1 of 2 records"),
        ([BATTLE, [1]], {"win_rate": {}}, {}, "a.jsonl:2: a record must be an object"),
        ([BATTLE, "{"], {"win_rate": {}}, {}, "a.jsonl:2: invalid JSON"),
        ([], {"win_rate": {}}, {}, "a.jsonl: empty"),
        ([{**BATTLE, "outcome": 2}], {"win_rate": {}}, {}, r"a.jsonl:1: field 'outcome' must lie in \[0, 1\], got 2"),
        ([{**BATTLE, "outcome": "1"}], {"win_rate": {}}, {}, "a.jsonl:1: field 'outcome' must be a finite number"),
        ([{"verdict": "A"}], {"win_rate": {}}, {}, "a.jsonl:1: field 'verdict': verdict 'A' is not one of"),
        ([{**BATTLE, "model": 3}], {"win_rate": {}}, {}, "a.jsonl:1: field 'model' must be text, got 3"),
        ([{**BATTLE, "weight": 0}], {"bradley_terry_elo": {"anchor": "a"}}, {}, "field 'weight' must lie in"),
        ([BATTLE], {"bradley_terry_elo": {"anchor": "z"}}, {}, "bradley_terry_elo: anchor 'z' has no battle"),
        ([BATTLE], {"bradley_terry_elo": {}}, {}, "config.metrics.bradley_terry_elo.anchor: required"),
        ([BATTLE], {"winrate": {}}, {}, "config.metrics.winrate: no metric 'winrate'; nearest: win_rate"),
        ([BATTLE], {"win_rate": {"levle": 1}}, {}, "win_rate.levle: unknown key; allowed: metric, columns"),
        ([BATTLE], {"win_rate": {"columns": {"outcome": "x"}}}, {}, "columns.outcome: win_rate has no"),
        ([BATTLE], {"win_rate": {"level": 2.0}}, {}, r"config.metrics.win_rate \(b\): level must lie in"),
        ([BATTLE], {}, {}, "config.metrics: empty"),
        ([BATTLE], {"win_rate": {}}, {"baseline": "a"}, "config.baseline: 'a' and others to compare"),
        ([BATTLE, {**BATTLE, "model": "a"}], {"win_rate": {"columns": {"prompts": "outcome"}}}, {"baseline": "a"},
         "field 'prompt' is missing; config.baseline needs it"),
        ([{**r, "outcome": 1, "reward": 1} for r in TWO], {"win_rate": {}}, {"baseline": "base"},
         "config.baseline: the records already have a field 'outcome'"),
        ([BATTLE], {"win_rate": {}}, {"claims__split": "x:y"}, "config.claims: split and verify go together"),
        ([POOL, {**POOL, "gold_rewards": [1]}], {"best_of_n_curve": {}}, {},
         "a.jsonl:2: field 'gold_rewards' has 1 numbers, but .*a.jsonl:1: field 'proxy_rewards' has 2"),
        ([{**POOL, "gold_rewards": [1, None]}], {"best_of_n_curve": {}}, {}, r"a.jsonl:1: field 'gold_rewards\[1\]'"),
        ([{**POOL, "gold_rewards": []}], {"best_of_n_curve": {}}, {}, "must be a list with entries, got an empty list"),
        ([{"acc": 0.5, "gold": g} for g in range(4)], {"objective_mismatch": {"columns": {"proxies": "acc"}}}, {},
         "proxies are 0.5 in every row.*proxies is the field 'acc'"),
        ([{"subset": "hep-cpp", "chosen_reward": 1, "rejected_reward": 0}], {"reward_bench": {}}, {},
         "no pairs of the subsets alpacaeval-easy"),
        ([{"output": "x", "instruction_id_list": ["no:such"], "kwargs": [{}]}], {"ifeval": {}}, {},
         "a.jsonl:1: fields 'instruction_id_list' and 'kwargs': instruction 'no:such'"),
        ([{"output": "x"}], {"ifeval": {}}, {}, "a.jsonl:1: field 'followed' is missing"),
        (TWO[:3], {"brier_score": {"columns": {"confidences": "r", "correct": "r"}}},
         {"functions": {"r": {"function": "nowhere:f"}}}, "functions.r: reward 'nowhere:f'"),
        (TWO, {"win_rate": {}}, {"baseline": "base"}, "a.jsonl:1: field 'reward' must be a finite number"),
        (TWO[:7], {"win_rate": {}}, LENGTH, "a.jsonl:4: 'base' .config.baseline. has 0 outputs for"),
        (outputs("m", "abcd"), {"factscore": {}}, {"claims__split": f"{HERE}:split_at_semicolons",
         "claims__verify": f"{HERE}:uncertain"}, "claims.verify: gave 0.7 for 'a'; a verifier must say"),
        (outputs("m", "abcd"), {"factscore": {}}, {"claims__split": f"{HERE}:not_a_list",
         "claims__verify": f"{HERE}:uncertain"}, "no record is left"),
        (TWO, {"win_rate": {}}, {"baseline": "base", "compare__judge": f"{HERE}:characters"},
         r"config.compare.judge: gave 4 for 'abcd'; must lie in \[0, 1\]"),
        ([{"prompt": "p"}], {"win_rate": {}}, {"functions": {"outcome": {"function": f"{HERE}:characters"}}},
         "a.jsonl:1: field 'output' is missing; config.functions needs it"),
        ([{**r, "reward": 1} for r in TWO], {"win_rate": {}}, LENGTH, "a.jsonl:1 already has a field of this name"),
    ],
)  # fmt: skip
def test_bad_input_is_named(tmp_path, records, metrics, settings, message):
    path = file(tmp_path / "a.jsonl", *records)
    with pytest.raises(ValueError, match=message):
        evaluate.run(config(path, metrics, **settings), tmp_path / "run")
