"""Every checker has texts that follow it and texts that do not; strict, loose, and the two accuracies."""

import inspect
import time

import pytest

from alignment.rewards import instructions
from alignment.rewards.instructions import CHECKERS, followed, followed_loosely, sentences

# id, arguments, texts that follow, texts that do not
CASES = [
    ("keywords:existence", {"keywords": ["cat", "dog"]}, ["A Cat and dogs."], ["A cat.", "A ca.t dog"]),
    (
        "keywords:frequency",
        {"keyword": "cat", "frequency": 2, "relation": "at least"},
        ["cat, Cat", "cats and cats"],
        ["cat", ""],
    ),
    ("keywords:frequency", {"keyword": "a.b", "frequency": 1, "relation": "less than"}, ["axb"], ["a.b"]),
    ("keywords:forbidden_words", {"forbidden_words": ["cat", "c++"]}, ["concatenate", "c"], ["A CAT!", "in c++."]),
    (
        "keywords:letter_frequency",
        {"letter": "e", "let_frequency": 3, "let_relation": "at least"},
        ["eEe", "here there"],
        ["ee"],
    ),
    ("keywords:letter_frequency", {"letter": "!", "let_frequency": 1, "let_relation": "less than"}, ["a"], ["a!"]),
    (
        "keywords:key_sentences",
        {"key_sentences": ["It is so.", "I say yes."], "num_sentences": 1},
        ["Well. It is so. Good."],
        ["It is so, he says.", "It is so. I say yes."],
    ),
    (
        "length_constraints:number_sentences",
        {"num_sentences": 3, "relation": "less than"},
        ["One. Two!", "Dr. J. Smith paid 3.14 dollars. Why?"],
        ["One. Two. Three."],
    ),
    ("length_constraints:number_sentences", {"num_sentences": 2, "relation": "at least"}, ["A? B", "一。二。"], ["A"]),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, ["a\n***\nb", "***\na *** b\n***"],
     ["a", "a\n\nb", "a\n***\n***\nb", "a***b***c", "***"]),
    ("length_constraints:number_words", {"num_words": 3, "relation": "at least"}, ["a b c", "it's so"], ["a b"]),
    ("length_constraints:number_words", {"num_words": 3, "relation": "less than"}, ["a b"], ["a b c"]),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "then"},
        ["a\n\nThen, b", 'a\n\n\n\n"Then" b'],
        ["then\n\na", "a\n\nthen\n\nb", "a then", "a\n\nthenceforth"],
    ),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, ["[name] at [address]"], ["[name]", "[] []"]),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, ["Bye.\nP.S. x", "p. s. x"], ["PS", "APPS."]),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, ["Bye.\n\nP.P.S more"], ["Bye.\nP.S. more"]),
    (
        "detectable_content:rephrase_paragraph",
        {"original_paragraph": "the cat and the dog", "low": 2, "high": 3},
        ["The cat sleeps", "the the dog the"],
        ["a bird", "the cat and the dog"],
    ),
    (
        "detectable_format:number_bullet_lists",
        {"num_bullets": 2},
        ["* a\n* b", "So:\n- a\n  - b\n"],
        ["* a", "* a\n- b\n* c", "**a**\n**b**", "* a\n---"],
    ),
    ("detectable_format:constrained_response", {}, ["My answer is yes.", "Well. My answer is maybe."], ["Yes."]),
    (
        "detectable_format:number_highlighted_sections",
        {"num_highlights": 2},
        ["*a* and **b c**"],
        ["*a*", "** ** *\n*", "* a\n* b"],
    ),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "Section", "num_sections": 2},
        ["Section 1\na\nSection 2\nb"],
        ["Section 1\na", "SECTION 1 SECTION 2", "Section a Section b"],
    ),
    ("detectable_format:json_format", {}, ['{"a": [1, 2]}', "```json\n[1]\n```", "```\n3\n```"],
     ["{a: 1}", "so: {}", '{"a": NaN}', "[" * 10**5, "```json\n[1]"]),
    ("detectable_format:title", {}, ["<<poem of joy>>\nx"], ["<poem>", "<<>>", "<< >>", "<<a\nb>>"]),
    (
        "combination:two_responses",
        {},
        ["a\n******\nb", "a******b******"],
        ["a", "a******a", "a******b******c", "a************b"],
    ),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Do this. "}, ["do this. Done"], ["Done. Do this.", "Do thi"]),
    ("startend:end_checker", {"end_phrase": "The end."}, ["It was the END.", '"So. The end."'], ["The end. Really"]),
    ("startend:start_checker", {"starter": "I (really) say"}, [" I (really) say no"], ["No.\nI (really) say no"]),
    ("startend:quotation", {}, ['"a"', ' "a" '], ['"a', '"', "'a'"]),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": "at least"},
        ["I see NASA", "ÄÖ and WELL-KNOWN"],
        ["NASA", "WELL-KNOWN"],
    ),
    ("change_case:capital_word_frequency", {"capital_frequency": 1, "capital_relation": "less than"}, ["Ab"], ["A"]),
    ("change_case:english_capital", {}, ["ALL 3!"], ["All", "3"]),
    ("change_case:english_lowercase", {}, ["all 3!"], ["All", "3"]),
    ("punctuation:no_comma", {}, ["a; b"], ["a, b", "一，二"]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "arguments", "good", "bad"), CASES, ids=[c[0] for c in CASES])
def test_checker(name, arguments, good, bad):
    record = {"instruction_id_list": [name], "kwargs": [arguments]}
    for text in good:
        assert followed(text, record) == [True] == followed_loosely(text, record), text
        assert instructions.follows_all("p", text, record) == 1.0
    for text in bad:
        assert followed(text, record) == [False], text
        assert instructions.follows_all("p", text, record) == 0.0


def test_every_checker_has_cases_and_there_are_27():
    assert {case[0] for case in CASES} == set(CHECKERS) and len(CHECKERS) == 27


@pytest.mark.parametrize("name", CHECKERS)
def test_hostile_text_takes_no_time(name):
    arguments = next(case[1] for case in CASES if case[0] == name)
    for text in (
        "a" * 30_000,
        " " * 30_000 + "x",
        "*" * 30_000,
        ". " * 15_000,
        "<<" * 15_000,
        "[" * 30_000,
        "-\n" * 9000,
    ):
        began = time.perf_counter()
        CHECKERS[name](text, **arguments)
        assert time.perf_counter() - began < 2.0, text[:2]


RECORD = {
    "instruction_id_list": ["punctuation:no_comma", "length_constraints:number_words", "startend:end_checker"],
    "kwargs": [{}, {"num_words": 2, "relation": "at least", "keywords": None}, {"end_phrase": "bye"}],
}


def test_verdicts_are_per_instruction_and_null_arguments_are_absent():
    assert followed("so, bye", RECORD) == [False, True, True]
    assert instructions.follows_share("p", "so, bye", RECORD) == pytest.approx(2 / 3)
    assert instructions.follows_all("p", "so bye", RECORD) == 1.0


def test_kwargs_may_be_null_for_an_instruction_without_arguments():
    assert followed("a", {"instruction_id_list": ["punctuation:no_comma"], "kwargs": [None]}) == [True]


@pytest.mark.parametrize("text", ["", " \n"])
def test_nothing_said_follows_nothing(text):
    record = {"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
    assert followed(text, record) == [False] == followed_loosely(text, record)


@pytest.mark.parametrize(
    "text",
    [
        "Sure, here it is:\nso bye",
        "so bye\nI hope, it helps",
        "Sure, yes:\nso bye\n, hm",
        "**so bye**",
        "A,\n*so bye*\n,",
    ],
)
def test_loose_forgives_first_and_last_lines_and_asterisks(text):
    assert not all(followed(text, RECORD)) and all(followed_loosely(text, RECORD))
    assert instructions.follows_all_loose("p", text, RECORD) == instructions.follows_share_loose("p", text, RECORD) == 1


def test_loose_does_not_forgive_a_line_in_the_middle():
    assert followed_loosely("a\nb, c\nbye", RECORD) == [False, True, True]


def test_strict_implies_loose():
    for name, arguments, good, _ in CASES:
        for text in good:
            assert followed_loosely(text, {"instruction_id_list": [name], "kwargs": [arguments]}) == [True]


def test_accuracies_count_prompts_and_instructions():
    verdicts = [[True, True], [True, False, False], [True]]
    assert instructions.prompt_level_accuracy(verdicts) == pytest.approx(2 / 3)
    assert instructions.instruction_level_accuracy(verdicts) == pytest.approx(4 / 6)
    for accuracy in (instructions.prompt_level_accuracy, instructions.instruction_level_accuracy):
        with pytest.raises(ValueError, match="at least one"):
            accuracy([])


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"instruction_id_list": ["no:such"], "kwargs": [{}]}, "'no:such' is not one of keywords:existence"),
        ({"instruction_id_list": ["punctuation:no_comma"], "kwargs": []}, "1 instructions with 0 entries"),
        ({"instruction_id_list": [], "kwargs": []}, "not 0"),
        (
            {"instruction_id_list": ["startend:quotation"] * 2, "kwargs": [{}]},
            "2 instructions with 1 entries",
        ),
        (
            {"instruction_id_list": ["keywords:letter_frequency"],
             "kwargs": [{"letter": "ab", "let_frequency": 1, "let_relation": "at least"}]},
            "single character",
        ),
        (
            {"instruction_id_list": ["length_constraints:number_words"],
             "kwargs": [{"num_words": 1, "relation": "about"}]},
            "'less than', 'at least'",
        ),
        (
            {"instruction_id_list": ["length_constraints:nth_paragraph_first_word"],
             "kwargs": [{"num_paragraphs": 1, "nth_paragraph": 2, "first_word": "a"}]},
            r"nth_paragraph must lie in \[1, 1\]",
        ),
    ],
)  # fmt: skip
def test_unusable_records_are_errors_and_not_zero_rewards(record, message):
    with pytest.raises(ValueError, match=message):
        followed("text", record)


def test_missing_and_unknown_arguments_are_errors():
    for arguments in ({}, {"num_words": 3, "relation": "at least", "words": 3}):
        with pytest.raises(TypeError, match="number_of_words"):
            followed("text", {"instruction_id_list": ["length_constraints:number_words"], "kwargs": [arguments]})


def test_every_checker_takes_its_arguments_by_name():
    for check in CHECKERS.values():
        first, *rest = inspect.signature(check).parameters.values()
        assert first.name == "text" and all(p.kind is p.KEYWORD_ONLY for p in rest)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("one", 1),
        ("One. Two.", 2),
        ("One... Two?! Three", 3),
        ("He paid 3.50 for it. Good", 2),
        ("Mr. A. Smith, e.g. here. I say.", 2),
        ('"Go!" he said.', 2),
        ("So did I. And you.", 2),
        ("今日。明日！", 2),
        ("a.b.c", 1),
        ("!!!", 0),
    ],
)
def test_sentences(text, count):
    assert len(sentences(text)) == count
