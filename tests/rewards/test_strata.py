"""Strata: what is counted."""

from alignment.rewards import strata


def test_tool_calls_are_opening_tags():
    text = "<think>?</think><search>a</search> then <tool_call>{}</tool_call><search>b</search> <searches>"
    assert strata.tool_calls("", text, {}) == 3
    assert strata.tool_calls("", "no <sear ch>", {}) == 0


def test_words_and_characters_leave_white_space_out():
    assert strata.number_of_words("", "  two words\n", {}) == 2
    assert strata.number_of_words("", " ", {}) == 0
    assert strata.number_of_characters("", " 12345. ", {}) == 6
