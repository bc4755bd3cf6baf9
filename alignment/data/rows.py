"""From examples to token ids: encoded, ended once, checked and counted. `collating` makes the rows of batches."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from alignment.data import hierarchy, segmented
from alignment.data.formats import (
    Completion,
    DataError,
    Example,
    ForgetRetain,
    Message,
    Pair,
    Query,
    Ranking,
    Rated,
    SampledPair,
    Steps,
    Triple,
    Unpaired,
)
from alignment.data.hierarchy import Hierarchy
from alignment.data.segmented import Segments
from alignment.data.tokenizers import Tokenizer
from alignment.segments import LEVELS

SEPARATOR = "\n"  # after every reasoning step
NO_DELIMITERS = dict.fromkeys(LEVELS, "")


@dataclasses.dataclass(frozen=True, eq=False)
class Tokenized:
    """One example as token ids (i32 vectors); `id` is its number in the data set before anything was dropped."""

    id: int
    prompt: np.ndarray
    completions: tuple[np.ndarray, ...]
    labels: tuple[float, ...] | None = None
    margin: float | None = None
    annotator_id: int | None = None
    weight: float | None = None
    preference_proportion: float | None = None
    desirable: bool | None = None
    tie: bool | None = None
    reward: float | None = None
    ratings: tuple[float | None, ...] | None = None
    correct: bool | None = None
    step_ends: tuple[int, ...] | None = None  # places in the completion, of `step_labels`
    step_labels: tuple[float, ...] | None = None
    token_rewards: tuple[float, ...] | None = None  # of the completion's tokens; likewise `trained`
    trained: tuple[bool, ...] | None = None
    objective_id: int | None = None
    chosen_margin_rewards: tuple[float, ...] | None = None
    rejected_margin_rewards: tuple[float, ...] | None = None
    chosen_harmful: bool | None = None
    rejected_harmful: bool | None = None
    prompts: tuple[np.ndarray, ...] | None = None  # of every completion, where they differ; `prompt` is the first
    prompt_levels: np.ndarray | None = None  # instruction level of every token of the prompt
    where: str = ""


# Batch key, field of an example and of `Tokenized`, type; a data set has it for all examples or for none.
OPTIONAL = (
    ("labels", "labels", np.float32),
    ("margins", "margin", np.float32),
    ("annotator_ids", "annotator_id", np.int32),
    ("weights", "weight", np.float32),
    ("preference_proportions", "preference_proportion", np.float32),
    ("desirable", "desirable", bool),
    ("ties", "tie", bool),
    ("correct", "correct", bool),
    ("rewards", "reward", np.float32),
    ("objective_ids", "objective_id", np.int32),
    ("chosen_margin_rewards", "chosen_margin_rewards", np.float32),
    ("rejected_margin_rewards", "rejected_margin_rewards", np.float32),
    ("chosen_harmful", "chosen_harmful", bool),
    ("rejected_harmful", "rejected_harmful", bool),
)


@dataclasses.dataclass(frozen=True)
class TokenizeReport:
    """What `tokenize` kept and changed; print it. Nothing is dropped or cut that is not counted here."""

    examples: int
    kept: int
    dropped_too_long: int
    dropped_equal: int
    truncated_prompts: int
    truncated_completions: int
    longest_prompt: int
    longest_completion: int
    prompt_tokens: int
    completion_tokens: int

    def __str__(self) -> str:
        return (
            f"{self.kept} of {self.examples} examples kept ({self.dropped_too_long} too long and "
            f"{self.dropped_equal} with sides of equal tokens dropped; "
            f"{self.truncated_prompts} prompts and {self.truncated_completions} completions truncated); "
            f"{self.prompt_tokens} prompt and {self.completion_tokens} completion tokens; longest before truncation: "
            f"prompt {self.longest_prompt}, completion {self.longest_completion}"
        )


def tokenize(
    examples: Sequence[Example],
    tokenizer: Tokenizer,
    *,
    prompt_length: int,
    completion_length: int,
    too_long: str = "error",
    delimiters: Mapping[str, str] = NO_DELIMITERS,
) -> tuple[list[Tokenized], TokenizeReport]:
    """Tokenises examples so that each fits a prompt of `prompt_length` and completions of `completion_length` tokens.

    A completion ends in exactly one end token; one that its chat template already wrote is not repeated.

    Args:
      too_long: "error" names the first example that does not fit; "drop" leaves such examples out; "truncate" cuts
        prompts on the left (a begin token stays) and completions on the right (which then have no end token). Pairs
        (and the pairs of triples) whose sides are the same tokens after the cut are an error, or dropped and counted,
        too.
      delimiters: of kinds `hierarchy`, what stands before the messages of every role.

    Returns:
      (tokenised examples in order, report of all counts).

    Raises:
      DataError: too long, no prompt token, optional fields or list lengths that only some examples have, nothing left.
    """
    if too_long not in ("error", "drop", "truncate"):
        raise ValueError(f"too_long={too_long!r} is not one of error, drop, truncate")
    if prompt_length < 1 or completion_length < 1:
        raise ValueError(f"{prompt_length=} and {completion_length=} must be at least 1")
    _check_uniform(examples)
    kept: list[Tokenized] = []
    dropped = equal = cut_prompts = cut_completions = longest_prompt = longest_completion = 0
    for number, example in enumerate(examples):
        if isinstance(example, Query):
            raise DataError(f"{example.where}: a record of kind 'prompts' has no completion to learn from")
        prompt, levels, completions, keep_first = _encode(example, tokenizer, delimiters)
        prompts = _prompts(example, tokenizer) or [prompt]
        if not all(prompts):
            raise DataError(
                f"{example.where}: field 'prompt' has no tokens, and the tokenizer adds no begin token; "
                "the first answer token needs one to be predicted from"
            )
        longest, longest_of_prompts = max(map(len, completions)), max(map(len, prompts))
        longest_prompt = max(longest_prompt, longest_of_prompts)
        longest_completion = max(longest_completion, longest)
        if longest_of_prompts > prompt_length or longest > completion_length:
            if too_long == "error":
                raise DataError(
                    f"{example.where}: too long: prompt {longest_of_prompts} tokens (prompt_length={prompt_length}), "
                    f"completion {longest} with end token (completion_length={completion_length}); raise the lengths "
                    "or set too_long to 'drop' or 'truncate'"
                )
            if too_long == "drop":
                dropped += 1
                continue
        shortened = [c[:completion_length] for c in completions]
        of_pairs = isinstance(example, (Pair, Triple, SampledPair))
        of_pairs |= isinstance(example, Hierarchy) and len(example.completions) == 2
        if of_pairs and shortened[0] == shortened[1]:
            # Cut too short, or made equal by a template that trims: nothing could be learnt, and no one would notice.
            if too_long == "error":
                raise DataError(f"{example.where}: 'chosen' and 'rejected' are the same tokens; they must differ")
            equal += 1
            continue
        # With a begin token in a prompt of one slot only, the last token says more than the begin token.
        keep = keep_first if prompt_length > keep_first else 0
        cut_prompts += sum(len(p) > prompt_length for p in prompts)

        def fitted(values: list[int], keep: int = keep) -> list[int]:
            rest = len(values) - (prompt_length - keep)
            return values if len(values) <= prompt_length else values[:keep] + values[rest:]

        prompts = [fitted(p) for p in prompts]
        cut_completions += sum(len(c) > completion_length for c in completions)
        of_steps = {}
        if isinstance(example, Steps):
            ends = _step_ends(example, tokenizer)
            seen = [i for i, end in enumerate(ends) if end < completion_length]
            of_steps = {
                "step_ends": tuple(ends[i] for i in seen),
                "step_labels": tuple(example.labels[i] for i in seen),
            }
        kept.append(
            Tokenized(
                id=number,
                prompt=np.asarray(prompts[0], np.int32),
                prompts=tuple(np.asarray(p, np.int32) for p in prompts) if len(prompts) > 1 else None,
                completions=tuple(np.asarray(c, np.int32) for c in shortened),
                prompt_levels=None if levels is None else np.asarray(fitted(levels), np.int32),
                where=example.where,
                **{field: getattr(example, field, None) for _, field, _ in OPTIONAL}
                | {"ratings": getattr(example, "ratings", None)}
                | ({"labels": None} | of_steps if of_steps else {})
                | _carried(example, tokenizer, completion_length),
            )
        )
    report = TokenizeReport(
        examples=len(examples), kept=len(kept), dropped_too_long=dropped, dropped_equal=equal,
        truncated_prompts=cut_prompts, truncated_completions=cut_completions,
        longest_prompt=longest_prompt, longest_completion=longest_completion,
        prompt_tokens=sum(len(e.prompt) for e in kept),
        completion_tokens=sum(len(c) for e in kept for c in e.completions),
    )  # fmt: skip
    if not kept:
        raise DataError(f"no example is left: {report}")
    return kept, report


def encode_prompt(prompt: str | Sequence[Message], tokenizer: Tokenizer) -> list[int]:
    """Token ids of a prompt alone, exactly as `tokenize` gives them: what a sampler starts from."""
    chat = not isinstance(prompt, str)
    text = tokenizer.render_chat(prompt, add_generation_prompt=True) if chat else prompt
    return tokenizer.prefix_ids(chat) + tokenizer.encode(text)


def _encode(
    example: Example, tokenizer: Tokenizer, delimiters: Mapping[str, str]
) -> tuple[list[int], list[int] | None, list[list[int]], int]:
    """(prompt ids, their levels if it has roles, ids of every completion, how many prompt ids precede the text)."""
    if isinstance(example, Steps):
        ids = [token for step in _encoded_steps(example, tokenizer) for token in step]
        prompt = encode_prompt(example.prompt, tokenizer)
        return prompt, None, [[*ids, tokenizer.eos_id]], _opening(prompt, tokenizer)
    if isinstance(example, Segments):
        prompt = encode_prompt(example.prompt, tokenizer)
        return prompt, None, [segmented.encode(example, tokenizer)[0]], _opening(prompt, tokenizer)
    if isinstance(example, Hierarchy):
        prompt, levels = hierarchy.encode_prompt(example.prompt, tokenizer, delimiters)
        completions = [[*tokenizer.encode(text), tokenizer.eos_id] for text in example.completions]
        return prompt, levels, completions, _opening(prompt, tokenizer)
    texts = {
        Completion: lambda: (example.completion,),
        Pair: lambda: (example.chosen, example.rejected),
        Ranking: lambda: example.responses,
        Unpaired: lambda: (example.completion,),
        Triple: lambda: (example.chosen, example.rejected, example.gold),
        Rated: lambda: (example.completion,),
        SampledPair: lambda: (example.chosen, example.rejected, *example.samples),
        ForgetRetain: lambda: (example.forget, example.retain, *([example.chosen] if example.chosen else [])),
    }[type(example)]()
    if not isinstance(example.prompt, str):
        opening = tokenizer.render_chat(example.prompt, add_generation_prompt=True)
        texts = tuple(_rendered_answer(example, tokenizer, opening, text) for text in texts)
    prompt = encode_prompt(example.prompt, tokenizer)
    completions = [_end_once(tokenizer.encode(text), tokenizer) for text in texts]
    return prompt, None, completions, _opening(prompt, tokenizer)


def _opening(prompt: list[int], tokenizer: Tokenizer) -> int:
    """How many ids stand before the text: a begin token, and control tokens, which lie beyond the vocabulary."""
    before_text = itertools.takewhile(lambda i: i == tokenizer.bos_id or i >= tokenizer.vocab_size, prompt)
    return sum(1 for _ in before_text)


def _prompts(example: Example, tokenizer: Tokenizer) -> list[list[int]] | None:
    """The prompt ids of every completion, where they are not the same for all."""
    if not isinstance(example, ForgetRetain):
        return None
    own = [example.prompt, example.retain_prompt, *([example.prompt] if example.chosen else [])]
    return [encode_prompt(prompt, tokenizer) for prompt in own]


def _carried(example: Example, tokenizer: Tokenizer, completion_length: int) -> dict[str, tuple]:
    """What each token of a completion in segments carries, as far as the completion reaches."""
    if not isinstance(example, Segments):
        return {}
    return {name: values[:completion_length] for name, values in segmented.encode(example, tokenizer)[1].items()}


def _encoded_steps(example: Steps, tokenizer: Tokenizer) -> list[list[int]]:
    """Each step with the separator after it, encoded apart: in a joined text a tokenizer might merge the two."""
    separator = tokenizer.encode(SEPARATOR)
    return [[*tokenizer.encode(step), *separator] for step in example.steps]


def _step_ends(example: Steps, tokenizer: Tokenizer) -> list[int]:
    """Place of the last token of each step's separator in the completion."""
    return (np.cumsum([len(step) for step in _encoded_steps(example, tokenizer)]) - 1).tolist()


def _rendered_answer(example: Example, tokenizer: Tokenizer, opening: str, answer: str) -> str:
    whole = tokenizer.render_chat((*example.prompt, Message("assistant", answer)), add_generation_prompt=False)
    if not whole.startswith(opening):
        raise DataError(
            f"{example.where}: the chat template writes the conversation before the answer differently with and "
            "without the answer, so that it cannot be split into prompt and completion"
        )
    return whole[len(opening) :]


def _end_once(ids: list[int], tokenizer: Tokenizer) -> list[int]:
    """Ends in one end token. Templates often write white space after theirs, where sampling has already stopped."""
    if tokenizer.eos_id in ids:
        end = len(ids) - 1 - ids[::-1].index(tokenizer.eos_id)
        if not tokenizer.decode(ids[end + 1 :]).strip():
            return ids[: end + 1]
    return [*ids, tokenizer.eos_id]


def with_prefix(example: Tokenized, prefix: Sequence[int], bos_id: int | None) -> Tokenized:
    """The example with more tokens before its prompt, but after the prompt's begin token."""
    if example.prompts is not None:
        raise ValueError(f"{example.where}: a prefix goes before one prompt, and this example has several")
    if example.prompt_levels is not None:
        raise ValueError(f"{example.where}: a prefix has no role, and the messages of this example have one each")
    first = int(example.prompt[0] == bos_id)
    prompt = [*example.prompt[:first], *prefix, *example.prompt[first:]]
    return dataclasses.replace(example, prompt=np.asarray(prompt, np.int32))


def _check_uniform(examples: Sequence[Example]) -> None:
    """A batch has a key for all rows or for none, and one number of sides."""
    if not examples:
        raise DataError("no examples to tokenise")
    first = examples[0]
    for example in examples:
        if type(example) is not type(first):
            raise DataError(
                f"{example.where}: a {type(example).__name__} among examples that began with a {type(first).__name__} "
                f"({first.where}); one data set holds one type"
            )
        for _, field, _ in OPTIONAL:
            if (getattr(example, field, None) is None) != (getattr(first, field, None) is None):
                lacks, has = (example, first) if getattr(example, field, None) is None else (first, example)
                raise DataError(
                    f"{lacks.where}: field {field!r} is missing but {has.where} has it; give it to all or to none"
                )
        for field in ("segment_rewards", "trained"):
            if (getattr(example, field, None) is None) != (getattr(first, field, None) is None):
                raise DataError(
                    f"{example.where}: field {field.removeprefix('segment_')!r} is in some records alone "
                    f"({first.where} is of the other sort); give it to all or to none"
                )
        for field in ("responses", "samples", "ratings"):
            if hasattr(first, field) and len(getattr(example, field)) != len(getattr(first, field)):
                raise DataError(
                    f"{example.where}: field {field!r} has {len(getattr(example, field))} entries but {first.where} "
                    f"has {len(getattr(first, field))}; all lists of a data set must have the same number"
                )
        margins = [getattr(e, "chosen_margin_rewards", None) for e in (example, first)]
        if margins[0] is not None and len(margins[0]) != len(margins[1]):
            raise DataError(
                f"{example.where}: field 'chosen_margin_rewards' has {len(margins[0])} entries but {first.where} has "
                f"{len(margins[1])}; all pairs of a data set must have the same number"
            )
