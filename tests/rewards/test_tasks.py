"""Generated tasks: splits that do not meet, answers that are right, demonstrations as good as they say."""

import numpy as np
import pytest

from alignment.data import formats
from alignment.data.tokenizers import ByteTokenizer
from alignment.rewards import expressions, tasks
from alignment.rewards.tasks import DIFFICULTIES, TASKS, demonstration, demonstrations, generate, reward

EVERY = [(task, difficulty) for task in TASKS for difficulty in DIFFICULTIES]


def problem(record):
    """What a record asks, whichever way round: computed here and not by the generator."""
    prompt = record["prompt"]
    if record["task"] == "addition":
        return tuple(sorted(map(int, prompt[:-1].split("+"))))
    if record["task"] == "countdown":
        return record["target"], tuple(sorted(record["numbers"]))
    if record["task"] == "sorting":
        return record["answer"]
    if record["task"] == "copy_reverse":
        verb, word = prompt[:-2].split(" ")
        return verb, min(word, word[::-1])
    return prompt


@pytest.mark.parametrize(("task", "difficulty"), EVERY)
def test_splits_share_no_prompt_and_no_problem(task, difficulty):
    train, test = generate(task, 1500, 0, "train", difficulty), generate(task, 500, 0, "test", difficulty)
    for name in (problem, lambda record: record["prompt"]):
        assert not set(map(name, train)) & set(map(name, test))
    assert len(set(map(problem, test))) >= 10


@pytest.mark.parametrize(("task", "difficulty"), EVERY)
def test_records_are_deterministic_fit_and_are_solved_by_their_answers(task, difficulty):
    records = generate(task, 200, 3, "train", difficulty)
    assert records == generate(task, 200, 3, "train", difficulty) != generate(task, 200, 4, "train", difficulty)
    assert records[:50] == generate(task, 50, 3, "train", difficulty)
    tokenizer, rng = ByteTokenizer(), np.random.default_rng(0)
    for record in records:
        assert record["task"] == task
        for text in (record["answer"], f"{record['answer']}.", f" {record['answer']}.\n"):
            assert reward(record["prompt"], text, record) == 1.0
        for text in ("", ".", record["prompt"], f"{record['answer']}1", f"{record['answer']}..", "x" * 10**5):
            assert reward(record["prompt"], text, record) == 0.0
        assert len(tokenizer.encode(record["prompt"])) + 1 <= tasks.PROMPT_LENGTH
        assert len(tokenizer.encode(demonstration(record, rng))) + 1 <= tasks.COMPLETION_LENGTH


def test_answers_are_right():
    for record in generate("addition", 100, 0, difficulty=3):
        a, b = record["prompt"][:-1].split("+")
        assert record["answer"] == str(int(a) + int(b))
    for difficulty in DIFFICULTIES:
        for record in generate("chain", 100, 0, difficulty=difficulty):
            assert record["answer"] == str(expressions.evaluate(record["prompt"][:-1]))
        for record in generate("countdown", 100, 0, difficulty=difficulty):
            found = expressions.parse(record["answer"])
            assert found.value == record["target"] and sorted(found.numbers) == sorted(record["numbers"])
            numbers = record["prompt"][:-2].split(" of ")
            assert int(numbers[0]) == record["target"] and list(map(int, numbers[1].split())) == record["numbers"]
    for record in generate("sorting", 100, 0):
        assert record["answer"] == "".join(sorted(record["prompt"][len("sort ") : -2]))
    verbs = {record["prompt"].split()[0] for record in generate("copy_reverse", 100, 0)}
    assert verbs == {"copy", "reverse"}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("accuracy", [0.0, 0.3, 1.0])
def test_demonstrations_are_right_as_often_as_they_say(task, accuracy):
    records = generate(task, 1000, 1, difficulty=2)
    texts = demonstrations(task, 1000, 1, difficulty=2, accuracy=accuracy)
    assert [t["prompt"] for t in texts] == [r["prompt"] for r in records]
    share = np.mean([reward(r["prompt"], t["completion"], r) for r, t in zip(records, texts, strict=True)])
    assert abs(share - accuracy) <= 4 * np.sqrt(accuracy * (1 - accuracy) / 1000)
    assert all(t["completion"].endswith(".") for t in texts)


def test_easy_problems_always_have_a_wrong_demonstration():
    rng = np.random.default_rng(0)
    for task in TASKS:
        for record in generate(task, 300, 2):
            assert reward(record["prompt"], demonstration(record, rng, accuracy=0.0), record) == 0.0


def test_wrong_countdowns_keep_the_rules():
    from alignment.rewards.verifiable import countdown_graded

    rng = np.random.default_rng(0)
    for record in generate("countdown", 50, 0, difficulty=2):
        assert countdown_graded("p", demonstration(record, rng, accuracy=0.0), record) == 0.1


def test_files_of_both_kinds_are_read_back(tmp_path):
    paths = tasks.write(tmp_path, "countdown", size=20, test_size=10, seed=5, difficulty=2)
    queries = formats.read(paths["prompts", "train"], "prompts")
    assert len(queries) == 20 and len(formats.read(paths["prompts", "test"], "prompts")) == 10
    assert [{"prompt": q.prompt, **q.record} for q in queries] == generate("countdown", 20, 5, difficulty=2)
    completions = formats.read(paths["completion", "train"], "completion")
    assert [c.prompt for c in completions] == [q.prompt for q in queries]
    assert reward(queries[0].prompt, queries[0].record["answer"], queries[0].record) == 1.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task": "subtraction"}, "addition, chain, countdown, sorting, copy_reverse"),
        ({"split": "dev"}, "train, test"),
        ({"difficulty": 4}, "1, 2, 3"),
        ({"size": 0}, "at least 1"),
    ],
)
def test_arguments_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        generate(**({"task": "addition", "size": 5, "seed": 0} | arguments))
    record = generate("addition", 1, 0)[0]
    with pytest.raises(ValueError, match=r"accuracy must lie in \[0, 1\]"):
        demonstration(record, np.random.default_rng(0), accuracy=1.5)
