"""Losses that train a scalar reward head on preferences."""

import jax
import jax.numpy as jnp

from alignment import checks
from alignment.losses import links

Array = jax.Array


def bt_reward_loss(
    chosen_rewards: Array,
    rejected_rewards: Array,
    *,
    temperature: float = 1.0,
    label_smoothing: float = 0.0,
    center_coef: float = 0.0,
) -> Array:
    """Bradley-Terry reward-model loss: logistic regression on the difference of two rewards.

        d    = (r_w - r_l) / temperature
        loss = -(1 - e) log s(d) - e log s(-d) + center_coef * (r_w + r_l)^2

    s is the sigmoid and e the label smoothing. Centering penalises the *sum* of the two rewards: the logistic term sees
    only their difference, so the level is otherwise arbitrary. With more than two ranked responses to a prompt, the
    paper averages over the pairs of the prompt; average the values of one prompt before the batch mean.

    Args:
      chosen_rewards: r_w, the head's value at the last token of the preferred completion. Trained.
      rejected_rewards: r_l, the same for the other completion. Trained.
      temperature: in (0, inf).
      label_smoothing: e in [0, 1/2), the rate of wrong labels assumed.
      center_coef: in [0, inf); 0.01 is usual where centering is wanted.

    Shapes: rewards `[...]`, usually `[B]`; result float32 `[...]`, in nats (plus squared rewards if centred).
    Nothing is held fixed.

    Raises:
      AssertionError: shapes differ or rewards are not floating.
      ValueError: a static hyperparameter out of range.

    Paper: Ouyang et al., 2022, arXiv 2203.02155; centering from Eisenstein et al., 2023, arXiv 2312.09244. TRL's
    `reward_trainer.py` agrees. MOSS-RLHF's `-log(s(d) + 1e-5)` saturates at 11.5 and is not followed.
    """
    chosen_rewards, rejected_rewards = checks.floats(chosen_rewards=chosen_rewards, rejected_rewards=rejected_rewards)
    return bt_reward_margin_loss(
        chosen_rewards,
        rejected_rewards,
        jnp.zeros_like(chosen_rewards),
        temperature=temperature,
        label_smoothing=label_smoothing,
        center_coef=center_coef,
    )


def bt_reward_margin_loss(
    chosen_rewards: Array,
    rejected_rewards: Array,
    margins: Array,
    *,
    temperature: float = 1.0,
    label_smoothing: float = 0.0,
    center_coef: float = 0.0,
) -> Array:
    """`bt_reward_loss` that asks for a larger gap where annotators were surer: d = (r_w - r_l - margin) / temperature.

    Args:
      chosen_rewards: r_w, the head's value at the last token of the preferred completion. Trained.
      rejected_rewards: r_l, the same for the other completion. Trained.
      margins: the gap asked for, in units of reward, usually >= 0 (Llama 2: 3, 2, 1, 0 or 1, 2/3, 1/3, 0 by grade).
      temperature: in (0, inf).
      label_smoothing: e in [0, 1/2).
      center_coef: in [0, inf). The margin plays no part in the centering term.

    Shapes: all arrays `[...]`, usually `[B]`; result float32 `[...]`. Nothing is held fixed.

    Raises:
      AssertionError: shapes differ or an array is not floating.
      ValueError: a static hyperparameter out of range.

    Paper: Touvron et al., 2023 (Llama 2), arXiv 2307.09288, on Ouyang et al., 2022, arXiv 2203.02155.
    """
    chosen_rewards, rejected_rewards, margins = checks.floats(
        chosen_rewards=chosen_rewards, rejected_rewards=rejected_rewards, margins=margins
    )
    checks.number("temperature", temperature, 0.0)
    checks.number("label_smoothing", label_smoothing, 0.0, 0.5, closed="left")
    checks.number("center_coef", center_coef, 0.0, closed="left")
    gaps = (chosen_rewards - rejected_rewards - margins) / temperature
    return links.logistic(gaps, label_smoothing) + center_coef * jnp.square(chosen_rewards + rejected_rewards)


def _gap(chosen_rewards: Array, rejected_rewards: Array) -> Array:
    chosen_rewards, rejected_rewards = checks.floats(chosen_rewards=chosen_rewards, rejected_rewards=rejected_rewards)
    return chosen_rewards - rejected_rewards


def focal_reward_loss(chosen_rewards: Array, rejected_rewards: Array, *, gamma: float = 2.0) -> Array:
    """Bradley-Terry that loses interest in pairs it already ranks right.

        p = s(r_w - r_l),  loss = -(1 - 2 max(0, p - 1/2))^gamma * log p

    The factor is 1 wherever p <= 1/2, so misordered pairs cost exactly what they cost in `bt_reward_loss`; it falls to
    0 as p goes to 1. (FocalPO, in `alignment.losses.focal_po`, does the opposite.)

    Args:
      chosen_rewards, rejected_rewards: r_w and r_l. Trained, through the factor too.
      gamma: in [0, inf); 0 is Bradley-Terry.

    Shapes: both `[...]`, usually `[B]`; result float32 `[...]`.

    Raises:
      AssertionError: shapes differ or rewards are not floating.
      ValueError: static gamma out of range.

    Paper: Cai et al., 2024 (InternLM2), arXiv 2403.17297; compared in Liu et al., 2024 (Skywork-Reward),
    arXiv 2410.18451. No training code is published; the formula is the reports'.
    """
    gaps = _gap(chosen_rewards, rejected_rewards)
    checks.number("gamma", gamma, 0.0, closed="left")
    # The factor's base is min(1, 2 s(-d)); as a logarithm its power has a finite slope where it is 0.
    log_base = jnp.minimum(0.0, jnp.log(2.0) + jax.nn.log_sigmoid(-gaps))
    return jnp.exp(gamma * log_base) * links.logistic(gaps)


def barrier_reward_loss(
    chosen_rewards: Array, rejected_rewards: Array, *, gamma: float = 2.0, limit: float = 5.0, barrier: float = 0.02
) -> Array:
    """`focal_reward_loss` plus a logarithmic barrier that keeps both rewards within (-limit, limit).

        loss = focal + barrier * (1/2) * sum over r in {r_w, r_l} of -(log(limit + r) + log(limit - r))

    Within two ten-thousandths of the limit, and beyond it, the barrier goes on as its own tangent: the logarithm has no
    value there, and clamping r, as is usual, would leave rewards that have escaped without any pull.

    Args:
      chosen_rewards, rejected_rewards: r_w and r_l. Trained.
      gamma: of the focal factor, in [0, inf).
      limit: in (0, inf).
      barrier: weight k in [0, inf).

    Shapes: both `[...]`, usually `[B]`; result float32 `[...]`.

    Raises:
      AssertionError: shapes differ or rewards are not floating.
      ValueError: a static hyperparameter out of range.

    Paper: Cai et al., 2024 (InternLM2), arXiv 2403.17297; Liu et al., 2024, arXiv 2410.18451. Reports split the barrier
    over the two rewards differently; here each has half of it.
    """
    focal = focal_reward_loss(chosen_rewards, rejected_rewards, gamma=gamma)
    checks.number("limit", limit, 0.0)
    checks.number("barrier", barrier, 0.0, closed="left")
    edge = 1 - 2e-4  # all in units of the limit, so that nothing cancels but in this constant
    slope = 2 * edge / (1 - edge**2)

    def wall(reward):
        place = reward / limit
        inside = jnp.clip(place, -edge, edge)
        value = -(2 * jnp.log(jnp.asarray(limit, reward.dtype)) + jnp.log1p(inside) + jnp.log1p(-inside))
        return value + slope * jnp.maximum(jnp.abs(place) - edge, 0.0)

    chosen_rewards, rejected_rewards = checks.floats(chosen_rewards=chosen_rewards, rejected_rewards=rejected_rewards)
    return focal + barrier * 0.5 * (wall(chosen_rewards) + wall(rejected_rewards))


def hinge_reward_loss(chosen_rewards: Array, rejected_rewards: Array, *, target_gap: float = 1.0) -> Array:
    """max(0, target_gap - (r_w - r_l)): nothing is learnt from a pair whose gap is wide enough.

    Args:
      chosen_rewards, rejected_rewards: r_w and r_l. Trained.
      target_gap: in [0, inf).

    Shapes: both `[...]`, usually `[B]`; result float32 `[...]`, in units of reward.

    Raises:
      AssertionError: shapes differ or rewards are not floating.
      ValueError: static target_gap out of range.

    Paper: compared in Liu et al., 2024 (Skywork-Reward), arXiv 2410.18451.
    """
    gaps = _gap(chosen_rewards, rejected_rewards)
    checks.number("target_gap", target_gap, 0.0, closed="left")
    return jnp.maximum(0.0, target_gap - gaps)


def margin_mse_reward_loss(chosen_rewards: Array, rejected_rewards: Array, *, target_gap: float = 1.0) -> Array:
    """((r_w - r_l) - target_gap)^2: the gap is regressed on a constant, and one that is too large costs as well.

    Args:
      chosen_rewards, rejected_rewards: r_w and r_l. Trained.
      target_gap: in [0, inf).

    Shapes: both `[...]`, usually `[B]`; result float32 `[...]`, in squared units of reward.

    Raises:
      AssertionError: shapes differ or rewards are not floating.
      ValueError: static target_gap out of range.

    Paper: compared in Liu et al., 2024 (Skywork-Reward), arXiv 2410.18451.
    """
    gaps = _gap(chosen_rewards, rejected_rewards)
    checks.number("target_gap", target_gap, 0.0, closed="left")
    return jnp.square(gaps - target_gap)


def scaled_bt_reward_loss(chosen_rewards: Array, rejected_rewards: Array, margins: Array) -> Array:
    """Bradley-Terry whose every pair counts as often as it is strong: -m * log s(r_w - r_l).

    The strength scales the loss and so leaves its minimum where it is; in `bt_reward_margin_loss` it moves the gap that
    is asked for.

    Args:
      chosen_rewards, rejected_rewards: r_w and r_l. Trained.
      margins: m, the grade of the preference, 1 (slight) to 3 (strong) in the paper. Held fixed.

    Shapes: all `[...]`, usually `[B]`; result float32 `[...]`.

    Raises:
      AssertionError: shapes differ or an array is not floating.

    Paper: Wang et al., 2024 (HelpSteer2-Preference), arXiv 2410.01257.
    """
    chosen_rewards, rejected_rewards, margins = checks.floats(
        chosen_rewards=chosen_rewards, rejected_rewards=rejected_rewards, margins=margins
    )
    return jax.lax.stop_gradient(margins) * links.logistic(chosen_rewards - rejected_rewards)


def bt_with_ties(chosen_rewards: Array, rejected_rewards: Array, ties: Array, *, eta: float = 0.1) -> Array:
    """Rao and Kupper's model of three outcomes, minus the log-probability of the one that was seen.

        P(w) = s(d - eta),  P(l) = s(-d - eta),  P(tie) = (e^(2 eta) - 1) P(w) P(l),  d = r_w - r_l

    A tie, in which the names "chosen" and "rejected" mean nothing, pulls the two rewards together.

    Args:
      chosen_rewards, rejected_rewards: r_w and r_l. Trained.
      ties: bool, True where neither side was preferred.
      eta: half the width of indifference, in units of reward, in [0, inf); at 0 ties are impossible and cost infinitely
        much. It may be a traced array, and so be learnt: softplus keeps it positive.

    Shapes: all `[...]`, usually `[B]`; result float32 `[...]`.

    Raises:
      AssertionError: shapes differ, rewards not floating or ties not bool.
      ValueError: static eta out of range.

    Paper: Rao and Kupper, 1967 (Journal of the American Statistical Association; standard practice in arena ratings).
    The product form of P(tie) is used: 1 - P(w) - P(l) cancels where eta is small.
    """
    gaps = _gap(chosen_rewards, rejected_rewards)
    checks.boolean(ties=ties)
    checks.same_shape(chosen_rewards=gaps, ties=ties)
    checks.number("eta", eta, 0.0, closed="left")
    won, lost = jax.nn.log_sigmoid(gaps - eta), jax.nn.log_sigmoid(-gaps - eta)
    width = 2 * eta + jnp.log(-jnp.expm1(-2 * jnp.asarray(eta, gaps.dtype)))  # log(e^(2 eta) - 1), without overflow
    return -jnp.where(ties, width + won + lost, won)


def bt_with_ties_davidson(chosen_rewards: Array, rejected_rewards: Array, ties: Array, *, nu: float = 0.2) -> Array:
    """Davidson's model of three outcomes: P(w) : P(l) : P(tie) = e^(d/2) : e^(-d/2) : nu, with d = r_w - r_l.

    Args:
      chosen_rewards, rejected_rewards: r_w and r_l. Trained.
      ties: bool, True where neither side was preferred.
      nu: in [0, inf): equal rewards tie with probability nu / (2 + nu). It may be a traced array and so be learnt; the
        default is this library's.

    Shapes: all `[...]`, usually `[B]`; result float32 `[...]`.

    Raises:
      AssertionError: shapes differ, rewards not floating or ties not bool.
      ValueError: static nu out of range.

    Paper: Davidson, 1970 (Journal of the American Statistical Association; standard practice in arena ratings).
    """
    gaps = _gap(chosen_rewards, rejected_rewards)
    checks.boolean(ties=ties)
    checks.same_shape(chosen_rewards=gaps, ties=ties)
    checks.number("nu", nu, 0.0, closed="left")
    tie = jnp.broadcast_to(jnp.log(jnp.asarray(nu, gaps.dtype)), gaps.shape)
    return jax.nn.logsumexp(jnp.stack([gaps / 2, -gaps / 2, tie]), axis=0) - jnp.where(ties, tie, gaps / 2)


def genarm(
    policy_chosen_logps: Array,
    policy_rejected_logps: Array,
    *,
    beta: float = 0.05,
    label_smoothing: float = 0.0,
    gamma: float = 0.0,
) -> Array:
    """Autoregressive reward model: Bradley-Terry with the log-prob of the completion itself as its reward.

        d    = beta (log pi_r(y_w | x) - log pi_r(y_l | x)) - gamma, log-probs summed over tokens
        loss = -(1 - e) log s(d) - e log s(-d)

    pi_r is a language model whose log-prob is the reward, so every next token has a reward, log pi_r(y_t | ..), that a
    decoder can add to a base model's logits. `dpo` with a reference that finds both completions equally likely. The sum
    and not the mean: rewards only fall with length, so mind the lengths of the pairs.

    Args:
      policy_chosen_logps, policy_rejected_logps: summed log-probs under the reward model. Trained.
      beta: beta_r in (0, inf); 0.05 on HH, 0.1 on Tulu 2, 0.5 (helpful) and 0.01 (harmless) on BeaverTails.
      label_smoothing: e in [0, 1/2).
      gamma: a margin, in [0, inf); 0 in the paper.

    Shapes: log-probs `[...]`, usually `[B]`; result float32 `[...]`, in nats.

    Raises:
      AssertionError: shapes differ or log-probs are not floating.
      ValueError: a static hyperparameter out of range.

    Paper: Xu et al., 2024, arXiv 2410.08193; the authors' code agrees, whose margin and smoothing are options.
    """
    checks.number("beta", beta, 0.0)
    checks.number("label_smoothing", label_smoothing, 0.0, 0.5, closed="left")
    checks.number("gamma", gamma, 0.0, closed="left")
    chosen, rejected = checks.floats(
        policy_chosen_logps=policy_chosen_logps, policy_rejected_logps=policy_rejected_logps
    )
    margin = beta * (chosen - rejected) - gamma
    return (1 - label_smoothing) * links.logistic(margin) + label_smoothing * links.logistic(-margin)
