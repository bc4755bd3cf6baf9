"""Decoders that a config of `experiments.generate` names, each a function of this module.

Each takes a `Setting` and prompts and, by keyword, what the config says beside `decoder`; it gives one `Written` for
each prompt. Options that name models are names of `config.models`.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from alignment import statistics
from alignment.decoding import combinations, guided, sampler, search, selection, speculative
from alignment.models.decoder import Model
from alignment.rewards.overoptimization import best_of_n_kl
from alignment.segments import BRANCHES
from alignment.training import rollouts
from experiments import prompt_sets, sampling
from experiments.prompt_sets import Prompt

_STEP = 32  # what prompts that grow are padded to a multiple of
_TWO = (np.zeros(2, np.float32), np.zeros(2, np.float32))  # logits for a look at the options alone


class Loaded(NamedTuple):
    model: Model
    params: Any


class Written(NamedTuple):
    text: str
    tokens: int  # in the text, its end token included
    details: Mapping[str, Any] = types.MappingProxyType({})  # more to say of it, plain values


class Setting(NamedTuple):
    """What all decoders of a run share."""

    models: Mapping[str, Loaded]
    tokenizer: Any
    prompt_length: int
    completion_length: int
    rng: jax.Array
    score: Callable[[Sequence[Prompt], Sequence[str]], np.ndarray]  # what a search looks for
    reference: str = ""  # the model that `kl` of an output is measured from; "": not measured

    def model(self, option: str, name: str) -> Loaded:
        if name not in self.models:
            raise ValueError(f"{option}: {name!r} is not one of config.models: {', '.join(sorted(self.models))}")
        return self.models[name]

    def drawing(self, temperature: float, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0) -> dict[str, Any]:
        return {
            "max_new_tokens": self.completion_length, "temperature": temperature, "top_k": top_k or None,
            "top_p": top_p, "min_p": min_p, "eos_id": self.tokenizer.eos_id, "pad_id": self.tokenizer.pad_id,
        }  # fmt: skip


def named(key: str, settings: Mapping[str, Any]) -> Callable[[Setting, Sequence[Prompt]], list[Written]]:
    """The decoder of an entry of config.decoders, its options bound; ValueError for what it does not have."""
    options = dict(settings)
    name = options.pop("decoder", "")
    found = {n: f for n, f in globals().items() if inspect.isfunction(f) and _is_decoder(f)}
    if name not in found:
        raise ValueError(f"{key}.decoder: {name!r} is not one of {', '.join(sorted(found))}")
    taken = [p for p in inspect.signature(found[name]).parameters.values() if p.kind is p.KEYWORD_ONLY]
    if unknown := sorted(set(options) - {p.name for p in taken}):
        allowed = ", ".join(p.name for p in taken)
        raise ValueError(f"{key}.{unknown[0]}: the decoder {name} has no such option; it has: {allowed}")
    if missing := [p.name for p in taken if p.default is p.empty and p.name not in options]:
        raise ValueError(f"{key}.{missing[0]}: missing; the decoder {name} needs it")

    def run(setting: Setting, prompts: Sequence[Prompt]) -> list[Written]:
        try:
            return found[name](setting, prompts, **options)
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from None

    return run


def _is_decoder(function: Callable) -> bool:
    return list(inspect.signature(function).parameters)[:2] == ["setting", "prompts"] and function.__name__[0] != "_"


# --- one pass: plain, guided, speculative ----------------------------------------------------------------------------


def _inputs(setting: Setting, prompts: Sequence[Prompt]) -> tuple[np.ndarray, np.ndarray]:
    return rollouts.pad_prompts([p.tokens for p in prompts], setting.prompt_length, setting.tokenizer.pad_id)


def _texts(setting: Setting, samples: sampler.Samples, what: str = "") -> list[Written]:
    tokens, mask, logps = (np.asarray(x) for x in (samples.tokens, samples.mask, samples.logps))
    if bad := np.flatnonzero(~np.isfinite(np.where(mask, logps, 0.0)).all(axis=1)).tolist():
        raise ValueError(f"{what or 'the models'} left no token to draw in row {bad[0]}")
    texts = sampling.texts(setting.tokenizer, tokens, mask)
    return [
        Written(text, int(keep.sum()), {"logp": float(row[keep].sum())})
        for text, keep, row in zip(texts, mask, logps, strict=True)
    ]


def _guided(setting, prompts, names, combine, options, drawing, scorer=None) -> list[Written]:
    loaded = {role: setting.model(role, name) for role, name in names.items()}
    drawn = guided.sample(
        {role: m.model for role, m in loaded.items()}, {role: m.params for role, m in loaded.items()}, combine,
        *_inputs(setting, prompts), setting.rng, settings=options, scorer=scorer, **drawing,
    )  # fmt: skip
    return _with_kl(setting, prompts, drawn, drawing["temperature"])


def _with_kl(setting, prompts, drawn: sampler.Samples, temperature: float) -> list[Written]:
    """`_texts`, and as `kl` log p(output) - log reference(output), p being what it was drawn from; greedy has none."""
    written = _texts(setting, drawn)
    if not setting.reference or temperature == 0:
        return written
    reference = setting.model("config.reference", setting.reference)
    rollout = rollouts.Rollout(*(np.asarray(x) for x in (drawn.tokens, drawn.mask, drawn.logps)))
    batch = rollouts.to_rows(*_inputs(setting, prompts), rollout, 1, np.arange(len(prompts)))
    logps = np.asarray(_scorer(reference.model)(reference.params, batch)).sum(axis=(1, 2))
    return [
        w._replace(details={**w.details, "kl": w.details["logp"] - float(x)})
        for w, x in zip(written, logps, strict=True)
    ]


@functools.cache
def _scorer(model: Model) -> Callable[[Any, Mapping[str, Any]], Any]:
    needs = statistics.needs_of(["policy_token_logps"])
    return jax.jit(lambda params, batch: statistics.compute(needs, model, params, {}, batch)["policy_token_logps"])


def sample(setting: Setting, prompts: Sequence[Prompt], *, model: str, temperature: float = 1.0, top_k: int = 0,
           top_p: float = 1.0, min_p: float = 0.0) -> list[Written]:  # fmt: skip
    """One sample of each prompt; temperature 0 is greedy decoding."""
    drawing = setting.drawing(temperature, top_k, top_p, min_p)
    return _guided(setting, prompts, {"model": model}, sampler.only, {}, drawing)


def _genarm(logits, *, alphas):
    guides = [logits[f"guide {i}"] for i in range(len(logits) - 1)]
    return combinations.genarm(logits["base"], jnp.stack(guides, axis=-2), alphas=alphas)


def genarm(setting: Setting, prompts: Sequence[Prompt], *, base: str, guides: Sequence[str], alphas: Sequence[float],
           temperature: float = 1.0) -> list[Written]:  # fmt: skip
    """A base model guided by autoregressive reward models, `alphas` of each (`combinations.genarm`)."""
    if not guides or len(alphas) != len(guides):
        raise ValueError(f"alphas: {len(alphas)} numbers for {len(guides)} guides; one for each, at least one")
    if min(alphas) < 0:
        raise ValueError(f"alphas: each must be at least 0, got {tuple(alphas)}")
    names = {"base": base, **{f"guide {i}": g for i, g in enumerate(guides)}}
    options = {"alphas": jnp.asarray(alphas, jnp.float32)}
    return _guided(setting, prompts, names, _genarm, options, setting.drawing(temperature))


def _rlg(logits, *, scale):
    return combinations.rlg(logits["base"], logits["tuned"], scale=scale)


def rlg(setting: Setting, prompts: Sequence[Prompt], *, base: str, tuned: str, scale: float = 2.0,
        temperature: float = 1.0) -> list[Written]:  # fmt: skip
    """Between and beyond a model and its tuned version (`combinations.rlg`)."""
    names = {"base": base, "tuned": tuned}
    return _guided(setting, prompts, names, _rlg, {"scale": float(scale)}, setting.drawing(temperature))


def _contrastive(logits, **options):
    return combinations.contrastive(logits["expert"], logits["amateur"], **options)


def contrastive(setting: Setting, prompts: Sequence[Prompt], *, expert: str, amateur: str, alpha: float = 0.1,
                strength: float = 1.0, amateur_temperature: float = 1.0,
                temperature: float = 1.0) -> list[Written]:  # fmt: skip
    """What an expert finds likelier than an amateur (`combinations.contrastive`)."""
    options = {"alpha": alpha, "strength": strength, "amateur_temperature": amateur_temperature}
    combinations.contrastive(*_TWO, **options)  # traced, they are not checked
    names = {"expert": expert, "amateur": amateur}
    return _guided(setting, prompts, names, _contrastive, options, setting.drawing(temperature))


def _uld(logits, *, alpha):
    return combinations.uld(logits["target"], logits["assistant"], alpha=alpha)


def uld(setting: Setting, prompts: Sequence[Prompt], *, target: str, assistant: str, alpha: float = 0.8,
        temperature: float = 1.0) -> list[Written]:  # fmt: skip
    """A model without what an assistant was trained to remember (`combinations.uld`)."""
    combinations.uld(*_TWO, alpha=alpha)
    names = {"target": target, "assistant": assistant}
    return _guided(setting, prompts, names, _uld, {"alpha": alpha}, setting.drawing(temperature))


@functools.cache  # one function for each eps: a new one would compile anew
def _uld_filtered(eps: float) -> guided.Combine:
    return lambda z, *, alpha: combinations.uld_filtered(z["target"], z["assistant"], alpha=alpha, eps=eps)


def uld_filtered(setting: Setting, prompts: Sequence[Prompt], *, target: str, assistant: str, alpha: float = 0.8,
                 eps: float = 0.01, temperature: float = 1.0) -> list[Written]:  # fmt: skip
    """`uld` where the target finds a token plausible (`combinations.uld_filtered`), as the published code."""
    combinations.uld_filtered(*_TWO, alpha=alpha, eps=eps)
    names = {"target": target, "assistant": assistant}
    return _guided(setting, prompts, names, _uld_filtered(eps), {"alpha": alpha}, setting.drawing(temperature))


def speculate(setting: Setting, prompts: Sequence[Prompt], *, target: str, draft: str, proposals: int = 4,
              temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0,
              min_p: float = 0.0) -> list[Written]:  # fmt: skip
    """Samples of the target, drawn with a draft's help (`alignment.decoding.speculative`)."""
    target_model, draft_model = setting.model("target", target), setting.model("draft", draft)
    drawn = speculative.sample(
        *target_model, *draft_model, *_inputs(setting, prompts), setting.rng, proposals=proposals,
        **setting.drawing(temperature, top_k, top_p, min_p),
    )  # fmt: skip
    accepted, proposed = np.asarray(drawn.accepted), np.asarray(drawn.proposed)
    written = _with_kl(setting, prompts, drawn.samples, temperature)
    return [
        w._replace(details={**w.details, "accepted": int(a), "proposed": int(p)})
        for w, a, p in zip(written, accepted, proposed, strict=True)
    ]


# --- a model with a reward head looks at the likeliest tokens --------------------------------------------------------


def _tilted(logits, candidates, scores, *, weight):
    return combinations.args(logits, candidates, scores[..., 0], weight=weight)


def _allowed(logits, candidates, scores):
    """The product with the heads' probabilities, of the candidates alone."""
    possible = jnp.sum(jax.nn.log_sigmoid(scores), axis=-1)
    return combinations.args(logits, candidates, possible, weight=1.0)


def args(setting: Setting, prompts: Sequence[Prompt], *, base: str, reward: str, candidates: int = 10,
         weight: float = 1.0, temperature: float = 0.0) -> list[Written]:  # fmt: skip
    """The likeliest tokens reranked by a reward model of prefixes (`combinations.args`); greedy, as in the paper."""
    return _with_values(setting, prompts, base, reward, candidates, weight, temperature)


def controlled(setting: Setting, prompts: Sequence[Prompt], *, base: str, value: str, candidates: int = 40,
               strength: float = 1.0, temperature: float = 1.0) -> list[Written]:  # fmt: skip
    """Token-wise controlled decoding: `combinations.controlled` on the likeliest `candidates` tokens, sampled.

    With as many candidates as tokens it is exact; the mass of the tokens left out is what it is off by.
    """
    return _with_values(setting, prompts, base, value, candidates, strength, temperature)


def _with_values(setting, prompts, base, head, count, weight, temperature) -> list[Written]:
    combinations.args(*_EMPTY, weight=weight)  # traced, it is not checked
    scorer = sampler.Scorer(*setting.model("reward", head), count, _tilted, {"weight": weight})
    return _guided(setting, prompts, {"base": base}, sampler.only, {}, setting.drawing(temperature), scorer)


_EMPTY = (np.zeros(2, np.float32), np.zeros(1, np.int32), np.zeros(1, np.float32))


def grounded(setting: Setting, prompts: Sequence[Prompt], *, base: str, grounding: str, candidates: int = 40,
             temperature: float = 0.0) -> list[Written]:  # fmt: skip
    """Grounded decoding: the likeliest tokens times the probability that each head of a grounded model gives them."""
    scorer = sampler.Scorer(*setting.model("grounding", grounding), candidates, _allowed, {})
    return _guided(setting, prompts, {"base": base}, sampler.only, {}, setting.drawing(temperature), scorer)


# --- several samples, one answer -------------------------------------------------------------------------------------


def _several(setting, prompts, model, n, temperature, top_p) -> list[list[Written]]:
    """n samples of each prompt."""
    if n < 1:
        raise ValueError(f"n: must be at least 1, got {n}")
    loaded = setting.model("model", model)
    drawn = sampler.sample(
        *loaded, *_inputs(setting, prompts), setting.rng, group_size=n, **setting.drawing(temperature, 0, top_p)
    )
    written = _texts(setting, drawn)
    return [written[i : i + n] for i in range(0, len(written), n)]


def best_of_n(setting: Setting, prompts: Sequence[Prompt], *, model: str, n: int = 16, temperature: float = 0.7,
              top_p: float = 0.9) -> list[Written]:  # fmt: skip
    """The best of n samples by config.scores; of equally good ones the first. `details` has the scores of all.

    Its `kl` is log n - (n - 1) / n, which the KL from the model that is sampled does not pass (arXiv 2401.01879); it is
    there if that is config.reference, at temperature 1.
    """
    groups = _several(setting, prompts, model, n, temperature, top_p)
    scores = _group_scores(setting, prompts, groups)
    best = np.asarray(selection.best_of_n(jnp.asarray(scores)))
    known = model == setting.reference and temperature == 1 and top_p == 1
    more = {"kl": float(best_of_n_kl(jnp.float32(n)))} if known else {}
    return [
        group[i]._replace(details={**group[i].details, "scores": row.tolist(), "drawn": n, **more})
        for group, i, row in zip(groups, best, scores, strict=True)
    ]


def _group_scores(setting, prompts, groups) -> np.ndarray:
    asked = [p for p, group in zip(prompts, groups, strict=True) for _ in group]
    scores = setting.score(asked, [w.text for group in groups for w in group])
    return np.asarray(scores, np.float32).reshape(len(groups), -1)


def _answers(groups, answer: str) -> tuple[np.ndarray, np.ndarray]:
    """(a number for each answer [B, n], which samples have one)."""
    read = prompt_sets.function("answer", answer) if answer else lambda text: text.strip() or None
    found = [[read(w.text) for w in group] for group in groups]
    known = {a: i for i, a in enumerate(dict.fromkeys(itertools.chain.from_iterable(found)))}
    numbers = np.array([[known[a] for a in row] for row in found], np.int32)
    return numbers, np.array([[a is not None for a in row] for row in found])


def _voted(groups, winners, numbers, valid) -> list[Written]:
    """The winners; the first sample where no sample has an answer."""
    return [
        group[max(i, 0)]._replace(
            details={**group[max(i, 0)].details, "votes": int((row == row[i])[ok].sum()) if i >= 0 else 0}
        )
        for group, i, row, ok in zip(groups, np.asarray(winners).tolist(), numbers, valid, strict=True)
    ]


def self_consistency(setting: Setting, prompts: Sequence[Prompt], *, model: str, n: int = 16, temperature: float = 0.7,
                     top_p: float = 1.0, answer: str = "") -> list[Written]:  # fmt: skip
    """The first sample with the most frequent answer (`selection.majority_vote`).

    `answer` is package.module:function, a text to its answer, or to None if it has none; "": the text itself.
    """
    groups = _several(setting, prompts, model, n, temperature, top_p)
    numbers, valid = _answers(groups, answer)
    return _voted(groups, selection.majority_vote(numbers, valid), numbers, valid)


def weighted_consistency(setting: Setting, prompts: Sequence[Prompt], *, model: str, n: int = 16,
                         temperature: float = 0.7, top_p: float = 1.0, answer: str = "") -> list[Written]:  # fmt: skip
    """The best sample of the answer whose samples have the largest scores together (`selection.weighted_vote`)."""
    groups = _several(setting, prompts, model, n, temperature, top_p)
    numbers, valid = _answers(groups, answer)
    scores = jnp.asarray(_group_scores(setting, prompts, groups))
    return _voted(groups, selection.weighted_vote(numbers, scores, valid), numbers, valid)


# --- search ----------------------------------------------------------------------------------------------------------


class _Partial(NamedTuple):
    problem: int
    tokens: tuple[int, ...]


class _Steps(NamedTuple):
    """The functions that `search` takes, where a step is `block` tokens (the last may be fewer) drawn from a model."""

    starts: list[_Partial]
    depth: int
    ended: Callable[[_Partial], bool]
    padded: Callable[[Sequence[_Partial]], tuple[np.ndarray, np.ndarray]]
    proceed: Callable[..., list[list[_Partial]]]
    propose: search.Propose
    text: Callable[[_Partial], str]
    score: search.Score
    value: search.Score


def _steps(setting: Setting, prompts: Sequence[Prompt], model: str, block: int, temperature: float) -> _Steps:
    length, tokenizer = setting.completion_length, setting.tokenizer
    if not 1 <= block <= length:
        raise ValueError(f"block: must be between 1 and {length} tokens, got {block}")
    loaded, calls = setting.model("model", model), itertools.count()

    def ended(state):
        return len(state.tokens) >= length or state.tokens[-1:] == (tokenizer.eos_id,)

    def padded(states):
        """Prompt and tokens of each state in rows of one width, their number rounded up so that few shapes compile."""
        rows = [[*prompts[s.problem].tokens, *s.tokens] for s in states]
        rows += [rows[0]] * ((1 << max(len(rows) - 1, 7).bit_length()) - len(rows))
        return rollouts.pad_prompts(rows, setting.prompt_length + length, tokenizer.pad_id)

    def proceed(states, group, new_tokens, temperature):
        """`group` continuations of each state, by up to `new_tokens` tokens, none beyond the completion's length."""
        drawing = setting.drawing(temperature) | {"max_new_tokens": new_tokens, "group_size": group}
        drawn = sampler.sample(*loaded, *padded(states), jax.random.fold_in(setting.rng, next(calls)), **drawing)
        rows = [row[keep].tolist() for row, keep in zip(np.asarray(drawn.tokens), np.asarray(drawn.mask), strict=True)]
        return [
            [s._replace(tokens=(*s.tokens, *row)[:length]) for row in rows[i * group : (i + 1) * group]]
            for i, s in enumerate(states)
        ]

    def propose(states, n):
        """n next steps of each; none of a state that has ended."""
        going = [s for s in states if not ended(s)]
        drawn = iter(proceed(going, n, block, temperature) if going else [])
        return [[] if ended(s) else next(drawn) for s in states]

    def text(state):
        return tokenizer.decode([t for t in state.tokens if t != tokenizer.eos_id])

    def score(states):
        return setting.score([prompts[s.problem] for s in states], [text(s) for s in states])

    def value(states):
        """In (0, 1): the logistic function of the score of one greedy roll-out."""
        going = [s for s in states if not ended(s)]
        rolled = iter(proceed(going, 1, length, 0.0) if going else [])
        scores = np.asarray(score([s if ended(s) else next(rolled)[0] for s in states]), np.float64)
        return np.exp(-np.logaddexp(0.0, -scores))

    starts = [_Partial(i, ()) for i in range(len(prompts))]
    return _Steps(starts, -(-length // block), ended, padded, proceed, propose, text, score, value)


def _found(steps: _Steps, found: Sequence[search.Found]) -> list[Written]:
    return [
        Written(steps.text(f.state), len(f.state.tokens), {"score": f.score, "steps": f.steps, "proposed": f.proposed})
        for f in found
    ]


def step_search(setting: Setting, prompts: Sequence[Prompt], *, model: str, n: int = 4, beams: int = 2, block: int = 8,
                temperature: float = 1.0) -> list[Written]:  # fmt: skip
    """Beam search over steps of `block` tokens by config.scores, which see unfinished texts (`search.step_beam`).

    One beam is step-level best-of-n; with a prefix value as score, blockwise controlled decoding.
    """
    steps = _steps(setting, prompts, model, block, temperature)
    found = search.step_beam(steps.propose, steps.score, steps.ended, steps.starts, n=n, beams=beams, depth=steps.depth)
    return _found(steps, found)


def mcts(setting: Setting, prompts: Sequence[Prompt], *, model: str, n: int = 3, simulations: int = 5, block: int = 8,
         temperature: float = 1.0) -> list[Written]:  # fmt: skip
    """Monte Carlo tree search over steps of `block` tokens (`search.mcts_decode`).

    A state is worth the logistic function of config.scores of its greedy completion.
    """
    steps = _steps(setting, prompts, model, block, temperature)
    found = search.mcts_decode(
        steps.propose, steps.value, steps.ended, steps.starts, n=n, simulations=simulations, depth=steps.depth
    )
    return _found(steps, found)


def deal(setting: Setting, prompts: Sequence[Prompt], *, model: str, width: int = 10, beams: int = 1,
         lookahead: int = 8, weight: float = 1.0) -> list[Written]:  # fmt: skip
    """Tokens chosen by log-prob and by config.scores of where a greedy look ahead takes them (`search.deal`)."""
    if lookahead < 0:
        raise ValueError(f"lookahead: must be at least 0, got {lookahead}")
    steps = _steps(setting, prompts, model, 1, 0.0)
    network, params = setting.model("model", model)

    @jax.jit
    def of_batch(params, tokens, mask):
        positions = jnp.maximum(jnp.cumsum(mask, axis=-1) - 1, 0)
        h, _ = network.hidden(params, tokens, positions, jnp.where(mask, BRANCHES, 0))
        return jax.nn.log_softmax(network.unembed(params, h[:, -1]), axis=-1)

    def states(problems, prefixes):
        return [_Partial(i, tuple(p)) for i, p in zip(problems, prefixes, strict=True)]

    def next_logps(problems, prefixes):
        return np.asarray(of_batch(params, *steps.padded(states(problems, prefixes))))[: len(prefixes)]

    def look_ahead(problems, prefixes, ahead):
        # Always as far as the longest, one shape, and cut: a greedy beginning does not depend on what follows.
        going = steps.proceed(states(problems, prefixes), 1, lookahead, 0.0)
        return [s.tokens[: len(p) + ahead] for (s,), p in zip(going, prefixes, strict=True)]

    def heuristic(problems, prefixes):
        return steps.score(states(problems, prefixes))

    best = search.deal(
        next_logps, look_ahead, heuristic, len(prompts), width=width, beams=beams, lookahead=lookahead, weight=weight,
        length=setting.completion_length, end=setting.tokenizer.eos_id,
    )  # fmt: skip
    return [
        Written(steps.text(_Partial(i, h[0].tokens)), len(h[0].tokens), {"logp": h[0].logp, "score": h[0].score})
        for i, h in enumerate(best)
    ]


FEEDBACK = "{prompt}{answer}\nFeedback: "
REFINE = "{prompt}{answer}\nFeedback: {feedback}\nBetter: "


def self_refine(setting: Setting, prompts: Sequence[Prompt], *, model: str, rounds: int = 3, feedback: str = FEEDBACK,
                refine: str = REFINE, critic: str = "", stop: str = "correct",
                temperature: float = 0.7) -> list[Written]:  # fmt: skip
    """Answers, criticises and answers again with the critique in sight (`search.self_refine`).

    The templates have {prompt}, {answer} and {feedback}. `critic` is package.module:function (prompt, answer, record)
    to a text; "": the model itself. A critique with `stop` in it ends the rounds. Prompts are texts, no conversations.
    """
    loaded, calls = setting.model("model", model), itertools.count()
    if not all(isinstance(p.prompt, str) for p in prompts):
        raise ValueError("self_refine: its templates are for prompts that are texts")
    judge = prompt_sets.function("critic", critic) if critic else None
    prefix = setting.tokenizer.prefix_ids(False)

    def ask(texts: Sequence[str]) -> list[str]:
        ids = [[*prefix, *setting.tokenizer.encode(text)] for text in texts]
        width = -(-max(map(len, ids)) // _STEP) * _STEP
        inputs = rollouts.pad_prompts(ids, width, setting.tokenizer.pad_id)
        rng = jax.random.fold_in(setting.rng, next(calls))
        drawn = sampler.sample(*loaded, *inputs, rng, **setting.drawing(temperature))
        return [w.text for w in _texts(setting, drawn)]

    def criticise(problems, answers):
        if judge:
            return [str(judge(p.prompt, a, p.record)) for p, a in zip(problems, answers, strict=True)]
        return ask([feedback.format(prompt=p.prompt, answer=a) for p, a in zip(problems, answers, strict=True)])

    def again(problems, answers, said):
        rows = zip(problems, answers, said, strict=True)
        return ask([refine.format(prompt=p.prompt, answer=a, feedback=f) for p, a, f in rows])

    results = search.self_refine(
        lambda problems: ask([p.prompt for p in problems]), criticise, again, lambda said: stop in said, prompts,
        rounds=rounds,
    )  # fmt: skip
    return [Written(r.answer, len(setting.tokenizer.encode(r.answer)) + 1, {"rounds": len(r.history)}) for r in results]
