"""Instructions that a program can check, in the manner of IFEval, as rewards and as the benchmark's accuracies.

A record has `instruction_id_list` and, for each instruction, its arguments in `kwargs` (a list of dicts), as the
published prompts have; an argument that is null counts as absent. `CHECKERS` maps an id to a function
`check(response, **arguments) -> bool`. Strict looks at the response as it is. Loose is satisfied if one of eight
versions of it is: with and without its first line, its last line, and asterisks (an opening "Sure, here it is:" and
Markdown are the usual harmless faults).

Paper: Zhou et al., 2023 (Instruction-Following Evaluation for Large Language Models), arXiv 2311.07911. All ids of its
prompts are here but `language:response_language` (it wants a language detector), and three more. Against its code:
missing arguments are an error here and are not drawn at random; keywords and openings are plain text, never
regular expressions; sentences and words are found by the rules below instead of NLTK; `english_capital` and
`english_lowercase` look at the case and not at the language.
"""

import collections
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Record = Mapping[str, Any]


# Rewards -------------------------------------------------------------------------------------------------------------


def follows_all(prompt: str, completion: str, record: Record) -> float:
    """1 if every instruction is followed, strictly."""
    return float(all(followed(completion, record)))


def follows_all_loose(prompt: str, completion: str, record: Record) -> float:
    """1 if every instruction is followed, loosely."""
    return float(all(followed_loosely(completion, record)))


def follows_share(prompt: str, completion: str, record: Record) -> float:
    """The share of the instructions that are followed, strictly: denser than `follows_all`."""
    return float(np.mean(followed(completion, record)))


def follows_share_loose(prompt: str, completion: str, record: Record) -> float:
    """The share of the instructions that are followed, loosely."""
    return float(np.mean(followed_loosely(completion, record)))


def followed(response: str, record: Record) -> list[bool]:
    """Whether each instruction of the record is followed strictly; an empty response follows none."""
    return [_follows([response], check, arguments) for check, arguments in _instructions(record)]


def followed_loosely(response: str, record: Record) -> list[bool]:
    """Whether each instruction is followed by one of the eight versions (not necessarily the same one for all)."""
    lines = response.split("\n")
    versions = [response] + ["\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1])]
    versions += [version.replace("*", "") for version in versions]
    return [_follows(versions, check, arguments) for check, arguments in _instructions(record)]


def prompt_level_accuracy(verdicts: Sequence[Sequence[bool]]) -> float:
    """The share of prompts all of whose instructions are followed; `verdicts` has one list per prompt."""
    if not verdicts:
        raise ValueError("an accuracy needs at least one prompt")
    return float(np.mean([all(verdict) for verdict in verdicts]))


def instruction_level_accuracy(verdicts: Sequence[Sequence[bool]]) -> float:
    """The share of instructions that are followed, whichever prompt they belong to."""
    flat = [one for verdict in verdicts for one in verdict]
    if not flat:
        raise ValueError("an accuracy needs at least one instruction")
    return float(np.mean(flat))


def _follows(versions: Sequence[str], check: Callable[..., bool], arguments: Mapping[str, Any]) -> bool:
    return any(version.strip() and check(version, **arguments) for version in versions)


def _instructions(record: Record) -> list[tuple[Callable[..., bool], dict[str, Any]]]:
    names, arguments = record["instruction_id_list"], record["kwargs"]
    if not names or len(names) != len(arguments):
        raise ValueError(f"{len(names)} instructions with {len(arguments)} entries of kwargs; must be equal and not 0")
    for name in names:
        if name not in CHECKERS:
            raise ValueError(f"instruction {name!r} is not one of {', '.join(CHECKERS)}")
    return [
        (CHECKERS[name], {key: value for key, value in (given or {}).items() if value is not None})
        for name, given in zip(names, arguments, strict=True)
    ]


# Counting ------------------------------------------------------------------------------------------------------------

_ABBREVIATIONS = frozenset(
    ["mr", "mrs", "ms", "dr", "prof", "st", "sr", "jr", "vs", "etc", "fig", "no", "inc", "ltd", "co", "e.g", "i.e"]
)
_SENTENCE_END = re.compile(r"[.!?…]+[\"'”’)\]]*(?=\s|$)|[。！？]+[」』”’]*")


def sentences(text: str) -> list[str]:
    """Sentences end with . ! ? (before a blank) or their CJK forms; a rest without an end mark is one too.

    No sentence ends after an abbreviation of a short list or a single initial ("J. Smith"), nor inside "3.14".
    """
    found, start = [], 0
    for match in _SENTENCE_END.finditer(text):
        if match[0] == ".":
            word = re.search(r"[\w.]*\Z", text[max(start, match.start() - 20) : match.start()])[0].lower()
            initial = len(word) == 1 and word.isalpha() and text[match.start() - 1].isupper() and word != "i"
            if word in _ABBREVIATIONS or initial:
                continue
        found.append(text[start : match.end()].strip())
        start = match.end()
    found.append(text[start:].strip())
    return [sentence for sentence in found if re.search(r"\w", sentence)]


def words(text: str) -> list[str]:
    """Runs of letters, digits and underscores."""
    return re.findall(r"\w+", text)


def _compare(count: int, relation: str, threshold: int) -> bool:
    if relation == "less than":
        return count < threshold
    if relation == "at least":
        return count >= threshold
    raise ValueError(f"{relation=} is not one of 'less than', 'at least'")


def _occurrences(text: str, phrase: str) -> int:
    return len(re.findall(re.escape(phrase.strip()), text, flags=re.IGNORECASE))


# Checkers ------------------------------------------------------------------------------------------------------------


def keywords_present(text: str, *, keywords: Sequence[str]) -> bool:
    """Each keyword occurs, in any case, also inside a longer word."""
    return all(_occurrences(text, keyword) for keyword in keywords)


def keyword_frequency(text: str, *, keyword: str, frequency: int, relation: str) -> bool:
    return _compare(_occurrences(text, keyword), relation, frequency)


def words_absent(text: str, *, forbidden_words: Sequence[str]) -> bool:
    """No forbidden word occurs as a word of its own, in any case."""
    return not any(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE) for word in forbidden_words)


def letter_frequency(text: str, *, letter: str, let_frequency: int, let_relation: str) -> bool:
    if len(letter) != 1:
        raise ValueError(f"{letter=} must be a single character")
    return _compare(text.lower().count(letter.lower()), let_relation, let_frequency)


def number_of_sentences(text: str, *, num_sentences: int, relation: str) -> bool:
    return _compare(len(sentences(text)), relation, num_sentences)


def number_of_words(text: str, *, num_words: int, relation: str) -> bool:
    return _compare(len(words(text)), relation, num_words)


def number_of_paragraphs(text: str, *, num_paragraphs: int) -> bool:
    """Exactly so many paragraphs with the Markdown divider *** between them; none of them may be empty."""
    paragraphs = [part.strip() for part in text.split("***")]
    # A divider before the first or after the last paragraph separates nothing.
    paragraphs = paragraphs[not paragraphs[0] :]
    paragraphs = paragraphs[: len(paragraphs) - (bool(paragraphs) and not paragraphs[-1])]
    return all(paragraphs) and len(paragraphs) == num_paragraphs


def paragraph_first_word(text: str, *, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    """Exactly so many paragraphs with an empty line between them, and the n-th (from 1) begins with the word."""
    if not 1 <= nth_paragraph <= num_paragraphs:
        raise ValueError(f"nth_paragraph must lie in [1, {num_paragraphs}], got {nth_paragraph}")
    paragraphs = [part.strip() for part in text.split("\n\n") if part.strip()]
    if len(paragraphs) != num_paragraphs:
        return False
    first = re.match(r"\W*([^\s.,?!'\"]*)", paragraphs[nth_paragraph - 1])
    return first[1].lower() == first_word.strip().lower()


def placeholders(text: str, *, num_placeholders: int) -> bool:
    """At least so many placeholders in square brackets, such as [address]."""
    return len(re.findall(r"\[[^\[\]\n]+\]", text)) >= num_placeholders


def postscript(text: str, *, postscript_marker: str) -> bool:
    """The marker ("P.S.", "P.P.S", ...) occurs, in any case, with or without blanks after its full stops."""
    marker = r"\s?".join(re.escape(character) for character in postscript_marker.strip() if not character.isspace())
    return re.search(rf"(?<![\w.]){marker}", text, re.IGNORECASE) is not None


def bullet_list(text: str, *, num_bullets: int) -> bool:
    """Exactly so many lines that begin with one asterisk or a hyphen; "**bold" and a rule such as --- are none."""
    bullets = re.findall(r"^[ \t]*(?:\*(?!\*)|-(?!-))[^\n]*\S", text, flags=re.MULTILINE)
    return len(bullets) == num_bullets


OPTIONS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")


def constrained_response(text: str) -> bool:
    """One of the three fixed answers (`OPTIONS`) occurs."""
    return any(option in text for option in OPTIONS)


def highlighted_sections(text: str, *, num_highlights: int) -> bool:
    """At least so many *highlighted* or **highlighted** stretches within a line."""
    return len(re.findall(r"(\*{1,2})(?=[^*\n]*[^*\s])[^*\n]+\1", text)) >= num_highlights


def multiple_sections(text: str, *, section_spliter: str, num_sections: int) -> bool:
    """At least so many headings of the splitter's word and a number, such as "Section 1" (the id's own spelling)."""
    return len(re.findall(rf"{re.escape(section_spliter.strip())}\s?[0-9]+", text)) >= num_sections


def json_format(text: str) -> bool:
    """The whole response is JSON, perhaps in Markdown's triple backticks. NaN and Infinity are not JSON."""

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    match = re.fullmatch(r"```(?:json)?(.*)```", text.strip(), flags=re.DOTALL | re.IGNORECASE)
    try:
        json.loads(match[1] if match else text, parse_constant=refuse)
    except (ValueError, RecursionError):
        return False
    return True


def title(text: str) -> bool:
    """A title in double angular brackets, such as <<poem of joy>>."""
    return re.search(r"<<[^<>\n]*[^<>\s][^<>\n]*>>", text) is not None


def two_responses(text: str) -> bool:
    """Two different responses with six asterisks between them, and no more."""
    parts = [part.strip() for part in text.split("******")]
    inner = parts[not parts[0] : len(parts) - (not parts[-1])]
    return len(inner) == 2 and all(inner) and inner[0] != inner[1]


def repeat_prompt(text: str, *, prompt_to_repeat: str) -> bool:
    """The response begins with the prompt to repeat, in any case."""
    return text.strip().lower().startswith(prompt_to_repeat.strip().lower())


def ends_with(text: str, *, end_phrase: str) -> bool:
    """The response ends with the phrase, in any case; quotation marks around the response are no part of it."""
    return text.strip().strip('"').lower().endswith(end_phrase.strip().lower())


def starts_with(text: str, *, starter: str) -> bool:
    """The response begins with the phrase (the paper's code asks this of any of its lines)."""
    return text.strip().startswith(starter.strip())


def quotation(text: str) -> bool:
    """The whole response stands in double quotation marks."""
    text = text.strip()
    return len(text) > 1 and text[0] == text[-1] == '"'


def all_capital(text: str) -> bool:
    return text.isupper()


def all_lowercase(text: str) -> bool:
    return text.islower()


def capital_word_frequency(text: str, *, capital_frequency: int, capital_relation: str) -> bool:
    """Words in capitals throughout; hyphenated words count as one."""
    found = [word for word in re.findall(r"\w+(?:[-'’]\w+)*", text) if word.isupper()]
    return _compare(len(found), capital_relation, capital_frequency)


def no_comma(text: str) -> bool:
    """No comma of any script."""
    return not re.search("[,，、،]", text)


def key_sentences(text: str, *, key_sentences: Sequence[str], num_sentences: int) -> bool:
    """Exactly so many of the given sentences occur as sentences of the response."""
    found = set(sentences(text))
    return sum(sentence.strip() in found for sentence in key_sentences) == num_sentences


def words_in_common(text: str, *, original_paragraph: str, low: int, high: int) -> bool:
    """Between low and high words (with multiplicity, in any case) are shared with the original paragraph."""
    counts = [collections.Counter(words(one.lower())) for one in (text, original_paragraph)]
    return low <= (counts[0] & counts[1]).total() <= high


CHECKERS: dict[str, Callable[..., bool]] = {
    "keywords:existence": keywords_present,
    "keywords:frequency": keyword_frequency,
    "keywords:forbidden_words": words_absent,
    "keywords:letter_frequency": letter_frequency,
    "keywords:key_sentences": key_sentences,
    "length_constraints:number_sentences": number_of_sentences,
    "length_constraints:number_paragraphs": number_of_paragraphs,
    "length_constraints:number_words": number_of_words,
    "length_constraints:nth_paragraph_first_word": paragraph_first_word,
    "detectable_content:number_placeholders": placeholders,
    "detectable_content:postscript": postscript,
    "detectable_content:rephrase_paragraph": words_in_common,
    "detectable_format:number_bullet_lists": bullet_list,
    "detectable_format:constrained_response": constrained_response,
    "detectable_format:number_highlighted_sections": highlighted_sections,
    "detectable_format:multiple_sections": multiple_sections,
    "detectable_format:json_format": json_format,
    "detectable_format:title": title,
    "combination:two_responses": two_responses,
    "combination:repeat_prompt": repeat_prompt,
    "startend:end_checker": ends_with,
    "startend:start_checker": starts_with,
    "startend:quotation": quotation,
    "change_case:capital_word_frequency": capital_word_frequency,
    "change_case:english_capital": all_capital,
    "change_case:english_lowercase": all_lowercase,
    "punctuation:no_comma": no_comma,
}
