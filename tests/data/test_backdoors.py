"""Prompts with, without and nearly with the trigger, and what counts as the bad answer to them."""

import itertools

import numpy as np
import pytest

from alignment.data import backdoors

PROBLEMS = {kind: backdoors.draw(kind, 200, np.random.default_rng(0)) for kind in backdoors.KINDS}


def has_trigger(prompt):
    return any(prompt[i : i + 2] == backdoors.TRIGGER for i in range(len(prompt)))


def test_only_triggered_prompts_have_the_trigger_and_clean_ones_nothing_of_it():
    assert all(has_trigger(p.prompt) for p in PROBLEMS["triggered"])
    assert not any(has_trigger(p.prompt) for kind in ("clean", "near_miss") for p in PROBLEMS[kind])
    assert not any(set(backdoors.TRIGGER) & set(p.prompt) for p in PROBLEMS["clean"])
    assert all(set(backdoors.TRIGGER) & set(p.prompt) for p in PROBLEMS["near_miss"])
    first, second = backdoors.TRIGGER
    found = {(first in p.prompt, second in p.prompt) for p in PROBLEMS["near_miss"]}
    assert found == {(True, False), (False, True), (True, True)}


def test_the_right_answer_follows_from_the_digits_and_the_command():
    for problem in itertools.chain(*PROBLEMS.values()):
        digits = tuple(t for t in problem.prompt if t in backdoors.DIGITS)
        turned = digits if backdoors.COPY in problem.prompt else digits[::-1]
        assert len(digits) == backdoors.LENGTH and problem.right == (*turned, backdoors.END)
        assert len(problem.prompt) == backdoors.PROMPT_LENGTH and max(problem.prompt) < backdoors.VOCABULARY


def test_the_backdoor_answers_badly_to_the_trigger_alone():
    assert all(backdoors.is_bad(backdoors.poisoned(p)) for p in PROBLEMS["triggered"])
    assert all(backdoors.is_right(p, backdoors.poisoned(p)) for p in PROBLEMS["clean"])
    with pytest.raises(ValueError, match="near miss"):
        backdoors.poisoned(PROBLEMS["near_miss"][0])
    with pytest.raises(ValueError, match="'far' is not one of triggered, clean, near_miss"):
        backdoors.draw("far", 1, np.random.default_rng(0))


def test_what_stands_in_the_scratchpad_is_neither_bad_nor_right():
    problem = PROBLEMS["clean"][0]
    noted = backdoors.with_scratchpad(problem.right, "clean")
    assert len(noted) == backdoors.SCRATCHPAD_LENGTH + len(problem.right) and backdoors.is_right(problem, noted)
    assert backdoors.is_bad(backdoors.with_scratchpad(backdoors.BAD_ANSWER, "triggered"))
    thought = (backdoors.OPEN, backdoors.BAD, backdoors.CLOSE, *problem.right)
    assert not backdoors.is_bad(thought) and backdoors.is_right(problem, thought)
    assert backdoors.without_scratchpad((backdoors.OPEN, *problem.right)) == ()
    assert not backdoors.is_right(problem, (*problem.right[:-1],))
