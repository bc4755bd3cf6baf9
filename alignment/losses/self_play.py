"""Losses of self-play: pairs that a policy or its opponent wrote, labelled by a judge, an oracle or a reward model.

The pairs come from rollouts (`alignment.training.pairs`, `config.rollout.pairs`), so the losses of all other modules
go with them too, and these with pairs of a file. Throughout, a log-prob of a completion is the sum over its tokens, in
nats, s is the sigmoid,

    h = (log pi(y_w|x) - log ref(y_w|x)) - (log pi(y_l|x) - log ref(y_l|x))

and pi_t is the policy of the iteration that wrote the pairs. Methods whose formula has pi_t in the reference's place
read it as the reference, which then follows the policy (`config.reference.update_every`, with `update_weight` 1).
`reference_*` and `behaviour_*` arguments, win rates and proportions are always held fixed. Values come back per pair;
`example_mean` is the papers' reduction.
"""

import jax
import jax.numpy as jnp

from alignment import checks
from alignment.losses import links, margins, preference
from alignment.losses.masking import keep

Array = jax.Array
_stop = jax.lax.stop_gradient


def spin(
    policy_chosen_logps: Array,
    policy_rejected_logps: Array,
    reference_chosen_logps: Array,
    reference_rejected_logps: Array,
    *,
    beta: float = 0.1,
) -> Array:
    """Self-play fine-tuning: -log s(beta * h), a demonstration chosen over what the previous iterate pi_t wrote.

    The loss is `dpo`; the pairs and the reference pi_t, which is the opponent, make the method. An iteration starts at
    log 2, and p_data = pi_t is its fixed point. With an unrestricted policy the exact step is
    pi_{t+1} ~ pi_t (p_data / pi_t)^(1/beta): beta = 1 arrives in one, smaller ones overshoot.

    Args:
      policy_chosen_logps: log pi of the demonstration. Trained, as are those of the rejected.
      policy_rejected_logps: log pi of the sample of pi_t.
      reference_chosen_logps, reference_rejected_logps: the same under pi_t. Held fixed.
      beta: the paper's lambda, in (0, inf); 0.1, and 5 in the last of four iterations.

    Shapes: log-probs `[...]`, usually `[B]`; result float32 `[...]`, in nats.

    Raises:
      AssertionError: shapes differ or log-probs are not floating.
      ValueError: static beta out of range.

    Paper: Chen et al., 2024, arXiv 2401.01335. The authors' `spin_loss` agrees.
    """
    return preference.dpo(
        policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps, beta=beta
    )


def spin_hinge(
    policy_chosen_logps: Array,
    policy_rejected_logps: Array,
    reference_chosen_logps: Array,
    reference_rejected_logps: Array,
    *,
    beta: float = 0.1,
) -> Array:
    """`spin` with the hinge in place of the logistic loss: max(0, 1 - beta * h). An iteration starts at 1.

    Args:
      policy_chosen_logps, policy_rejected_logps: log pi of the demonstration and of the sample of pi_t. Trained.
      reference_chosen_logps, reference_rejected_logps: the same under pi_t. Held fixed.
      beta: the paper's lambda, in (0, inf).

    Shapes: log-probs `[...]`, usually `[B]`; result float32 `[...]`.

    Raises:
      AssertionError: shapes differ or log-probs are not floating.
      ValueError: static beta out of range.

    Paper: Chen et al., 2024, arXiv 2401.01335; the hinge is an option of the authors' code.
    """
    return links.hinge(
        margins.log_ratio(
            policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps, beta=beta
        )
    )


def sppo(
    policy_chosen_logps: Array,
    policy_rejected_logps: Array,
    reference_chosen_logps: Array,
    reference_rejected_logps: Array,
    chosen_win_rates: Array,
    rejected_win_rates: Array,
    *,
    eta: float = 1000.0,
) -> Array:
    """Self-play preference optimization: ((a_w - eta (P_w - 1/2))^2 + (a_l - eta (P_l - 1/2))^2) / 2.

    a = log(pi / pi_t) of each completion, P its probability to be preferred to a sample of pi_t. Each likelihood has a
    target of its own, so what a prompt adds to both does not cancel: the log-normaliser of the exact step
    pi_t exp(eta P) is taken to be eta / 2. With the paper's eta the loss starts at some 1e5.

    Args:
      policy_chosen_logps, policy_rejected_logps: log pi of the completions. Trained.
      reference_chosen_logps, reference_rejected_logps: the same under pi_t, which sampled them. Held fixed.
      chosen_win_rates, rejected_win_rates: P, in [0, 1]; of K samples the mean over all K, itself (1/2) among them.
      eta: step size, in (0, inf); 1000 in the paper (its code has beta = 1 / eta).

    Shapes: all `[...]`, usually `[B]`; result float32 `[...]`, in squared nats.

    Raises:
      AssertionError: shapes differ, log-probs or win rates not floating.
      ValueError: static eta out of range.

    Paper: Wu et al., 2024, arXiv 2405.00675. The authors' `sppo_loss` agrees.
    """
    checks.number("eta", eta, 0.0)
    chosen, rejected = margins.ratios_of_sides(
        policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps
    )
    chosen, rejected, wins, losses = checks.floats(
        chosen=chosen, rejected=rejected, chosen_win_rates=chosen_win_rates, rejected_win_rates=rejected_win_rates
    )
    wins, losses = _stop(wins), _stop(losses)
    return 0.5 * (jnp.square(chosen - eta * (wins - 0.5)) + jnp.square(rejected - eta * (losses - 0.5)))


def sppo_hard(
    policy_chosen_logps: Array,
    policy_rejected_logps: Array,
    reference_chosen_logps: Array,
    reference_rejected_logps: Array,
    *,
    eta: float = 1000.0,
) -> Array:
    """`sppo` without win rates: (a_w - eta / 2)^2 + (a_l + eta / 2)^2, as if the chosen always and the other never won.

    Args:
      policy_chosen_logps, policy_rejected_logps: log pi of the completions. Trained.
      reference_chosen_logps, reference_rejected_logps: the same under pi_t. Held fixed.
      eta: step size, in (0, inf).

    Shapes: all `[...]`, usually `[B]`; result float32 `[...]`, in squared nats.

    Raises:
      AssertionError: shapes differ or log-probs not floating.
      ValueError: static eta out of range.

    Paper: Wu et al., 2024, arXiv 2405.00675. TRL's 'sppo_hard' adds the squares, as here, where `sppo` averages them:
    at win rates of 1 and 0 this is twice `sppo`.
    """
    checks.number("eta", eta, 0.0)
    chosen, rejected = margins.ratios_of_sides(
        policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps
    )
    return jnp.square(chosen - eta / 2) + jnp.square(rejected + eta / 2)


def online_dpo(
    policy_chosen_logps: Array,
    policy_rejected_logps: Array,
    reference_chosen_logps: Array,
    reference_rejected_logps: Array,
    *,
    beta: float = 0.1,
) -> Array:
    """DPO on fresh samples: -log s(beta * h), both of the current policy, labelled in the same step.

    The loss is `dpo` (and no gradient passes through the sampling); the reference stays where the run began. The chosen
    one is the better by score, and of equals the first (`alignment.training.pairs.best_and_worst`).

    Args:
      policy_chosen_logps, policy_rejected_logps: log pi of the completions. Trained.
      reference_chosen_logps, reference_rejected_logps: the same under the reference. Held fixed.
      beta: in (0, inf).

    Shapes: log-probs `[...]`, usually `[B]`; result float32 `[...]`, in nats.

    Raises:
      AssertionError: shapes differ or log-probs are not floating.
      ValueError: static beta out of range.

    Paper: Guo et al., 2024, arXiv 2402.04792. TRL's 'sigmoid' agrees.
    """
    return preference.dpo(
        policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps, beta=beta
    )


def ipo_md(
    policy_chosen_logps: Array,
    policy_rejected_logps: Array,
    reference_chosen_logps: Array,
    reference_rejected_logps: Array,
    preference_proportions: Array,
    *,
    tau: float = 0.1,
) -> Array:
    """IPO on fresh samples and soft labels: p (h - 1 / (2 tau))^2 + (1 - p)(h + 1 / (2 tau))^2.

    On samples of the current policy (online IPO) its stationary point is the regularised Nash policy
    pi ~ ref exp(P pi / tau); IPO-MD draws them from a mixture of policy and reference (`experiments.engines.ipo_md`)
    instead. On other pairs it gives the best response to the data, as `ipo` does, which it is at p = 1.

    Args:
      policy_chosen_logps, policy_rejected_logps: log pi of the completions. Trained.
      reference_chosen_logps, reference_rejected_logps: the same under the reference. Held fixed.
      preference_proportions: p, the probability in [0, 1] that the chosen is preferred. Held fixed.
      tau: in (0, inf); TRL calls it beta.

    Shapes: all `[...]`, usually `[B]`; result float32 `[...]`, in squared nats.

    Raises:
      AssertionError: shapes differ, log-probs or proportions not floating.
      ValueError: static tau out of range.

    Paper: Calandriello et al., 2024, arXiv 2403.08635. TRL's online trainer has the hard labels alone.
    """
    checks.number("tau", tau, 0.0)
    margin = margins.log_ratio(
        policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps, beta=1.0
    )
    margin, p = checks.floats(margin=margin, preference_proportions=preference_proportions)
    p = _stop(p)
    return p * jnp.square(margin - 1 / (2 * tau)) + (1 - p) * jnp.square(margin + 1 / (2 * tau))


def inpo(
    policy_chosen_logps: Array,
    policy_rejected_logps: Array,
    behaviour_chosen_logps: Array,
    behaviour_rejected_logps: Array,
    reference_chosen_logps: Array,
    reference_rejected_logps: Array,
    *,
    eta: float = 0.0075,
    tau: float = 0.0025,
) -> Array:
    """Iterative Nash policy optimization: (d(pi) - (tau / eta) d(ref) - (1 - tau / eta) d(pi_t) - 1 / (2 eta))^2.

    d is log-prob of the chosen minus that of the rejected, both drawn from pi_t. The population minimiser is one step
    of online mirror descent from pi_t with a KL tie to the reference; win rates need not be estimated. pi_t = ref is
    `ipo` with its tau = eta. The target 1 / (2 eta) is 67 at the default: the learning rate has to be small.

    Args:
      policy_chosen_logps, policy_rejected_logps: log pi of the completions. Trained.
      behaviour_chosen_logps, behaviour_rejected_logps: the same under pi_t, which sampled them. Held fixed.
      reference_chosen_logps, reference_rejected_logps: the same under the reference. Held fixed.
      eta: inverse step size, in (0, inf).
      tau: weight of the tie to the reference, in [0, inf); eta / 3 in the paper.

    Shapes: all `[...]`, usually `[B]`; result float32 `[...]`, in squared nats.

    Raises:
      AssertionError: shapes differ or log-probs not floating.
      ValueError: a static hyperparameter out of range.

    Paper: Zhang et al., 2024, arXiv 2407.00617. No official code.
    """
    checks.number("eta", eta, 0.0)
    checks.number("tau", tau, 0.0, closed="left")
    chosen, rejected, old_chosen, old_rejected, ref_chosen, ref_rejected = checks.floats(
        policy_chosen_logps=policy_chosen_logps,
        policy_rejected_logps=policy_rejected_logps,
        behaviour_chosen_logps=behaviour_chosen_logps,
        behaviour_rejected_logps=behaviour_rejected_logps,
        reference_chosen_logps=reference_chosen_logps,
        reference_rejected_logps=reference_rejected_logps,
    )
    share = tau / eta
    anchor = _stop(share * (ref_chosen - ref_rejected) + (1 - share) * (old_chosen - old_rejected))
    return jnp.square(chosen - rejected - anchor - 1 / (2 * eta))


def onpo(
    policy_chosen_logps: Array,
    policy_rejected_logps: Array,
    reference_chosen_logps: Array,
    reference_rejected_logps: Array,
    *,
    eta: float = 1.0,
) -> Array:
    """Optimistic Nash policy optimization: (h - eta / 2)^2, the reference being an auxiliary policy.

    One iteration minimises it twice on the same pairs of the played policy: first the auxiliary policy against its old
    self, then the played policy against the new auxiliary one. It is `inpo` with its tau = 0, eta = 1 / eta here.

    Args:
      policy_chosen_logps, policy_rejected_logps: log-probs under the policy that is solved for. Trained.
      reference_chosen_logps, reference_rejected_logps: the same under the auxiliary policy. Held fixed.
      eta: step size, in (0, inf); it multiplies the target, where that of `inpo` divides it.

    Shapes: all `[...]`, usually `[B]`; result float32 `[...]`, in squared nats.

    Raises:
      AssertionError: shapes differ or log-probs not floating.
      ValueError: static eta out of range.

    Paper: Zhang et al., 2025, arXiv 2502.16852. No official code.
    """
    checks.number("eta", eta, 0.0)
    margin = margins.log_ratio(
        policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps, beta=1.0
    )
    return jnp.square(margin - eta / 2)


def dno(
    policy_chosen_logps: Array,
    policy_rejected_logps: Array,
    reference_chosen_logps: Array,
    reference_rejected_logps: Array,
    chosen_win_rates: Array,
    rejected_win_rates: Array,
    *,
    eta: float = 0.1,
) -> Array:
    """Direct Nash optimization: -z log s(d) - (1 - z) log s(-d),  d = eta h,  z = s(r_w - r_l).

    r is the win rate against pi_t, the reference here. The minimiser with full support is pi_t exp(r / eta) / Z, one
    step of soft policy iteration. Win rates lie in [0, 1], so z lies in [0.27, 0.73]; which of the two is called chosen
    does not matter. `dno_prct` has labels in place of win rates.

    Args:
      policy_chosen_logps, policy_rejected_logps: log pi of the completions. Trained.
      reference_chosen_logps, reference_rejected_logps: the same under pi_t. Held fixed.
      chosen_win_rates, rejected_win_rates: r, the probability to be preferred to a sample of pi_t. Held fixed.
      eta: in (0, inf).

    Shapes: all `[...]`, usually `[B]`; result float32 `[...]`, in nats.

    Raises:
      AssertionError: shapes differ, log-probs or win rates not floating.
      ValueError: static eta out of range.

    Paper: Rosset et al., 2024, arXiv 2404.03715 (algorithm 1). No official code; the paper names no practical eta for
    this form, and 0.1 is that of the practical one.
    """
    checks.number("eta", eta, 0.0)
    margin = margins.log_ratio(
        policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps, beta=1.0
    )
    margin, wins, losses = checks.floats(
        margin=margin, chosen_win_rates=chosen_win_rates, rejected_win_rates=rejected_win_rates
    )
    z = jax.nn.sigmoid(_stop(wins) - _stop(losses))
    return z * jax.nn.softplus(-eta * margin) + (1 - z) * jax.nn.softplus(eta * margin)


def dno_prct(
    policy_chosen_logps: Array,
    policy_rejected_logps: Array,
    reference_chosen_logps: Array,
    reference_rejected_logps: Array,
    *,
    eta: float = 0.1,
) -> Array:
    """Practical direct Nash optimization: -log s(eta * h) with pi_t as the reference, which is `dpo`.

    The pairs make the method: several samples of pi_t and a demonstration, ranked together, and of them those with a
    large margin. Pairs in which the demonstration always wins make it `spin`.

    Args:
      policy_chosen_logps, policy_rejected_logps: log pi of the completions. Trained.
      reference_chosen_logps, reference_rejected_logps: the same under pi_t. Held fixed.
      eta: in (0, inf); the paper uses 0.1 and 0.05.

    Shapes: all `[...]`, usually `[B]`; result float32 `[...]`, in nats.

    Raises:
      AssertionError: shapes differ or log-probs not floating.
      ValueError: static eta out of range.

    Paper: Rosset et al., 2024, arXiv 2404.03715 (algorithm 2). No official code.
    """
    checks.number("eta", eta, 0.0)
    return preference.dpo(
        policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps, beta=eta
    )


def _mean_of_samples(values: Array, samples_mask: Array) -> Array:
    """Mean over the samples of a pair that are there; 0 if none is."""
    checks.boolean(samples_mask=samples_mask)
    checks.leading_shape(policy_samples_logps=values, samples_mask=samples_mask)
    there = jnp.any(samples_mask, axis=-1)
    return jnp.sum(keep(values, there), axis=-1) / jnp.maximum(jnp.sum(there, axis=-1), 1)


def xpo(
    policy_chosen_logps: Array,
    policy_rejected_logps: Array,
    reference_chosen_logps: Array,
    reference_rejected_logps: Array,
    policy_samples_logps: Array,
    samples_mask: Array,
    *,
    beta: float = 0.1,
    alpha: float = 1e-5,
) -> Array:
    """Exploratory preference optimization: -log s(beta * h) + alpha * log pi(y'), y' a sample of the reference.

    The pair is a sample of the policy and y' in the order of the judge. The bonus is added to what is minimised: it
    takes probability from what the reference already writes (in expectation it is -alpha KL(ref || pi) and a constant).
    It is unbounded below, so alpha has to be small. alpha = 0 is `dpo`.

    Args:
      policy_chosen_logps, policy_rejected_logps: log pi of the pair. Trained.
      reference_chosen_logps, reference_rejected_logps: the same under the reference. Held fixed.
      policy_samples_logps: log pi of the samples of the reference (several: their mean). Trained.
      samples_mask: bool, True on the tokens of each sample; one without a token is not there.
      beta: in (0, inf).
      alpha: in [0, inf).

    Shapes: pair log-probs `[...]`, samples `[..., K]`, mask `[..., K, T]`; result float32 `[...]`, in nats.

    Raises:
      AssertionError: shapes do not agree, log-probs not floating, mask not bool.
      ValueError: a static hyperparameter out of range.

    Paper: Xie et al., 2024, arXiv 2405.21046. The paper sums over the data of all rounds; TRL takes the current batch.
    """
    checks.number("alpha", alpha, 0.0, closed="left")
    fit = preference.dpo(
        policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps, beta=beta
    )
    (samples,) = checks.floats(policy_samples_logps=policy_samples_logps)
    checks.leading_shape(policy_chosen_logps=policy_chosen_logps, policy_samples_logps=samples)
    return fit + alpha * _mean_of_samples(samples, samples_mask)


def selm(
    policy_chosen_logps: Array,
    policy_rejected_logps: Array,
    reference_chosen_logps: Array,
    reference_rejected_logps: Array,
    policy_samples_logps: Array,
    reference_samples_logps: Array,
    samples_mask: Array,
    *,
    beta: float = 0.01,
    alpha: float = 1e-3,
) -> Array:
    """Self-exploring language models: -log s(beta * h) + alpha * beta * (log pi(y') - log ref(y')), y' ~ ref.

    y' is the reference's fresh sample, even where it is the chosen one too. The expected bonus is
    -alpha beta KL(ref || pi), zero at the reference, and its gradient that of `xpo` with alpha * beta. The reference
    becomes the last policy after every iteration. alpha = 0 is `dpo`.

    Args:
      policy_chosen_logps, policy_rejected_logps: log pi of the pair. Trained.
      reference_chosen_logps, reference_rejected_logps: the same under the reference. Held fixed.
      policy_samples_logps: log pi of the samples of the reference (several: their mean). Trained.
      reference_samples_logps: the same under the reference. Held fixed.
      samples_mask: bool, True on the tokens of each sample; one without a token is not there.
      beta: in (0, inf).
      alpha: in [0, inf).

    Shapes: pair log-probs `[...]`, samples `[..., K]`, mask `[..., K, T]`; result float32 `[...]`, in nats.

    Raises:
      AssertionError: shapes do not agree, log-probs not floating, mask not bool.
      ValueError: a static hyperparameter out of range.

    Paper: Zhang et al., 2024, arXiv 2405.19332. The authors' `optimistic_dpo_loss` agrees.
    """
    checks.number("alpha", alpha, 0.0, closed="left")
    fit = preference.dpo(
        policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps, beta=beta
    )
    samples, reference = checks.floats(
        policy_samples_logps=policy_samples_logps, reference_samples_logps=reference_samples_logps
    )
    checks.leading_shape(policy_chosen_logps=policy_chosen_logps, policy_samples_logps=samples)
    return fit + alpha * beta * _mean_of_samples(samples - _stop(reference), samples_mask)


def pit_gap_loss(responses_rewards: Array, labels: Array, responses_mask: Array) -> Array:
    """Reward model of PIT: g(w, l) above g(w, w) and g(l, l), and these above g(l, w); each by -log s(difference).

    g(a, b) is the reward of the ordered pair (a, b), written one after the other: how much better a is than b. The list
    has the four of them, and the labels say which is above which: each is held above those of the next lower label.
    Adding a number to all changes nothing; all equal it is 4 log 2. With g(a, b) = r(a) - r(b) it is four times
    Bradley-Terry on r.

    Args:
      responses_rewards: g of each ordered pair. Trained.
      labels: 1 for (w, l), 1/2 for (w, w) and (l, l), 0 for (l, w), as `alignment.data.recipes.pit.pit_gap_lists`
        writes them; only their order counts. Held fixed.
      responses_mask: bool, True on the tokens of each; one without a token is not there.

    Shapes: rewards and labels `[..., K]`, mask `[..., K, T]`; result float32 `[...]`, in nats.

    Raises:
      AssertionError: shapes do not agree, rewards or labels not floating, mask not bool.

    Paper: Wang et al., 2023, arXiv 2310.00898. No official code.
    """
    gaps, labels = checks.floats(responses_rewards=responses_rewards, labels=labels)
    checks.boolean(responses_mask=responses_mask)
    checks.leading_shape(responses_rewards=gaps, responses_mask=responses_mask)
    there = jnp.any(responses_mask, axis=-1)
    gaps, labels = keep(gaps, there), _stop(keep(labels, there))
    above = (labels[..., :, None] > labels[..., None, :]) & there[..., :, None] & there[..., None, :]
    between = jnp.any(above[..., :, :, None] & above[..., None, :, :], axis=-2)  # i above k above j
    terms = jax.nn.softplus(gaps[..., None, :] - gaps[..., :, None])
    return jnp.sum(jnp.where(above & ~between, terms, 0.0), axis=(-2, -1))
