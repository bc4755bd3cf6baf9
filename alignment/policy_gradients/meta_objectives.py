"""Objectives that were found, not derived: drift functions (LPO), target networks (LPG), and how they are evolved.

LPO replaces PPO's clip by a drift f(r, A) >= 0 of the ratio r = pi / pi_old and the advantage, with f(1, A) = 0 and
slope 0 there, so that the loss -(r A - f) is a mirror-learning update whatever f is. `discovered_drift` is the closed
form distilled from one. LPG goes further: a recurrent network that reads a trajectory backwards says what the policy
gradient's coefficient is. Networks here are plain functions of their weights, which the agent's loss holds fixed; the
weights are found by evolution strategies (`es_gradient`, `es_step`) on the agent's final return. The temporally aware
forms also see how far the agent's training has come. All of this is for bandits and the like, but for the distilled
drift, which is a drop-in loss.

Log-ratios are clipped to 20 in size before exp.
"""

from typing import Any

import jax
import jax.numpy as jnp

from alignment import checks
from alignment.losses.masking import keep

Array = jax.Array
_stop = jax.lax.stop_gradient
_LARGEST = 20.0
_FEATURES = 8
_OFFSET = 1e-4  # of the learned drift, before its rectifier


def _ratios(policy: Array, behaviour: Array, advantages: Array, mask: Array) -> tuple[Array, Array, Array]:
    """Entry checks, then log r, r and A, 0, 1 and 0 behind the mask."""
    policy, behaviour, advantages = checks.floats(
        policy_token_logps=policy, behaviour_token_logps=behaviour, token_advantages=advantages
    )
    policy, behaviour, advantages = (keep(x, mask) for x in (policy, behaviour, advantages))
    log_ratios = jnp.clip(policy - _stop(behaviour), -_LARGEST, _LARGEST)
    return log_ratios, jnp.exp(log_ratios), _stop(advantages)


def discovered_drift(
    policy_token_logps: Array,
    behaviour_token_logps: Array,
    token_advantages: Array,
    mask: Array,
    *,
    a: float = 2.0,
    b: float = 0.6,
) -> Array:
    """Discovered policy optimisation: -(r A - f), the closed form distilled from a learned drift.

        f = relu((r - 1) A - a tanh((r - 1) A / a))  if A >= 0,   relu(A log r - b tanh(A log r / b))  if A < 0

    A drop-in for PPO's clipped surrogate: near r = 1 it is plain importance weighting, further out the drift takes back
    what is gained, smoothly. The paper's abbreviation is DPO, which is why it is not used here.

    Args:
      policy_token_logps: log-prob of each token under the policy. Trained.
      behaviour_token_logps: the same when it was sampled. Held fixed.
      token_advantages: normalised advantage of each token. Held fixed.
      mask: bool, True on completion tokens; nothing is looked at elsewhere.
      a, b: in (0, inf).

    Shapes: all `[..., T]`; result float32 `[..., T]`, 0 behind the mask.

    Raises:
      AssertionError: shapes differ, mask not bool, another array not floating.
      ValueError: a static hyperparameter out of range.

    Paper: Lu et al., 2022, arXiv 2210.05639. Formula and constants as in the example of the rejax library.
    """
    checks.number("a", a, 0.0)
    checks.number("b", b, 0.0)
    log_ratios, ratios, advantages = _ratios(policy_token_logps, behaviour_token_logps, token_advantages, mask)
    up, down = (ratios - 1) * advantages, advantages * log_ratios
    drift = jnp.where(advantages >= 0, up - a * jnp.tanh(up / a), down - b * jnp.tanh(down / b))
    return keep(jax.nn.relu(drift) - ratios * advantages, mask)


def ppo_drift(
    policy_token_logps: Array, behaviour_token_logps: Array, token_advantages: Array, mask: Array, *, eps: float = 0.2
) -> Array:
    """PPO's clip as a drift: -(r A - relu((r - clip(r, 1 - e, 1 + e)) A)), which is -min(r A, clip(r) A).

    For putting PPO beside the other drifts; the clipped surrogate is the same loss.

    Args:
      policy_token_logps: log-prob of each token under the policy. Trained.
      behaviour_token_logps: the same when it was sampled. Held fixed.
      token_advantages: advantage of each token. Held fixed.
      mask: bool, True on completion tokens; nothing is looked at elsewhere.
      eps: half-width of the clip, in [0, inf).

    Shapes: all `[..., T]`; result float32 `[..., T]`, 0 behind the mask.

    Raises:
      AssertionError: shapes differ, mask not bool, another array not floating.
      ValueError: static eps out of range.

    Paper: Lu et al., 2022, arXiv 2210.05639 (the view of PPO that LPO starts from).
    """
    checks.number("eps", eps, 0.0, closed="left")
    _, ratios, advantages = _ratios(policy_token_logps, behaviour_token_logps, token_advantages, mask)
    drift = jax.nn.relu((ratios - jnp.clip(ratios, 1 - eps, 1 + eps)) * advantages)
    return keep(drift - ratios * advantages, mask)


def _drift_features(log_ratios: Array, ratios: Array, advantages: Array) -> Array:
    """[..., 8], all zero where the ratio is 1."""
    plain = [log_ratios, jnp.square(log_ratios), 1 - ratios, jnp.square(1 - ratios)]
    return jnp.stack(plain + [advantages * x for x in plain], axis=-1)


def _learned_drift(features: Array, hidden: Array, output: Array) -> Array:
    # Without biases: what is zero at r = 1 stays zero, and the offset under the rectifier makes the slope zero too.
    (hidden,), (output,) = checks.floats(drift_hidden=hidden), checks.floats(drift_output=output)
    _expect("drift_hidden", hidden, (features.shape[-1], output.shape[0] if output.ndim else 0))
    _expect("drift_output", output, hidden.shape[1:])
    return jax.nn.relu(jnp.tanh(features @ _stop(hidden)) @ _stop(output) - _OFFSET)


def _expect(name: str, array: Array, shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise AssertionError(f"{name} must have shape {shape}, got {array.shape}")


def lpo(
    policy_token_logps: Array,
    behaviour_token_logps: Array,
    token_advantages: Array,
    mask: Array,
    drift_hidden: Array,
    drift_output: Array,
) -> Array:
    """Learned policy optimisation: -(r A - f), f = relu(tanh(x W) v - 1e-4) with x made of r and A.

        x = [log r, (log r)^2, 1 - r, (1 - r)^2, and each times A]

    All features vanish at r = 1 and there is no bias, so f is 0 with slope 0 there for any weights: on-policy the
    gradient is REINFORCE's.

    Args:
      policy_token_logps: log-prob of each token under the policy. Trained.
      behaviour_token_logps: the same when it was sampled. Held fixed.
      token_advantages: normalised advantage of each token. Held fixed.
      mask: bool, True on completion tokens; nothing is looked at elsewhere.
      drift_hidden, drift_output: W and v, found by evolution; 128 hidden units in the paper. Held fixed.

    Shapes: W `[8, H]`, v `[H]`, the others `[..., T]`; result float32 `[..., T]`, 0 behind the mask.

    Raises:
      AssertionError: shapes do not agree, mask not bool, another array not floating.

    Paper: Lu et al., 2022, arXiv 2210.05639. The authors' code agrees.
    """
    log_ratios, ratios, advantages = _ratios(policy_token_logps, behaviour_token_logps, token_advantages, mask)
    drift = _learned_drift(_drift_features(log_ratios, ratios, advantages), drift_hidden, drift_output)
    return keep(drift - ratios * advantages, mask)


def ta_lpo(
    policy_token_logps: Array,
    behaviour_token_logps: Array,
    token_advantages: Array,
    mask: Array,
    progress: Array,
    drift_hidden: Array,
    drift_output: Array,
) -> Array:
    """Temporally aware LPO: `lpo` with a second copy of the features, scaled by how far training has come.

    Still 0 with slope 0 at r = 1. At progress 0 it is `lpo` with the first eight rows of W.

    Args:
      policy_token_logps: log-prob of each token under the policy. Trained.
      behaviour_token_logps: the same when it was sampled. Held fixed.
      token_advantages: normalised advantage of each token. Held fixed.
      mask: bool, True on completion tokens; nothing is looked at elsewhere.
      progress: n / N, updates done over updates there will be, in [0, 1]; usually one number for all rows. Held fixed.
      drift_hidden, drift_output: W and v, found by evolution. Held fixed.

    Shapes: progress `[...]`, W `[16, H]`, v `[H]`, the others `[..., T]`; result float32 `[..., T]`.

    Raises:
      AssertionError: shapes do not agree, mask not bool, another array not floating.

    Paper: Jackson et al., 2024, arXiv 2402.05828 (features as its reviews describe them; log N is left out, the
    horizon being one).
    """
    log_ratios, ratios, advantages = _ratios(policy_token_logps, behaviour_token_logps, token_advantages, mask)
    (progress,) = checks.floats(progress=progress)
    checks.leading_shape(progress=progress, policy_token_logps=ratios)
    features = _drift_features(log_ratios, ratios, advantages)
    features = jnp.concatenate([features, _stop(progress)[..., None, None] * features], axis=-1)
    return keep(_learned_drift(features, drift_hidden, drift_output) - ratios * advantages, mask)


def lpg_inputs(
    token_rewards: Array,
    dones: Array,
    policy_token_logps: Array,
    predictions: Array,
    next_predictions: Array,
    embedding_hidden: Array,
    embedding_output: Array,
) -> Array:
    """What LPG's network reads at each step: reward, done, pi(a|s), phi(y(s_t)) and (1 - done) phi(y(s_{t+1})).

    phi(y) = relu(y W) v, one embedding for both. No gradient passes.

    Args:
      token_rewards: reward of each step. Held fixed.
      dones: bool, True where the episode ends with the step.
      policy_token_logps: log-prob of the action taken. Held fixed.
      predictions, next_predictions: y, the agent's categorical prediction before and after the step. Held fixed.
      embedding_hidden, embedding_output: W and v. Held fixed.

    Shapes: rewards, dones and log-probs `[..., T]`, predictions `[..., T, M]`, W `[M, E]`, v `[E]`; result float32
    `[..., T, 5]`.

    Raises:
      AssertionError: shapes do not agree or dtypes are wrong.

    Paper: Oh et al., 2020, arXiv 2007.08794, whose network also sees the discount; without it as in Jackson et al.,
    2024, arXiv 2402.05828.
    """
    rewards, logps = checks.floats(token_rewards=token_rewards, policy_token_logps=policy_token_logps)
    now, later = checks.floats(predictions=predictions, next_predictions=next_predictions)
    (hidden,), (output,) = (
        checks.floats(embedding_hidden=embedding_hidden),
        checks.floats(embedding_output=embedding_output),
    )
    checks.boolean(dones=dones)
    checks.same_shape(token_rewards=rewards, dones=dones)
    checks.leading_shape(token_rewards=rewards, predictions=now)
    _expect("embedding_hidden", hidden, (now.shape[-1], output.shape[0] if output.ndim else 0))
    _expect("embedding_output", output, hidden.shape[1:])
    now, later = (jax.nn.relu(y @ hidden) @ output for y in (now, later))
    probabilities = jnp.exp(jnp.minimum(logps, 0.0))
    parts = [rewards, dones.astype(rewards.dtype), probabilities, now, jnp.where(dones, 0.0, later)]
    return _stop(jnp.stack(parts, axis=-1))


def ta_lpg_inputs(inputs: Array, updates: Array, horizons: Array) -> Array:
    """What the temporally aware network reads besides: n / N and log N, the same at every step of a trajectory.

    With both constant the network is LPG's with another bias.

    Args:
      inputs: from `lpg_inputs`. Held fixed.
      updates: n, updates the agent has done, integers.
      horizons: N, updates the agent will do, integers >= 1.

    Shapes: inputs `[..., T, F]`, updates and horizons `[...]`; result float32 `[..., T, F + 2]`. No gradient passes.

    Raises:
      AssertionError: shapes do not agree or dtypes are wrong.

    Paper: Jackson et al., 2024, arXiv 2402.05828. The authors' code passes the raw step and lifetime under names that
    promise these two; the paper's features are followed.
    """
    (inputs,) = checks.floats(inputs=inputs)
    checks.integers(updates=updates, horizons=horizons)
    checks.same_shape(updates=updates, horizons=horizons)
    if inputs.shape[:-2] != updates.shape or inputs.ndim < 2:
        raise AssertionError(f"inputs must have shape {(*updates.shape, 'T', 'F')}, got {inputs.shape}")
    sizes = jnp.maximum(horizons, 1).astype(inputs.dtype)
    time = jnp.stack([updates / sizes, jnp.log(sizes)], axis=-1).astype(inputs.dtype)
    time = jnp.broadcast_to(time[..., None, :], (*inputs.shape[:-1], 2))
    return _stop(jnp.concatenate([inputs, time], axis=-1))


def lpg_network(
    inputs: Array,
    dones: Array,
    gru_input: Array,
    gru_recurrent: Array,
    gru_bias: Array,
    coefficient_head: Array,
    target_head: Array,
) -> tuple[Array, Array]:
    """LPG's network: a GRU that reads the trajectory from its end, and two linear heads.

    Step t is read with the state that t + 1 left, or a zero state if the episode ends with t: what follows belongs to
    another episode. The heads give pi_hat, by which grad log pi(a_t|s_t) is multiplied, and the logits of y_hat,
    towards which the agent's prediction moves. No gradient passes: the agent holds both fixed, and the weights are
    evolved.

    Args:
      inputs: from `lpg_inputs` or `ta_lpg_inputs`. Held fixed.
      dones: bool, True where the episode ends with the step.
      gru_input, gru_recurrent, gru_bias: weights of the gates in the order reset, update, candidate. Held fixed.
      coefficient_head, target_head: weights of the heads; 256 wide, targets 30 wide in the paper. Held fixed.

    Shapes: inputs `[..., T, F]`, dones `[..., T]`, gru_input `[F, 3 H]`, gru_recurrent `[H, 3 H]`, gru_bias `[3 H]`,
    coefficient_head `[H]`, target_head `[H, M]`; results float32 `[..., T]` and `[..., T, M]`.

    Raises:
      AssertionError: shapes do not agree or dtypes are wrong.

    Paper: Oh et al., 2020, arXiv 2007.08794.
    """
    (inputs,), (weights,), (recurrent,), (bias,) = (
        checks.floats(inputs=inputs),
        checks.floats(gru_input=gru_input),
        checks.floats(gru_recurrent=gru_recurrent),
        checks.floats(gru_bias=gru_bias),
    )
    (coefficient_head,), (target_head,) = (
        checks.floats(coefficient_head=coefficient_head),
        checks.floats(target_head=target_head),
    )
    checks.boolean(dones=dones)
    checks.leading_shape(dones=dones, inputs=inputs)
    width = recurrent.shape[0]
    _expect("gru_input", weights, (inputs.shape[-1], 3 * width))
    _expect("gru_recurrent", recurrent, (width, 3 * width))
    _expect("gru_bias", bias, (3 * width,))
    _expect("coefficient_head", coefficient_head, (width,))
    _expect("target_head", target_head, (width, *target_head.shape[1:2]))

    def step(state: Array, now: tuple[Array, Array]) -> tuple[Array, Array]:
        projected, done = now
        state = jnp.where(done[..., None], 0.0, state)
        reset, update, candidate = jnp.split(projected, 3, axis=-1)
        from_reset, from_update, from_candidate = jnp.split(state @ recurrent, 3, axis=-1)
        reset, update = jax.nn.sigmoid(reset + from_reset), jax.nn.sigmoid(update + from_update)
        state = (1 - update) * jnp.tanh(candidate + reset * from_candidate) + update * state
        return state, state

    by_time = jnp.moveaxis(inputs @ weights + bias, -2, 0), jnp.moveaxis(dones, -1, 0)
    start = jnp.zeros_like(by_time[0][0, ..., :width])
    _, states = jax.lax.scan(step, start, by_time, reverse=True)
    states = jnp.moveaxis(states, 0, -2)
    return _stop(states @ coefficient_head), _stop(states @ target_head)


def lpg(
    policy_token_logps: Array,
    policy_prediction_logits: Array,
    coefficients: Array,
    target_logits: Array,
    mask: Array,
    *,
    alpha: float = 0.5,
) -> Array:
    """The agent's loss under LPG: -pi_hat * log pi(a|s) + alpha * KL(y || y_hat), differentiated through log pi and y.

    With pi_hat the advantage and alpha = 0 it is REINFORCE.

    Args:
      policy_token_logps: log-prob of the action taken. Trained.
      policy_prediction_logits: of y(s_t), the agent's categorical prediction. Trained.
      coefficients: pi_hat from `lpg_network`. Held fixed.
      target_logits: of y_hat, from `lpg_network`. Held fixed.
      mask: bool, True on the steps that count.
      alpha: weight of the prediction's KL, in [0, inf).

    Shapes: logits `[..., T, M]`, the others `[..., T]`; result float32 `[..., T]`, 0 behind the mask.

    Raises:
      AssertionError: shapes do not agree, mask not bool, another array not floating.
      ValueError: static alpha out of range.

    Paper: Oh et al., 2020, arXiv 2007.08794; Jackson et al., 2024, arXiv 2402.05828. The latter's code minimises
    log pi * pi_hat, so its pi_hat has the opposite sign; the papers' sign is kept.
    """
    logps, coefficients = checks.floats(policy_token_logps=policy_token_logps, coefficients=coefficients)
    own, target = checks.floats(policy_prediction_logits=policy_prediction_logits, target_logits=target_logits)
    checks.boolean(mask=mask)
    checks.same_shape(policy_token_logps=logps, mask=mask)
    checks.leading_shape(policy_token_logps=logps, policy_prediction_logits=own)
    checks.number("alpha", alpha, 0.0, closed="left")
    logps, coefficients = keep(logps, mask), _stop(keep(coefficients, mask))
    own, target = (jax.nn.log_softmax(jnp.where(mask[..., None], x, 0.0)) for x in (own, _stop(target)))
    kl = jnp.sum(jnp.exp(own) * (own - target), axis=-1)
    return keep(alpha * kl - coefficients * logps, mask)


def es_gradient(
    noises: Array, positive_returns: Array, negative_returns: Array, *, sigma: float = 0.1, axis_name: Any = None
) -> Array:
    """Evolution strategies: the direction in which the return rises, from pairs of opposite perturbations.

        1 / (2 P sigma) * sum over p of (u_p+ - u_p-) * noise_p

    u is the rank of a return among all 2 P, moved to -1/2 .. 1/2 (equal returns share theirs), so that neither the
    scale of the task nor an outlier matters. The expectation is to be climbed.

    Args:
      noises: standard normal, one row per pair. Held fixed.
      positive_returns, negative_returns: final return of the agent with parameters + and - sigma * noise. Held fixed.
      sigma: of the perturbations, in (0, inf).
      axis_name: mapped axis (or axes) over which the pairs are split, if they are.

    Shapes: noises `[P, D]`, returns `[P]`; result float32 `[D]`. No gradient passes.

    Raises:
      AssertionError: shapes do not agree or an array is not floating.
      ValueError: static sigma out of range.

    Paper: Salimans et al., 2017, arXiv 1703.03864; used by Lu et al., 2022, arXiv 2210.05639, and Jackson et al., 2024,
    arXiv 2402.05828. The width of the perturbations is not theirs.
    """
    (noises,) = checks.floats(noises=noises)
    positive, negative = checks.floats(positive_returns=positive_returns, negative_returns=negative_returns)
    checks.leading_shape(positive_returns=positive, noises=noises)
    checks.number("sigma", sigma, 0.0)
    every = jnp.concatenate([positive, negative])
    if axis_name is not None:
        every = jax.lax.all_gather(every, axis_name, tiled=True)

    def utility(returns: Array) -> Array:
        below = jnp.sum(every < returns[:, None], axis=1)
        equal = jnp.sum(every == returns[:, None], axis=1)
        return (below + 0.5 * (equal - 1)) / (every.shape[0] - 1) - 0.5

    total = (utility(positive) - utility(negative)).astype(noises.dtype) @ noises
    if axis_name is not None:
        total = jax.lax.psum(total, axis_name)
    return _stop(total / (every.shape[0] * sigma))


def es_step(
    parameters: Array,
    noises: Array,
    positive_returns: Array,
    negative_returns: Array,
    *,
    sigma: float = 0.1,
    learning_rate: float = 0.01,
    axis_name: Any = None,
) -> Array:
    """One step of evolution: parameters + learning_rate * `es_gradient`.

    Args:
      parameters: weights of the objective, flattened (`jax.flatten_util.ravel_pytree`). Held fixed.
      noises: standard normal, one row per pair. Held fixed.
      positive_returns, negative_returns: final return of the agent with parameters + and - sigma * noise. Held fixed.
      sigma: in (0, inf).
      learning_rate: in (0, inf); 0.01 for the temporally aware forms.
      axis_name: mapped axis (or axes) over which the pairs are split, if they are.

    Shapes: parameters `[D]`, noises `[P, D]`, returns `[P]`; result float32 `[D]`. No gradient passes.

    Raises:
      AssertionError: shapes do not agree or an array is not floating.
      ValueError: a static hyperparameter out of range.

    Paper: Salimans et al., 2017, arXiv 1703.03864.
    """
    (parameters,) = checks.floats(parameters=parameters)
    checks.number("learning_rate", learning_rate, 0.0)
    direction = es_gradient(noises, positive_returns, negative_returns, sigma=sigma, axis_name=axis_name)
    _expect("parameters", parameters, direction.shape)
    return _stop(parameters + learning_rate * direction)
