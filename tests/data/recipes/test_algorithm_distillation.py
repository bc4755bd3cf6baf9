"""The choices of UCB as records: each is what UCB does on the history that the prompt tells."""

import re

import jax
import numpy as np
import pytest

from alignment import games
from alignment.data import formats
from alignment.data.recipes import algorithm_distillation as recipe
from experiments import make_data

KEY = jax.random.key(0)


def test_every_completion_is_ucbs_choice_on_the_counts_that_its_prompt_tells():
    records, counts = recipe.records(KEY, bandits_number=4, arms=3, horizon=12, history="raw", rename=False)
    assert counts["records"] == len(records) == 48 and counts["bandits"] == 4
    assert 0 < counts["choices_of_the_best_arm"] < 48
    for record in records:
        told = re.findall(r"^(\w): (\d)$", record["prompt"], re.MULTILINE)
        pulls, sums = np.zeros(3, np.int32), np.zeros(3, np.float32)
        for name, reward in told:
            pulls["ABC".index(name)] += 1
            sums["ABC".index(name)] += float(reward)
        assert record["prompt"].endswith("Next button:")
        assert record["completion"] == " " + "ABC"[int(games.ucb_arm(KEY, pulls, sums))]


def test_what_is_learnt_is_the_arms_name_alone():
    records, _ = recipe.records(KEY, bandits_number=2, horizon=5)
    assert {r["completion"] for r in records} <= {" A", " B", " C"}
    assert len(formats.from_records(records, "completion")) == 10


def test_names_are_shuffled_between_bandits_so_that_the_first_pull_is_no_constant():
    renamed = [recipe.records(KEY, bandits_number=12, horizon=1, rename=r)[0] for r in (True, False)]
    assert len({r["completion"] for r in renamed[0]}) == 3 and {r["completion"] for r in renamed[1]} == {" A"}


def test_seeds_repeat_and_scenes_are_told():
    first, again, other = (recipe.records(jax.random.key(s), bandits_number=2, horizon=9)[0] for s in (3, 3, 4))
    assert first == again != other
    told = recipe.records(KEY, bandits_number=1, scene="videos", history="guided", story=True)[0][0]
    assert "video A" in told["prompt"] and "bonus inf" in told["prompt"] and told["completion"].startswith(" video ")


@pytest.mark.parametrize(
    "options,words",
    [({"bandits_number": 0}, "bandits_number"), ({"history": "none"}, "history must be one of"), ({"arms": 1}, "arms")],
)
def test_what_is_wrong_is_said(options, words):
    with pytest.raises(ValueError, match=words):
        recipe.records(KEY, **{"bandits_number": 1, **options})


def test_the_script_writes_what_fine_tuning_reads(tmp_path):
    output = tmp_path / "ucb.jsonl"
    counts = make_data.run(["algorithm_distillation", f"--output={output}", "--bandits=2", "--horizon=4"])
    examples = formats.read(output, "completion")
    assert len(examples) == counts["records"] == 8
    # What configs/evolve_algorithm_distillation.py leaves room for.
    longest = recipe.records(KEY, bandits_number=64)[0]
    assert max(len(r["prompt"].encode()) for r in longest) < 96
