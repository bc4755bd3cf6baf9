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
