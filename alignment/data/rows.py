"""Token rows: examples -> token ids -> the batch dictionary that the statistics pass and the step read.

A batch is a dict of numpy arrays; B rows, L columns, S completions ("sides") a row, T completion slots:

| key            | shape          | meaning                                                                            |
|----------------|----------------|------------------------------------------------------------------------------------|
| `tokens`       | i32 [B, L]     | row tokens                                                                         |
| `positions`    | i32 [B, L]     | positions; a completion continues from its prompt's length                         |
| `segment_ids`  | i32 [B, L]     | 0 = padding, else tree * 1024 + branch; branch 0 = prompt or plain, 1.. = sides    |
| `targets`      | i32 [B, S, T]  | tokens to score, end token included; 0 where masked                                |
| `predict_from` | i32 [B, S, T]  | column whose hidden state predicts the target; 0 where masked                      |
| `mask`         | bool [B, S, T] | True where the target counts                                                       |
| `last_index`   | i32 [B, S]     | column of the last real token of each completion                                   |
| `ids`          | i32 [B]        | number of the example in the data set; -1 for rows that only pad                   |
| `valid`        | bool [B]       | False for rows that only pad a batch                                               |
| `labels`       | f32 [B, S]     | ranked lists only, best first                                                      |
| `margins`      | f32 [B]        | if the data has them; likewise `annotator_ids` i32 [B], `weights` f32 [B] and      |
|                |                | `preference_proportions` f32 [B], `objective_ids` i32 [B], and of both sides       |
|                |                | `chosen_margin_rewards` f32 [B, K] and `chosen_harmful` bool [B]                   |
| `desirable`    | bool [B]       | unpaired examples only, whether the completion is a wanted one                     |
| `ties`         | bool [B]       | pairs, if the data has it; likewise `rewards` f32 [B] of ratings and `correct`     |
|                |                | bool [B] of steps                                                                  |
| `ratings`      | f32 [B, K]     | of ratings, 0 where one is missing; `rated` bool [B, K] says where                 |
| `token_rewards` | f32 [B, S, T] | of segments that have rewards; likewise `trained_mask` bool [B, S, T]             |
| `step_labels`  | f32 [B, S, T]  | of steps, at the last token of each step's separator; `step_mask` bool [B, S, T]   |
| `instruction_levels` | i32 [B, L] | of kinds `hierarchy`: whose word each token is (`alignment.segments.LEVELS`) |

Who may attend to whom follows from `segment_ids`: see `alignment.segments`.

Trees: `[prompt block of P, left-padded | completion 0: T | completion 1: T | ...]`, L = P + S * T; target t of side s
is the token of column P + s * T + t. Packed rows: whole examples one after another, each a tree with branch 0, S = 1
and T = L; target t is the token of column t.

Sides of several prompts (`ForgetRetain`, the pairs of `alignment.data.halves`, sides with control tokens of their own):
`[prompt block of P | completion: T]` for every side, one after another, each a tree of its own; L = S * (P + T), and
target t of side s is the token of column s * (P + T) + P + t.

The sides of a row, in order: the completion; or chosen, rejected; or the responses of a list, best first; or chosen,
rejected, gold; or chosen, rejected, samples; or forget, retain and, if there is one, chosen; or confident, unconfident;
or, for unpaired examples, the completion and one of another prompt (`with_mismatched`).
"""

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
from alignment.segments import BRANCHES, LEVELS

Batch = dict[str, np.ndarray]
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
_OPTIONAL = (
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
                **{field: getattr(example, field, None) for _, field, _ in _OPTIONAL}
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
        for _, field, _ in _OPTIONAL:
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


# Collating -----------------------------------------------------------------------------------------------------------


def with_mismatched(examples: Sequence[Tokenized]) -> list[Tokenized]:
    """Gives each example a second completion that belongs to another prompt, for an estimate of the KL divergence.

    That is the completion of the next example in cyclic order (Ethayarajh et al. 2024, arXiv:2402.01306: completions
    shifted by one), passing over those of the same prompt. If all share one prompt it is that of the next other
    example, and only an example that is alone is paired with itself. Give it the whole global batch, so that the
    outcome does not depend on how many processes share it: `pipeline` calls it so, as `mix`.
    """
    count = len(examples)
    out = []
    for i, example in enumerate(examples):
        if len(example.completions) != 1:
            raise ValueError(
                f"{example.where}: a mismatched side goes with one completion, got {len(example.completions)}"
            )
        others = [examples[(i + k) % count] for k in range(1, count)]
        foreign = (o for o in others if not np.array_equal(o.prompt, example.prompt))
        # An epoch's end inside the batch may bring the same example twice.
        partner = next(foreign, next((o for o in others if o.id != example.id), example))
        out.append(dataclasses.replace(example, completions=(*example.completions, *partner.completions)))
    return out


def collate_trees(
    examples: Sequence[Tokenized], prompt_length: int, completion_length: int, sides: int, *, pad_id: int = 0
) -> Batch:
    """Rows of one prompt and its `sides` completions: the tree layout of the module docstring."""
    rows, columns = len(examples), prompt_length + sides * completion_length
    batch = _empty(rows, columns, sides, completion_length, pad_id)
    for b, example in enumerate(examples):
        n = len(example.prompt)
        if len(example.completions) != sides:
            raise ValueError(f"{example.where}: {len(example.completions)} completions for {sides=}")
        if not 1 <= n <= prompt_length or max(map(len, example.completions)) > completion_length:
            raise ValueError(
                f"{example.where}: does not fit {prompt_length=}, {completion_length=}; tokenize with these"
            )
        block = slice(prompt_length - n, prompt_length)
        batch["tokens"][b, block] = example.prompt
        batch["positions"][b, block] = np.arange(n)
        batch["segment_ids"][b, block] = BRANCHES
        for s, completion in enumerate(example.completions):
            start, m = prompt_length + s * completion_length, len(completion)
            columns_of = np.arange(start, start + m)
            batch["tokens"][b, columns_of] = completion
            batch["positions"][b, columns_of] = n + np.arange(m)
            batch["segment_ids"][b, columns_of] = BRANCHES + s + 1
            batch["targets"][b, s, :m] = completion
            # The first token of every side is predicted by the shared prompt's last token, the others by their left.
            batch["predict_from"][b, s, :m] = np.concatenate([[prompt_length - 1], columns_of[:-1]])
            batch["mask"][b, s, :m] = True
            batch["last_index"][b, s] = start + m - 1
        batch["ids"][b] = example.id
    if examples and examples[0].prompt_levels is not None:
        batch["instruction_levels"] = np.where(batch["segment_ids"] != 0, LEVELS["assistant"], 0).astype(np.int32)
        for b, example in enumerate(examples):
            batch["instruction_levels"][b, prompt_length - len(example.prompt) : prompt_length] = example.prompt_levels
    if examples and examples[0].step_ends is not None:
        batch["step_labels"] = np.zeros((rows, sides, completion_length), np.float32)
        batch["step_mask"] = np.zeros((rows, sides, completion_length), bool)
        for b, example in enumerate(examples):
            batch["step_labels"][b, 0, list(example.step_ends)] = example.step_labels
            batch["step_mask"][b, 0, list(example.step_ends)] = True
    for key, field, dtype in (("token_rewards",) * 2 + (np.float32,), ("trained_mask", "trained", bool)):
        if examples and getattr(examples[0], field) is not None:
            batch[key] = np.zeros((rows, sides, completion_length), dtype)
            for b, example in enumerate(examples):
                values = getattr(example, field)
                batch[key][b, 0, : len(values)] = values
    return batch | _optional(examples)


def collate_several_prompts(
    examples: Sequence[Tokenized], prompt_length: int, completion_length: int, sides: int, *, pad_id: int = 0
) -> Batch:
    """Rows of `sides` prompts, each with its completion: trees side by side, as the module docstring says."""
    width = prompt_length + completion_length
    batch = _empty(len(examples), sides * width, sides, completion_length, pad_id)
    for b, example in enumerate(examples):
        if example.prompts is None or not len(example.prompts) == len(example.completions) == sides:
            raise ValueError(f"{example.where}: not an example of {sides} completions that each have a prompt")
        for s, (prompt, completion) in enumerate(zip(example.prompts, example.completions, strict=True)):
            n, m, start = len(prompt), len(completion), s * width + prompt_length
            if not 1 <= n <= prompt_length or m > completion_length:
                raise ValueError(
                    f"{example.where}: does not fit {prompt_length=}, {completion_length=}; tokenize with these"
                )
            block = slice(start - n, start + m)
            batch["tokens"][b, block] = np.concatenate([prompt, completion])
            batch["positions"][b, block] = np.arange(n + m)
            batch["segment_ids"][b, block] = (s + 1) * BRANCHES
            batch["targets"][b, s, :m] = completion
            batch["predict_from"][b, s, :m] = np.arange(start - 1, start + m - 1)
            batch["mask"][b, s, :m] = True
            batch["last_index"][b, s] = start + m - 1
        batch["ids"][b] = example.id
    return batch | _optional(examples)


def pack(examples: Sequence[Tokenized], length: int) -> list[tuple[Tokenized, ...]]:
    """Distributes single-completion examples over rows of `length` columns: each to the first row with room.

    Deterministic, and done once up front, so that a packed stream resumes as simply as any other. Pass the rows to the
    pipeline in place of examples, with `collate_packed`.
    """
    rows: list[list[Tokenized]] = []
    room = np.zeros(len(examples), np.int64)
    for example in examples:
        if len(example.completions) != 1:
            raise ValueError(
                f"{example.where}: packing takes one completion an example, got {len(example.completions)}"
            )
        per_token = (example.step_ends, example.ratings, example.token_rewards, example.trained)
        if any(values is not None for values in per_token):
            raise ValueError(
                f"{example.where}: packed rows have no place for ratings or steps, nor for segments; "
                "use the tree layout"
            )
        if example.weight is not None:
            raise ValueError(
                f"{example.where}: packed rows have no place for a weight per example; use the tree layout"
            )
        size = len(example.prompt) + len(example.completions[0])
        if size > length:
            raise DataError(f"{example.where}: prompt and completion have {size} tokens, more than a row of {length}")
        fits = np.flatnonzero(room[: len(rows)] >= size)[:1]
        index = int(fits[0]) if fits.size else len(rows)
        if index == len(rows):
            rows.append([])
            room[index] = length
        rows[index].append(example)
        room[index] -= size
    return [tuple(row) for row in rows]


def collate_packed(rows: Sequence[Sequence[Tokenized]], length: int, *, pad_id: int = 0) -> Batch:
    """Packed rows: examples side by side, each its own tree, positions from 0, completions scored, prompts not.

    `ids` is the number of the first example of the row and `last_index` the last real column of the row.
    """
    batch = _empty(len(rows), length, 1, length, pad_id)
    if rows and rows[0][0].prompt_levels is not None:
        batch["instruction_levels"] = np.zeros((len(rows), length), np.int32)
    for b, row in enumerate(rows):
        start = 0
        for tree, example in enumerate(row, 1):
            (completion,) = example.completions
            n, m = len(example.prompt), len(completion)
            if n < 1 or start + n + m > length:
                raise ValueError(f"{example.where}: does not fit a row of {length} columns; pack with this length")
            block, scored = slice(start, start + n + m), slice(start + n, start + n + m)
            batch["tokens"][b, block] = np.concatenate([example.prompt, completion])
            batch["positions"][b, block] = np.arange(n + m)
            batch["segment_ids"][b, block] = tree * BRANCHES
            batch["targets"][b, 0, scored] = completion
            batch["predict_from"][b, 0, scored] = np.arange(start + n - 1, start + n + m - 1)
            batch["mask"][b, 0, scored] = True
            if example.prompt_levels is not None:
                batch["instruction_levels"][b, start : start + n] = example.prompt_levels
                batch["instruction_levels"][b, scored] = LEVELS["assistant"]
            start += n + m
        batch["last_index"][b, 0] = start - 1
        batch["ids"][b] = row[0].id
    return batch


def pad_batch(batch: Batch, size: int) -> Batch:
    """Adds rows up to `size` that count for nothing: valid False, all masked, weight 0, id -1.

    Their tokens repeat the first row: attention over a row of nothing but padding has no finite value.
    """
    rows = len(batch["valid"])
    if rows > size:
        raise ValueError(f"a batch of {rows} rows does not fit {size=}")
    source = np.concatenate([np.arange(rows), np.zeros(size - rows, np.int64)])
    return blank_rows({key: value[source] for key, value in batch.items()}, np.arange(size) >= rows)


def blank_rows(batch: Batch, blank: np.ndarray) -> Batch:
    """The batch with the rows of `blank` (bool [B]) counting for nothing, as `pad_batch` says."""
    batch = {key: value.copy() for key, value in batch.items()}
    for key in ("targets", "predict_from", "mask", "valid", "weights", "rated", "step_mask"):
        if key in batch:
            batch[key][blank] = 0
    batch["ids"][blank] = -1
    return batch


def lengths(batch: Batch, prompt_length: int) -> tuple[np.ndarray, np.ndarray]:
    """(prompt lengths [B], completion lengths [B, S]) of a tree batch, from its segment ids."""
    rows, sides = batch["last_index"].shape
    real = batch["segment_ids"] != 0
    return real[:, :prompt_length].sum(1), real[:, prompt_length:].reshape(rows, sides, -1).sum(2)


def unpack(batch: Batch, prompt_length: int | None = None) -> list[list[tuple[np.ndarray, list[np.ndarray]]]]:
    """The (prompt, completions) token vectors of every tree of every row: undoes either way of collating.

    `prompt_length` is given for tree rows and None for packed rows. Rows that only pad give an empty list.
    """
    out = []
    for b in range(len(batch["tokens"])):
        trees = []
        segments, tokens = batch["segment_ids"][b], batch["tokens"][b]
        if not batch["valid"][b]:
            out.append(trees)
            continue
        if prompt_length is not None:
            sides = range(1, batch["last_index"].shape[1] + 1)
            trees.append((tokens[segments == BRANCHES], [tokens[segments == BRANCHES + s] for s in sides]))
        else:
            for tree in range(1, int(segments.max()) // BRANCHES + 1):
                inside, scored = segments // BRANCHES == tree, batch["mask"][b, 0]
                trees.append((tokens[inside & ~scored], [tokens[inside & scored]]))
        out.append(trees)
    return out


def _empty(rows: int, columns: int, sides: int, slots: int, pad_id: int) -> Batch:
    return {
        "tokens": np.full((rows, columns), pad_id, np.int32),
        "positions": np.zeros((rows, columns), np.int32),
        "segment_ids": np.zeros((rows, columns), np.int32),
        "targets": np.zeros((rows, sides, slots), np.int32),
        "predict_from": np.zeros((rows, sides, slots), np.int32),
        "mask": np.zeros((rows, sides, slots), bool),
        "last_index": np.zeros((rows, sides), np.int32),
        "ids": np.zeros(rows, np.int32),
        "valid": np.ones(rows, bool),
    }


def _optional(examples: Sequence[Tokenized]) -> Batch:
    found = {
        key: np.asarray([getattr(e, field) for e in examples], dtype)
        for key, field, dtype in _OPTIONAL
        if examples and getattr(examples[0], field) is not None
    }
    if examples and examples[0].ratings is not None:
        found["rated"] = np.asarray([[r is not None for r in e.ratings] for e in examples], bool)
        found["ratings"] = np.asarray([[r or 0.0 for r in e.ratings] for e in examples], np.float32)
    return found
