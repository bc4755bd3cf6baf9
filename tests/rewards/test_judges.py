"""Judges of all three kinds say True or False, and one that cannot say so raises."""

import json
import sys

import pytest

from alignment.rewards import judges
from alignment.rewards.runner import RewardRunner


def test_every_judge_must_be_satisfied_and_none_at_all_always_is():
    full_stop, digits = judges.ends_with_full_stop, judges.Matches("[0-9]")
    assert judges.all_satisfied([full_stop, digits], "p", "7.", {})
    assert not judges.all_satisfied([full_stop, digits], "p", "7", {})
    assert judges.all_satisfied([], "p", "anything", {})


@pytest.mark.parametrize("value", [None, 1, 0.7, "yes"])
def test_a_score_is_no_verdict(value):
    with pytest.raises(judges.JudgeError, match="must say True or False"):
        judges.all_satisfied([lambda *_: value], "p", "c", {})


def test_rules():
    assert judges.no_false_refusal("p", "Here it is.", {})
    assert not judges.no_false_refusal("p", "I'm sorry, but I can't help with that.", {})
    assert judges.no_false_refusal("p", "I cannot help with that.", {"harmful": True})
    assert judges.Lacks("secret")("p", "nothing", {}) and not judges.Lacks("secret")("p", "a secret", {})
    assert judges.answer_is_right("sort 21: ", "12.", {"task": "sorting", "answer": "12"})
    assert judges.digits_if_sorting("p", "12.", {"task": "sorting"})
    assert not judges.digits_if_sorting("p", "ab", {"task": "sorting"})
    assert judges.digits_if_sorting("p", "ab", {"task": "addition"}) and judges.digits_if_sorting("p", "ab", {})


def test_a_model_judge_is_asked_with_the_case_as_it_is():
    asked = []

    def complete(text):
        asked.append(text)
        return "Well. Verdict: no, it is not."

    judge = judges.ModelJudge(complete, "Is it polite?")
    assert not judge("say {completion}", "{prompt} {0}", {})
    assert "say {completion}" in asked[0] and "{prompt} {0}" in asked[0] and "Is it polite?" in asked[0]
    assert judges.ModelJudge(complete, "Is it rude?", satisfied="no")("p", "c", {})


@pytest.mark.parametrize("reply", ["maybe", "", "yesterday", None])
def test_a_model_that_gives_no_verdict_is_an_error(reply):
    with pytest.raises(judges.JudgeError):
        judges.ModelJudge(lambda _: reply, "?")("p", "c", {})


SCRIPT = (
    "import json, sys; case = json.load(sys.stdin); sys.exit(0 if case['record']['want'] in case['completion'] else {})"
)


def test_a_program_judges_by_its_exit_code():
    judge = judges.ProgramJudge((sys.executable, "-c", SCRIPT.format(1)), time_limit=60.0)
    assert judge("p", "it has x; $(rm -rf /)", {"want": "x"})
    assert not judge("p", "nothing", {"want": "x"})


@pytest.mark.parametrize(
    ("judge", "message"),
    [
        (judges.ProgramJudge((sys.executable, "-c", "import sys; sys.exit(3)"), 60.0), "exit code 3"),
        (judges.ProgramJudge((sys.executable, "-c", "import time; time.sleep(600)"), 0.5), "no verdict within 0.5 s"),
        (judges.ProgramJudge(("/no/such/program",)), "No such file"),
    ],
)
def test_a_program_that_fails_or_hangs_gives_no_verdict(judge, message):
    with pytest.raises(judges.JudgeError, match=message):
        judge("p", "c", {})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: judges.Matches("("), "is not a regular expression"),
        (lambda: judges.ProgramJudge("ls"), "command must be a sequence of words"),
        (lambda: judges.ProgramJudge(("ls",), 0.0), r"time_limit must lie in \(0, inf\)"),
        (lambda: judges.ModelJudge(str, "?", template="{prompt}"), "template must contain {completion}"),
        (lambda: judges.ModelJudge(str, "?", satisfied="maybe"), "satisfied must be 'yes' or 'no'"),
    ],
)
def test_a_judge_that_cannot_work_is_refused_when_it_is_made(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def failing(prompt, completion, record):
    raise judges.JudgeError("no opinion")


def test_in_a_run_a_judge_that_fails_is_not_satisfied_and_is_counted():
    with RewardRunner([failing, judges.ends_with_full_stop], on_failure=0.0) as runner:
        got = runner(["p", "p"], ["a.", "b"], [{}, {}])
    assert (got.by_function > 0.5).tolist() == [[False, True], [False, False]]
    assert got.report.failed == 2 and "no opinion" in str(got.report)


def test_json_of_odd_records_reaches_a_program():
    code = "import json, sys; sys.exit(int(json.load(sys.stdin)['record']['path'] != '/x'))"
    from pathlib import Path

    assert judges.ProgramJudge((sys.executable, "-c", code), 60.0)("p", "c", {"path": Path("/x")})
    assert json.dumps({"path": str(Path("/x"))})
