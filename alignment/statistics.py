"""The vocabulary of kernel arguments, the resolver that reads signatures, and what delivers an argument.

A kernel (a loss or a metric) asks for what it needs by the names of its arguments. A name is either

* a statistic of a model on the completions, `WHOSE_[SIDE_]STATISTIC`, for example `policy_chosen_logps`:

  WHOSE       `policy` (differentiated) | `reference`, `teacher` (frozen models) | `behaviour` (stored when sampled) |
              `mixed` (the policy on hidden states between those of a row's first two sides, see `mixed_states`)
  SIDE        `chosen`, `rejected` (a pair) | `responses` (a ranked list, adds an axis K) | `forget`, `retain` |
              `gold` (a third, best completion) | `mismatched` (a completion of another prompt) |
              `confident`, `unconfident` (two demonstrations, of which a model found the first likelier) |
              `samples` (unlabelled completions beside a pair, adds an axis K) | nothing
  STATISTIC   `logps`               [B]     log-probability, summed over the completion's tokens
              `token_logps`         [B, T]  log-probability of each completion token
              `token_entropies`     [B, T]  entropy of the next-token distribution, in nats
              `token_collision_probs` [B, T]  sum over the vocabulary of p_v^2: how likely two draws agree
              `token_uniform_kls`   [B, T]  KL(uniform || p): how far it is from saying nothing, in nats
              `token_kls`           [B, T]  KL(policy || reference) over the whole vocabulary, in nats
              `token_forward_kls`   [B, T]  KL(reference || policy) over the whole vocabulary, in nats
              `sampled_token_logps` [B, T, K] log-probability of the tokens `sampled_tokens`, see below
              or a name of `FULL_VOCABULARY` below, [B, T]; the last four kinds belong to `policy` only,
                                    and those of them that compare with the reference to `teacher` as well, where they
                                    compare the policy with the teacher: `teacher_token_kls` is KL(policy || teacher),
                                    `teacher_token_forward_kls` KL(teacher || policy). Trained through the policy
              a name of `OF_TEACHER` below, [B, T], of `teacher` only
              `token_features`      [B, T, D] of `teacher` and `reference` only, as those of the trained model
              `elbo_terms`          [B, 1]  of a masked diffusion model, in place of a log-prob: a term of the bound of
                                    the likelihood, from the one masking of the row (`mdlm_elbo_terms`); of `behaviour`
                                    and of frozen models too

* something known from the batch, `[SIDE_]mask` [B, T] bool, `[SIDE_]lengths` [B] int32;
* `[SIDE_]tokens` [B, T] int32, the completion's own; `[SIDE_]sampled_tokens` [B, T, K] int32, K others that the policy
  drew at each place of it, anew at every step: how many, and at which temperature, is the run's to say (`Draws`);
* `[SIDE_]rewards` [B] float32: the scalar head of the trained model at the last completion token; without a side, when
  the data set has a column `rewards`, that column;
* `[SIDE_]token_scores` [B, T] float32: the same head at every completion token, read from the hidden state of the token
  itself (not of the one before, which predicts it);
* `token_values` [B, T] float32: the same head at the position that predicts the token, the value before it is known;
  `behaviour_token_values` is what it said when the completion was sampled; `prompt_values` [B] is the first of them,
  read at the last token of the prompt;
* `[SIDE_]head_rewards` [B, n] and `[SIDE_]token_head_scores` [B, T, n] float32: all n = `config.model.reward_heads`,
  where `rewards` and `token_scores` are the first of them; `prompt_head_rewards` [B, n]: all heads at the prompt's last
  token; `head_weights` [n, D] float32: the heads' weight rows, the same for the whole batch;
* `[SIDE_]features` [B, D] and `[SIDE_]token_features` [B, T, D] float32: the hidden states that the heads read
  (token features: or those of an earlier layer, as the run says, `features_layer`);
  `[SIDE_]second_features` [B, D]: the same from a second pass in which part of the weights is dropped;
* `[SIDE_]token_rewards` [B, T] float32, and the other columns of `TOKEN_COLUMNS`: constants per completion token, from
  the data or from the run;
* a label of the data set under its own name (`LABELS`);
* `state`: the memory between steps of a method that has one.

A statistic of `NUMBERED` depends on a hyperparameter of the kernel that asks for it, the mixture's share of the teacher
for one: the objective adds its value to the name (`with_number`), and every value asked for is computed.

With `responses` every shape gains K after B. Position t of a `[B, T]` array scores completion token t; the shift by one
token happens here (through `predict_from`) and nowhere else. What stands behind the mask is zero.

Where a row holds a group of completions that are examples of their own (rollouts of one prompt, `EACH`), the names
without a side stand for all of them, one after another: B is then rows times completions.

`needs_of` turns signatures into the set of statistics to compute, `compute` computes them with the chunked pass of
`vocabulary_walk`, so that no array of shape [batch, time, vocabulary] exists, and `deliver` hands them out by name.
"""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from alignment import vocabulary_walk
from alignment.models import heads, multi_head
from alignment.policy_gradients.masked_diffusion import mdlm_elbo_terms
from alignment.vocabulary_walk import FULL_VOCABULARY, WITH_NUMBER, WITH_REFERENCE, pairwise_names, token_statistics

Array = jax.Array

WHOSE = ("policy", "reference", "teacher", "behaviour", "mixed")
SIDES = ("chosen", "rejected", "responses", "samples", "forget", "retain", "gold", "mismatched")
SIDES += ("confident", "unconfident")
ONE_MODEL = ("logps", "elbo_terms", *vocabulary_walk.ONE_MODEL)
OF_TEACHER = {
    "token_mixture_kls": "KL(policy || m), m = beta * teacher + (1 - beta) * policy",
    "token_forward_mixture_kls": "KL(teacher || m) for the same m",
    "token_disagreements": "sum over the vocabulary of |teacher - contrast|, in [0, 2]; two models, both fixed",
    "token_extrapolated_kls": "KL(policy || softmax(z + alpha (z - z_contrast))), z the teacher's logits and alpha = "
    "strength * disagreement + `CONTRAST_FLOOR`",
}
# Statistics that depend on a number, and the hyperparameter of a kernel that gives it.
NUMBERED = {**dict.fromkeys(WITH_NUMBER, "beta"), "token_extrapolated_kls": "strength"}
WITH_CONTRAST = ("token_disagreements", "token_extrapolated_kls")
CONTRAST_FLOOR = 1e-3
PER_LIST = ("labels", "judgements")  # [B, K], of the responses of a list
PER_OBJECTIVE = ("objective_rewards", "objective_advantages", "preference_weights")  # [B, K] as well
PER_OBJECTIVE += ("chosen_margin_rewards", "rejected_margin_rewards")
OF_TOKEN_LOGPS = ("logps", "elbo_terms")  # what is made of the log-probs of the tokens
EACH = ("each completion",)  # as the sides of data whose completions are examples of their own
HEAD = ("rewards", "token_scores", "token_values", "prompt_values", "head_rewards", "token_head_scores")
HEAD += ("prompt_head_rewards", "head_weights", "features", "second_features", "token_features")
FEATURES = ("features", "second_features", "token_features")  # of the trunk: they need no head
OF_THE_ROW = ("prompt_head_rewards", "head_weights")  # the same for every side
LISTS = ("responses", "samples")  # sides that add an axis K
TOKEN_COLUMNS = {
    "token_rewards": "reward of each token",
    "token_advantages": "advantage of each token",
    "token_returns": "what a value function is to predict at each token",
    "demonstration_mask": "bool, True on tokens that were given and not sampled",
    "token_log_denominators": "logarithm of what the likelihood gradient of each token is divided by",
    "token_stabilisation": "what masks or scales the gradient of each token",
    "step_labels": "in [0, 1], whether the reasoning step that ends at the token is right",
    "step_mask": "bool, True at the last token of each step's separator",
    "trained_mask": "bool, True on tokens that a loss acts on, where those are not all of the completion",
    "span_labels": "1 on tokens that a critique praises, -1 on those that it blames, 0 elsewhere",
}
# The columns of TOKEN_COLUMNS that may stand for `mask`.
TOKEN_MASKS = ("demonstration_mask", "trained_mask", "step_mask")
FROM_BATCH = ("mask", "lengths", "tokens", "sampled_tokens", *TOKEN_COLUMNS)
LABELS = {
    "labels": "[B, K] graded label of each response of a list, best first",
    "margins": "[B] by how much the chosen completion is preferred",
    "preference_proportions": "[B] share of raters who prefer the chosen completion, strictly between 0 and 1",
    "annotator_ids": "[B] int32, who labelled the pair",
    "weights": "[B] weight of the example",
    "rewards": "[B] reward of the completion, from the data",
    "advantages": "[B] advantage of the completion",
    "group_ids": "[B] int32, examples that share a prompt share the number",
    "prompt_ids": "[B] int32, number of the prompt in the data set: memory per prompt is indexed by it",
    "greedy_rewards": "[B] reward of the likeliest completion of the same prompt",
    "answers": "[B] int32, number of the final answer within its group; equal answers share it",
    "strata": "[B] int32, kind of trajectory, for estimators that compare like with like",
    "correct": "[B] bool, whether the completion passed its check",
    "global_advantages": "[B] advantage of the completion's group among all groups",
    "blend_weights": "[B] weight of the local against the global advantage",
    "reference_values": "[B] what a frozen value function expects of the prompt",
    "roll_in_lengths": "[B] int32, tokens that the completion begins with and another policy wrote",
    "coins": "[B] uniform numbers in [0, 1) that decided how the completion was sampled",
    "iterations": "[B] int32, number of the iteration, from 0, that the completion was sampled in",
    "ids": "[B] int32, number of the example in the data set",
    "random_bits": "[B] int32, new at every training step: what a kernel's random draws follow from",
    "rated": "[B, K] bool, which ratings are there",
    "ratings": "[B, K] rating of each attribute of the completion; 0 where there is none",
    "strength_means": "[B] mean gap of the pair by the run's voters, positive where they agree with the label",
    "win_rates": "[B] probability that the completion is preferred to those of the opponent",
    "chosen_win_rates": "[B] the same for the chosen completion of a pair",
    "rejected_win_rates": "[B] the same for the rejected completion",
    "opponents": "[B] bool, whether the opponent wrote the completion",
    "ties": "[B] bool, whether neither completion of the pair was preferred",
    "objective_rewards": "[B, K] reward of the completion under each objective: the entries of config.rewards by name",
    "objective_advantages": "[B, K] advantage of the completion under each objective",
    "preference_weights": "[B, K] the preference that the prompt was extended with",
    "baseline_rewards": "[B] reward of the baseline answer to the completion's prompt",
    "prompt_baselines": "[B] the same, one for a whole list of responses",
    "satisfied": "[B] bool, whether every judge is satisfied with the completion",
    "judgements": "[B, K] bool, the same for each response of a list",
    "task_ids": "[B] int32, the task of the prompt",
    "objective_ids": "[B] int32, the objective that a pair was labelled for",
    "chosen_margin_rewards": "[B, K] rewards of the chosen completion under the other objectives",
    "rejected_margin_rewards": "[B, K] rewards of the rejected completion under the other objectives",
    "chosen_harmful": "[B] bool, whether the chosen completion is harmful by itself",
    "rejected_harmful": "[B] bool, whether the rejected completion is harmful by itself",
    "desirable": "[B] bool, whether the completion is a wanted one",
    "drifts": "[B] how far the policy has moved since the last completion of the prompt was sampled; 0 for the first",
    "sampling_weights": "[B] how readily the completion is drawn when a rollout is resampled for training",
    "target_logps": "[B] unnormalised log-probability of the completion under the distribution that is trained towards",
    "log_partitions": "[B] logarithm of the normaliser of that distribution, as estimated so far",
    "times": "[B] share of the response that is hidden from a masked diffusion model, in expectation",
    "mix_weights": "[B] in [0, 1], share of a row's first side in its mixed hidden states; the second has the rest",
    "valid": "[B] bool, False for rows that only pad the batch; every batch has it",
}


class Name(NamedTuple):
    """A parsed argument name; `whose` is "batch", "head", "label" or "state" where no model's log-probs are meant."""

    whose: str
    side: str
    statistic: str


class Draws(NamedTuple):
    """How `sampled_tokens` are drawn: so many at each place, from softmax(logits / temperature)."""

    count: int
    temperature: float


class Needs(NamedTuple):
    """What a run has to compute per step: token statistics of each model, and what is read from the reward head."""

    policy: frozenset[str]
    frozen: Mapping[str, frozenset[str]]  # {"reference": {"token_logps"}}
    head: frozenset[str]  # of HEAD

    @property
    def models(self) -> frozenset[str]:
        """The frozen models that have to be in memory."""
        implied = {"reference"} if self.policy & pairwise_names() else set()
        if any(vocabulary_walk.number_of(s)[0] in WITH_CONTRAST for s in self.frozen.get("teacher", ())):
            implied.add("contrast")
        return frozenset(w for w, s in self.frozen.items() if s) | implied


def _statistics_of(whose: str) -> tuple[str, ...]:
    if whose == "policy":
        return (*ONE_MODEL, *WITH_REFERENCE, *FULL_VOCABULARY, "sampled_token_logps")
    if whose == "teacher":
        return (*ONE_MODEL, *WITH_REFERENCE, *FULL_VOCABULARY, *OF_TEACHER, "token_features")
    if whose == "reference":
        return (*ONE_MODEL, "token_features")
    if whose == "mixed":
        return ("logps", "token_logps")
    return ("logps", "token_logps", "elbo_terms", "token_values")


def known_names() -> list[str]:
    """Every name a kernel may use, for the message about one it may not."""
    sides = ("", *(f"{side}_" for side in SIDES))
    names = [f"{whose}_{side}{s}" for whose in WHOSE for side in sides for s in _statistics_of(whose)]
    names += [f"{side}{s}" for side in sides for s in (*FROM_BATCH, *HEAD)]
    return [*names, *LABELS, "state"]


def parse(name: str) -> Name:
    """Splits an argument name by the grammar above; ValueError with the nearest known names otherwise."""
    if name == "state":
        return Name("state", "", "state")
    if name in LABELS and name != "rewards":
        return Name("label", "", name)
    whose, _, rest = name.partition("_")
    if whose not in WHOSE:
        whose, rest = "", name
    side = next((s for s in SIDES if rest.startswith(s + "_")), "")
    statistic = rest[len(side) + 1 :] if side else rest
    plain = statistic.partition("@")[0]
    if whose and plain in _statistics_of(whose) and (plain == statistic or plain in NUMBERED):
        return Name(whose, side, statistic)
    if not whose and statistic in FROM_BATCH:
        return Name("batch", side, statistic)
    if not whose and statistic in HEAD:
        return Name("label" if name == "rewards" else "head", side, statistic)
    nearest = difflib.get_close_matches(name, known_names(), n=3, cutoff=0.5)
    raise ValueError(f"unknown statistic {name!r}" + (f"; nearest known: {', '.join(nearest)}" if nearest else ""))


def arguments_of(kernel: Callable) -> tuple[str, ...]:
    """The array arguments of a kernel: its parameters that are not keyword-only."""
    parameters = inspect.signature(kernel).parameters.values()
    return tuple(p.name for p in parameters if p.kind is not inspect.Parameter.KEYWORD_ONLY)


def hyperparameters_of(kernel: Callable) -> dict[str, Any]:
    """The keyword-only parameters of a kernel with their defaults (`inspect.Parameter.empty` where there is none)."""
    parameters = inspect.signature(kernel).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}


def on_side(name: str, side: str) -> str:
    """The same name on a side: `policy_token_logps` on `chosen` is `policy_chosen_token_logps`."""
    parsed = parse(name)
    if not side or parsed.side or parsed.whose in ("label", "state"):
        return name
    return "_".join(p for p in (parsed.whose if parsed.whose in WHOSE else "", side, parsed.statistic) if p)


def with_number(name: str, hyperparameters: Mapping[str, Any]) -> str:
    """A name of `NUMBERED` for the number that a kernel's hyperparameters say; any other name as it is.

    ValueError if the kernel has no such hyperparameter, or if its value is not known before the run.
    """
    parsed = parse(name)
    if parsed.statistic not in NUMBERED:
        return name
    key = NUMBERED[parsed.statistic]
    if not isinstance(hyperparameters.get(key), (int, float)):
        raise ValueError(f"{name!r} depends on the hyperparameter {key!r}, got {hyperparameters.get(key)!r}")
    side = parsed.side and f"{parsed.side}_"
    return f"{parsed.whose}_{side}{vocabulary_walk.numbered(parsed.statistic, hyperparameters[key])}"


def needs_of(names: Iterable[str]) -> Needs:
    """The statistics to compute so that every one of `names` can be delivered."""
    policy: set[str] = set()
    frozen: dict[str, set[str]] = {}
    head: set[str] = set()
    for parsed in map(parse, names):
        statistic = "token_logps" if parsed.statistic in OF_TOKEN_LOGPS else parsed.statistic
        if parsed.whose == "policy":
            policy.add(statistic)
        elif parsed.whose == "mixed":
            policy.add("mixed_token_logps")
        elif parsed.whose in ("reference", "teacher"):
            frozen.setdefault(parsed.whose, set()).add(statistic)
        elif parsed.whose == "head":
            head.add("token_values" if statistic == "prompt_values" else statistic)
        elif parsed.statistic == "sampled_tokens":
            policy.add("sampled_token_logps")
    return Needs(frozenset(policy), {k: frozenset(v) for k, v in frozen.items()}, frozenset(head))


# --- from batch to named statistics ----------------------------------------------------------------------------------


# Of a batch, what scoring its rows reads; levels where the batch has them.
ROW_COLUMNS = ("tokens", "positions", "segment_ids", "targets", "predict_from", "mask", "last_index")
ROW_COLUMNS += ("instruction_levels",)


def row_of(model, batch: Mapping[str, Array]) -> dict[str, Array]:
    """What this model's forward pass reads of a batch, by the names of its arguments.

    Instruction levels are left out for a model without embeddings of them: rows that have them serve both.
    """
    names = ("tokens", "positions", "segment_ids", *["instruction_levels"] * (model.config.num_instruction_levels > 0))
    return {name: batch.get(name) for name in names}


def completion_hidden(model, params, batch: Mapping[str, Array]) -> tuple[Array, Array]:
    """Hidden states of the rows [B, L, D], and of the positions that predict each completion token [B, S, T, D]."""
    hidden, _ = model.hidden(params, **row_of(model, batch))
    return hidden, jax.vmap(lambda h, index: h[index])(hidden, batch["predict_from"])


def completion_columns(batch: Mapping[str, Array]) -> Array:
    """Column of the row in which each completion token itself stands, i32 [B, S, T]; 0 behind the mask."""
    mask, slots = batch["mask"], jnp.arange(batch["mask"].shape[-1])
    if slots.size == batch["tokens"].shape[-1]:
        columns = jnp.broadcast_to(slots, mask.shape)  # packed: target t is the token of column t
    else:  # a tree: a completion is one run of columns that ends at `last_index`
        first = batch["last_index"] - mask.sum(axis=-1, dtype=jnp.int32) + 1
        columns = first[..., None] + slots
    return jnp.where(mask, columns, 0)


def compute(
    needs: Needs,
    model,
    params,
    frozen: Mapping[str, tuple[Any, Any]],
    batch: Mapping[str, Array],
    *,
    chunk_size: int | None = None,
    temperature: float = 1.0,
    view_dropout: float = 0.1,
    draws: Draws | None = None,
    features_layer: int | None = None,
) -> dict[str, Array]:
    """Every statistic of `needs` on a batch: {"policy_token_logps": [B, S, T], ..., "rewards": [B, S]}, side by side.

    `frozen` maps "reference", "teacher" and "contrast" to (model, params), those of them that are asked for. Stored
    log-probs in the batch ("reference_token_logps" [B, S, T]) take the place of a forward pass of that model. A batch
    with `support` (`token_sets`, [B, S, T, words]) says which tokens could be drawn at each place: the policy's
    statistics are then those of its distribution restricted to them.
    """
    out: dict[str, Array] = {}
    score = functools.partial(
        token_statistics, targets=batch["targets"], mask=batch["mask"], chunk_size=chunk_size, temperature=temperature
    )
    hidden, completions = completion_hidden(model, params, batch)

    @functools.cache
    def fixed(whose: str) -> tuple[Array, dict[str, Any]]:
        """Hidden states of a frozen model's rows, and what a walk has to know of it."""
        other, other_params = frozen[whose]
        other_params = lax.stop_gradient(other_params)
        rows, h = completion_hidden(other, other_params, batch)
        return rows, {"hidden": h, "head": other.head(other_params), "softcap": other.config.logit_softcap}

    of_teacher = needs.frozen.get("teacher", frozenset())
    for whose, names in needs.frozen.items():
        if names := [n for n in names if n in ONE_MODEL and f"{whose}_{n}" not in batch]:
            other = fixed(whose)[1]
            scored = score(names, other["hidden"], other["head"], logit_softcap=other["softcap"])
            out |= {f"{whose}_{n}": lax.stop_gradient(v) for n, v in scored.items()}


    def token_features(model, params, last: Callable[[], Array]) -> Array:
        """Of the last layer, whose states the other statistics need too, or of an earlier one."""
        if features_layer is None:
            return _at_tokens(last(), batch)
        return _at_tokens(model.hidden(params, **row_of(model, batch), layers=features_layer)[0], batch)

    for whose, names in needs.frozen.items():
        if "token_features" in names:
            features = token_features(*frozen[whose], functools.partial(lambda whose: fixed(whose)[0], whose))
            out[f"{whose}_token_features"] = lax.stop_gradient(features)
    policy = (completions, model.head(params))
    if needs.policy and multi_head.NAME in params:  # every row is scored by the head of its objective
        policy = multi_head.routed(params, completions, batch["objective_ids"], model.config.dtype)
    if "sampled_token_logps" in needs.policy:
        if draws is None:
            raise ValueError(
                "sampled tokens are asked for, and this run draws none (config.draws of a fine-tuning run)"
            )
        # A number per row, and not per batch, so that micro-batches draw what the whole would have drawn.
        seeds = batch.get("seeds", batch["ids"])
        uniforms = jax.vmap(
            lambda seed: jax.random.uniform(jax.random.key(seed), (*batch["mask"].shape[1:], draws.count))
        )(seeds)
        out["sampled_tokens"], out["policy_sampled_token_logps"] = vocabulary_walk.sampled_statistics(
            *policy, uniforms, batch["mask"], draw_temperature=draws.temperature,
            chunk_size=chunk_size, logit_softcap=model.config.logit_softcap, temperature=temperature,
        )  # fmt: skip
    walk = functools.partial(
        score, hidden=policy[0], head=policy[1], logit_softcap=model.config.logit_softcap, support=batch.get("support")
    )
    if "mixed_token_logps" in needs.policy:
        both = (batch["mask"][:, 0] & batch["mask"][:, 1])[:, None]  # responses are aligned by the number of the token
        between = mixed_states(policy[0][:, 0], policy[0][:, 1], batch["mix_weights"], both[:, 0])[:, None]
        out["mixed_token_logps"] = score(
            ("token_logps",), jnp.repeat(between, 2, axis=1), policy[1], logit_softcap=model.config.logit_softcap,
            targets=batch["targets"][:, :2], mask=jnp.repeat(both, 2, axis=1),
        )["token_logps"]  # fmt: skip
    of_places = sorted(needs.policy - {"sampled_token_logps", "mixed_token_logps"})
    against_teacher = sorted(of_teacher - {*ONE_MODEL, "token_features"})
    in_contrast = [n for n in against_teacher if vocabulary_walk.number_of(n)[0] in WITH_CONTRAST]
    against_teacher = [n for n in against_teacher if n not in in_contrast]
    if needs.policy & pairwise_names():
        out |= {f"policy_{n}": v for n, v in walk(of_places, **_compared_with(fixed("reference")[1])).items()}
        of_places = []
    if against_teacher:  # in one walk with what is asked of the policy alone
        scored = walk([*of_places, *against_teacher], **_compared_with(fixed("teacher")[1]))
        out |= {f"{'policy' if n in of_places else 'teacher'}_{n}": v for n, v in scored.items()}
    elif of_places:
        out |= {f"policy_{n}": v for n, v in walk(of_places).items()}
    if in_contrast:
        out |= _contrasted(in_contrast, fixed("teacher")[1], fixed("contrast")[1], score, walk)
    if needs.head and heads.VALUE_MODEL in params:  # the heads are those of a network of their own
        params = heads.value_params(params)
        hidden, completions = completion_hidden(model, params, batch)
    if needs.head & {"rewards", "head_rewards"}:
        out["head_rewards"] = heads.rewards(params, hidden, batch["last_index"])
        out["rewards"] = out["head_rewards"][..., 0]
    if "prompt_head_rewards" in needs.head:  # the column that predicts a completion's first token
        out["prompt_head_rewards"] = heads.rewards(params, hidden, batch["predict_from"][:, :1, 0])[:, 0]
    if "head_weights" in needs.head:
        out["head_weights"] = heads.weights(params)
    if "features" in needs.head:
        out["features"] = _last_hidden(hidden, batch)
    if "second_features" in needs.head:
        dropped = drop_weights(params, batch["random_bits"], view_dropout)
        again, _ = model.hidden(dropped, **row_of(model, batch))
        out["second_features"] = _last_hidden(again, batch)
    if "token_features" in needs.head:
        out["token_features"] = token_features(model, params, lambda: hidden)
    if "token_values" in needs.head:
        values = heads.token_scores(params, jnp.where(batch["mask"][..., None], completions, 0))[..., 0]
        out["token_values"] = jnp.where(batch["mask"], values, 0.0)
    if needs.head & {"token_scores", "token_head_scores"}:
        # Scored by column and gathered after, so that no [B, S, T, D] array is made of the hidden states.
        scores = heads.token_scores(params, jnp.where(batch["segment_ids"][..., None] != 0, hidden, 0))
        picked = jax.vmap(lambda row, columns: row[columns])(scores, completion_columns(batch))
        out["token_head_scores"] = jnp.where(batch["mask"][..., None], picked, 0.0)
        out["token_scores"] = out["token_head_scores"][..., 0]
    return out


def mixed_states(first: Array, second: Array, mix_weights: Array, mask: Array) -> Array:
    """Hidden states w z + (1 - w) z' of Mixup: position by position, one w for each row; 0 behind the mask.

    The output matrix is linear, so logits (before a soft cap) mix alike: W (w z + (1 - w) z') = w W z + (1 - w) W z'.
    The states are to be those after the last norm; before it the two would differ. Both members are trained.

    Shapes: first and second `[B, T, D]`, mix_weights `[B]`, mask bool `[B, T]`; result `[B, T, D]` in the states' type.

    Paper: Zhang et al., 2017, arXiv 1710.09412 (of inputs); Xiao et al., 2024, arXiv 2410.05248 (of these states).
    """
    weights = lax.stop_gradient(mix_weights.astype(jnp.float32))[:, None, None]
    z, other = (jnp.where(mask[..., None], x, 0).astype(jnp.float32) for x in (first, second))
    return (weights * z + (1 - weights) * other).astype(first.dtype)


def _compared_with(other: Mapping[str, Any]) -> dict[str, Any]:
    return {f"reference_{name}": value for name, value in other.items()}


def _contrasted(names, teacher: Mapping[str, Any], contrast: Mapping[str, Any], score, walk) -> dict[str, Array]:
    """The statistics of `WITH_CONTRAST`.

    Logits (1 + alpha) h W' - alpha g U' of two models are those of one: its hidden states are [(1 + alpha) h, -alpha g]
    and its output matrix is [W, U], so the walk needs to know nothing of them. In float32: alpha is large where the two
    differ, and what is left is their difference.
    """
    distance = ("token_total_variations",)
    apart = score(
        distance, teacher["hidden"], teacher["head"], logit_softcap=teacher["softcap"], **_compared_with(contrast)
    )[distance[0]]
    disagreements = lax.stop_gradient(2.0 * apart)
    out = {"teacher_token_disagreements": disagreements}
    for name in names:
        _, strength = vocabulary_walk.number_of(name)
        if strength is None:
            continue
        if teacher["softcap"] or contrast["softcap"]:
            raise ValueError(f"{name.partition('@')[0]}: logits with a soft cap cannot be extrapolated")
        alpha = (strength * disagreements + CONTRAST_FLOOR)[..., None]
        both = (teacher["hidden"].astype(jnp.float32), contrast["hidden"].astype(jnp.float32))
        hidden = jnp.concatenate([(1 + alpha) * both[0], -alpha * both[1]], axis=-1)
        head = jnp.concatenate([x["head"].astype(jnp.float32) for x in (teacher, contrast)], axis=-1)
        kls = walk(("token_kls",), reference_hidden=hidden, reference_head=head)
        out[f"teacher_{name}"] = kls["token_kls"]
    return out


def _at_tokens(hidden: Array, batch: Mapping[str, Array]) -> Array:
    """Hidden states of the completion tokens themselves, float32 [B, S, T, D], 0 behind the mask."""
    picked = jax.vmap(lambda row, columns: row[columns])(hidden, completion_columns(batch))
    return jnp.where(batch["mask"][..., None], picked, 0).astype(jnp.float32)


def _last_hidden(hidden: Array, batch: Mapping[str, Array]) -> Array:
    return jnp.take_along_axis(hidden, batch["last_index"][..., None], axis=1).astype(jnp.float32)


def drop_weights(params, random_bits: Array, rate: float):
    """The parameters with each entry of every matrix set to 0 with probability `rate`, the rest scaled up.

    One draw for the whole (micro-)batch, from its first row's bits. Dropping weights (Wan et al., 2013) and not
    activations, because a model here is three functions of parameters, and none of them takes a key.
    """
    leaves, tree = jax.tree_util.tree_flatten_with_path(params)
    keys = jax.random.split(jax.random.key(random_bits.reshape(-1)[0]), len(leaves))

    def drop(path, x: Array, key: Array) -> Array:
        if x.ndim < 2 or any(kind in jax.tree_util.keystr(path) for kind in ("norm", "bias")):  # stacked, two axes
            return x
        return jnp.where(jax.random.bernoulli(key, 1 - rate, x.shape), x / (1 - rate), 0).astype(x.dtype)

    kept = [drop(path, x, key) for (path, x), key in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(tree, kept)


def deliver(name: str, sides: tuple[str, ...], computed: Mapping[str, Array], batch: Mapping[str, Array]) -> Array:
    """The array that a kernel's argument `name` stands for, given what `compute` returned for the same batch."""
    parsed = parse(name)
    flat = sides == EACH and not parsed.side and name not in PER_LIST  # which are of a group as a whole
    if parsed.whose == "label":
        column = batch[parsed.statistic]
        if flat and name in PER_OBJECTIVE:
            return column.reshape(-1, column.shape[-1])
        return column.reshape(-1) if flat else column

    def side(x: Array) -> Array:
        if flat:
            return x.reshape(-1, *x.shape[2:])
        if parsed.side in LISTS:  # all completions of the row from the first one of that name on
            return x[:, sides.index(parsed.side) :] if parsed.side in sides else x
        return x[:, sides.index(parsed.side)]

    if parsed.whose == "head":
        if parsed.statistic in OF_THE_ROW:
            return computed[parsed.statistic]
        if parsed.statistic == "prompt_values":
            return side(computed["token_values"])[..., 0]
        return side(computed[parsed.statistic])
    if parsed.statistic in TOKEN_COLUMNS:
        column = side(batch[parsed.statistic])
        return jnp.where(side(batch["mask"]), column, jnp.zeros((), column.dtype))
    if parsed.statistic == "sampled_tokens":
        return side(computed["sampled_tokens"])
    if parsed.statistic == "tokens":
        return side(batch["targets"])
    if parsed.whose == "batch":
        mask = side(batch["mask"])
        return mask if parsed.statistic == "mask" else mask.sum(axis=-1, dtype=jnp.int32)
    statistic = "token_logps" if parsed.statistic in OF_TOKEN_LOGPS else parsed.statistic
    key = f"{parsed.whose}_{statistic}"
    values = side(computed[key] if key in computed else batch[key])
    if parsed.statistic == "elbo_terms":
        mask, times = side(batch["mask"]), side(batch["times"])
        return mdlm_elbo_terms(values[..., None, :], mask[..., None, :], times[..., None])
    return values.sum(axis=-1) if parsed.statistic == "logps" else values


def check_available(name: str, sides: tuple[str, ...], columns: Iterable[str], kernel: str) -> None:
    """ValueError, before any compilation, if the data cannot serve a kernel's argument."""
    try:
        parsed = parse(name)
    except ValueError as error:
        raise ValueError(f"kernel {kernel!r}: {error}") from None
    columns = tuple(columns)
    if parsed.whose == "label":
        if parsed.statistic not in columns:
            there = ", ".join(columns) or "none"
            raise ValueError(f"kernel {kernel!r} needs the column {name!r}; the data set has: {there}")
        return
    if parsed.statistic == "elbo_terms" and "times" not in columns:
        raise ValueError(f"kernel {kernel!r} needs {name!r}, which experiments.diffusion alone gives: no masking here")
    if parsed.whose == "mixed" and ("mix_weights" not in columns or len(sides) < 2):
        raise ValueError(
            f"kernel {kernel!r} needs {name!r}: rows of two completions or more, here {len(sides)}, and the column "
            "'mix_weights', which config.data.corruption.mixup draws"
        )
    stored = "behaviour_token_values" if parsed.statistic == "token_values" else "behaviour_token_logps"
    if parsed.whose == "behaviour" and stored not in columns:
        what = "values" if parsed.statistic == "token_values" else "log-probs"
        raise ValueError(f"kernel {kernel!r} needs {name!r}, but the data set stores no behaviour {what}")
    if parsed.statistic in TOKEN_COLUMNS and parsed.statistic not in columns:
        how = (
            ": set config.data.revision_prompts.better and .worse, and the run scores every token once under both"
            if parsed.statistic == "token_rewards" and sides != EACH
            else f", but there is no such column; there are: {', '.join(columns) or 'none'}"
        )
        raise ValueError(f"kernel {kernel!r} needs {name!r}{how}")
    if (sides == EACH and parsed.side in ("", "responses")) or parsed.statistic in OF_THE_ROW:
        return
    if parsed.whose != "state" and parsed.side not in sides:
        offered = ", ".join(repr(s) for s in sides if s) or "one completion per example (no side)"
        hint = "; give the term a `side`" if not parsed.side else ""
        hint = "; set config.rollout.pairs" if sides == EACH and parsed.side in ("chosen", "rejected") else hint
        raise ValueError(f"kernel {kernel!r} needs {name!r}, but the data set offers {offered}{hint}")
