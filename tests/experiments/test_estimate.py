"""The estimate of a config before it runs, and the page of tables that the command prints."""

import re

import pytest
import tiny_runs

from alignment.training import costs
from configs import common, dpo, grpo, sft
from experiments import estimate

ONE = costs.HARDWARE["h100-1"]


def test_the_page_in_the_docs_is_what_the_command_prints():
    assert (tiny_runs.ROOT / "docs" / "scale.md").read_text() == estimate.page(), (
        "run python -m experiments.estimate --page=docs/scale.md"
    )


def test_the_page_has_both_sizes_on_both_machines_and_says_what_fits():
    text = estimate.page()
    for words in ("## 8B", "## 70B", "v5p-128 (64 chips)", "64 H100", "fits", "sent over fsdp", "logits not kept"):
        assert words in text


def test_work_is_read_off_each_kind_of_config():
    config = dpo.get_config()
    work, cache = estimate.work_of(config)
    assert (work.rows, work.columns, work.scored, work.frozen) == (32, 32 + 2 * 48, 2 * 48, 1) and cache == (0, 0)
    config.precompute_reference = True
    assert estimate.work_of(config)[0].frozen == 0
    work, _ = estimate.work_of(sft.get_config())
    assert work.columns == work.scored == 256 and work.frozen == 0
    config = grpo.get_config()
    work, cache = estimate.work_of(config)
    group = config.rollout.group_size
    assert work.columns == 32 + group * 16 and work.scored == group * 16 and cache == (16 * group, 32 + 16 - 1)


def test_what_does_not_fit_is_said():
    config = common.preference({"dpo": {"weight": 1.0, "beta": 0.1}})
    _, rows = estimate.estimate(config, ONE, "8b")
    assert "DOES NOT FIT" in dict(rows)["memory, together"]
    _, rows = estimate.estimate(config, ONE._replace(memory=1e15), "8b")
    assert dict(rows)["memory, together"].endswith(": fits")


def test_an_estimate_has_a_title_and_a_bound_and_refuses_what_cannot_be():
    config = dpo.get_config()
    title, rows = estimate.estimate(config, ONE, "")
    assert re.match(r"[\d,]+ parameters, 32 rows of 128 tokens \(96 scored\), 1 frozen", title)
    assert rows[-1][0] == "a step takes at least"
    with pytest.raises(ValueError, match="32 rows are not a multiple of 64"):
        estimate.estimate(config, costs.HARDWARE["v5p-128"], "")
    config.mesh.fsdp = 3
    with pytest.raises(ValueError, match=r"config\.mesh.*does not divide 1 device"):
        estimate.estimate(config, ONE, "")
    with pytest.raises(ValueError, match="--model=9b: not one of 8b, 70b"):
        estimate.estimate(dpo.get_config(), ONE, "9b")


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0 B"), (999, "999 B"), (1.5e9, "1.5 GB"), (2.3e15, "2.3 PB"), (2e-5, "20 µB")]
)
def test_amounts_are_written_with_a_prefix(value, text):
    assert estimate.amount(value, "B") == text


def test_a_kernel_under_another_name_is_the_one_that_is_estimated():
    config = dpo.get_config()
    config.objective = {"preferred": {"kernel": "dpo"}}
    assert estimate.work_of(config) == estimate.work_of(dpo.get_config())
