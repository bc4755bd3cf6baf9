"""What config.data.corruption and config.data.curriculum may name, and what is said of what they may not."""

import json

import pytest
import tiny_runs
from ml_collections import ConfigDict

from configs import common
from experiments import from_config, training_data


def loaded(**keys):
    config = tiny_runs.shrink(common.sft())
    for key, value in keys.items():
        config.data[key] = ConfigDict(value) if isinstance(value, dict) else value
    return config, from_config.load_data(config)


@pytest.mark.parametrize(
    "settings,message",
    [
        ({"masked_thoughts": {}}, r"corruption.masked_thoughts: no such entry; nearest: masked_thought"),
        (
            {"masked_thought": {"mask_id": 259, "rate": 0.1}},
            r"masked_thought.rate: unknown key; allowed: mask_id",
        ),
        ({"masked_thought": {}}, r"corruption.masked_thought: .*mask_id"),
        ({"masked_thought": {"mask_id": 320}}, r"masked_thought.mask_id: must lie in \[0, 320\), got 320"),
        ({"masked_thought": {"mask_id": 259, "share": 2.0}}, r"masked_thought: share must lie in \[0, 1\], got 2.0"),
        ({"climb_vocabulary": {"unk_id": 260, "ranks": 3}}, r"climb_vocabulary.ranks: unknown key"),
        ({"masked_thought": {}, "climb_vocabulary": {}}, "one at a time, got climb_vocabulary and masked_thought"),
    ],
)
def test_what_is_wrong_with_a_corruption_is_said_before_anything_runs(settings, message):
    with pytest.raises(ValueError, match=message):
        training_data.corruptions(*loaded(corruption=settings))


def test_a_corruption_names_the_columns_it_adds():
    assert training_data.corruptions(*loaded()) == (None, None, ())
    clean = training_data.corruptions(*loaded(corruption={"masked_thought": {"mask_id": 259}}))
    assert clean.evaluation is None and clean.columns == ()
    replaced = training_data.corruptions(*loaded(corruption={"random_substitution": {"vocabulary": 256}}))
    assert replaced.evaluation is replaced.training and replaced.columns == ("trained_mask",)


@pytest.mark.parametrize(
    "settings,message",
    [
        ({"climbing": {}}, "curriculum.climbing: no such entry; nearest: climb"),
        ({"climb": {"pacing": "sqrt"}}, r"curriculum.climb: pacing='sqrt' is not one of linear"),
        ({"climb": {"seed": 1}}, "curriculum.climb.seed: unknown key; allowed: end, highest"),
        ({"mccl": {}}, "curriculum.mccl: losses of a model that has been trained are needed"),
    ],
)
def test_what_is_wrong_with_a_curriculum_is_said(settings, message):
    config, data = loaded(curriculum=settings, packed=False)
    with pytest.raises(ValueError, match=message):
        training_data.order(config, data, None, None, None, {})


def test_packed_rows_have_no_order_of_difficulty():
    config, data = loaded(curriculum={"climb": {}})
    with pytest.raises(ValueError, match="packed rows hold easy and difficult examples alike"):
        training_data.order(config, data, None, None, None, {})


def test_conversations_that_end_in_two_ways_are_pairs(tmp_path):
    user, ends = [{"role": "user", "content": "go?"}], ("yes", "no")
    sides = {k: [{"role": "assistant", "content": x}] for k, x in zip(("chosen", "rejected"), ends, strict=True)}
    path = tmp_path / "chat.jsonl"
    path.write_text(json.dumps({"prompt": user} | sides) + "\n")
    _, data = loaded(source=str(path), kind="chat", packed=False)
    assert data.sides == ("chosen", "rejected") and len(data.train[0].completions) == 2
