"""Rollouts on which two code bases are compared, and our side of the comparison: the whole way from a config's entry.

A rollout is `ROWS` prompts with `GROUP` completions each of up to `T` tokens, as the online script lays it out.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import alignment.policy_gradients
from alignment import objective, statistics

ROWS, GROUP, T = 2, 3, 5
N = ROWS * GROUP

# By how much log-probs may differ from those of the behaviour, in nats: see `draw`.
STEPS = {"steep": 3.9, "extreme": 9.0, "beyond": 1e4}
KINDS = ("ordinary", "steep", "extreme")


def draw(kind: str, seed: int = 0) -> dict[str, np.ndarray]:
    """A rollout in which nothing stands behind the mask, under the names of the vocabulary, flat over completions.

    ordinary: ratios that leave the usual clip ranges on both sides for about every other token.
    steep, extreme, beyond: log-ratios of 0 and of +-3.9, +-9, +-1e4 at every token, advantages and rewards of
        0 and +-10. Sums over a completion of the first, and exp of the second, stay within what float32 and every
        clip of a log-ratio (20) or of its mean (10) allow; the third leaves them all.
    empty: ordinary, but one completion has no token. holes: ordinary, with gaps, as tool calls leave them.
    alone: ordinary, but every prompt has one completion. one prompt: ordinary, but all completions are of the same.
    alike: ordinary, but all rewards are equal.
    """
    rng = np.random.default_rng(seed)
    mask = np.arange(T) < rng.integers(2, T + 1, N)[:, None]
    if kind == "empty":
        mask[1] = False
    if kind == "holes":
        mask[:, 1], mask[:, 3:] = False, True
    step = STEPS.get(kind)
    data = {"behaviour_token_logps": -0.2 - rng.gamma(1.0, 1.5, mask.shape)}
    for name in ("policy_token_logps", "reference_token_logps"):
        away = 0.5 * rng.normal(size=mask.shape) if step is None else step * rng.integers(-1, 2, mask.shape)
        data[name] = data["behaviour_token_logps"] + away
    data = {name: np.where(mask, x, 0.0) for name, x in data.items()}
    data["rewards"] = rng.normal(size=N) if step is None else rng.choice([-10.0, 0.0, 10.0], N)
    data["greedy_rewards"] = np.repeat(rng.normal(size=ROWS), GROUP)
    groups = {"alone": np.arange(N), "one prompt": np.zeros(N, int)}
    data["group_ids"] = groups.get(kind, np.repeat(np.arange(ROWS), GROUP))
    if kind == "alike":
        data["rewards"] = np.full(N, 0.1)
    data["advantages"] = rng.normal(size=N) if step is None else rng.choice([-10.0, 0.0, 10.0], N)
    # From another generator, so that entries added here leave the ones above as they are.
    more = np.random.default_rng([seed, 1])
    for name in ("token_values", "behaviour_token_values", "token_returns"):
        data[name] = np.where(mask, more.normal(size=mask.shape) * (1.0 if step is None else 100.0), 0.0)
    data["policy_token_entropies"] = np.where(mask, more.gamma(1.0, size=mask.shape), 0.0)
    data["token_advantages"] = np.where(mask, data["advantages"][:, None], 0.0)
    return {"mask": mask} | {k: np.asarray(v, np.float32 if v.dtype.kind == "f" else np.int32) for k, v in data.items()}


class Pairing(NamedTuple):
    """An objective of ours and the function of theirs, of a rollout, that is to give the same loss and gradient.

    theirs: `(rollout, **settings) -> (loss, gradient)` with respect to `trained`.
    kinds: rollouts on which both are compared.
    """

    objective: dict
    theirs: object
    settings: dict
    kinds: tuple = KINDS
    trained: str = "policy_token_logps"


class Estimate(NamedTuple):
    """Shaping and advantages of ours and the function of theirs that is to give the same; nothing is differentiated.

    theirs: `(rollout, **settings) -> {column: array}`, of columns that ours gives.
    """

    estimators: dict
    theirs: object
    settings: dict
    kinds: tuple = (*KINDS, "beyond", "empty")


def _batch(data) -> dict:
    batch = {name: jnp.asarray(x).reshape(-1, GROUP, *x.shape[1:]) for name, x in data.items()}
    return {"valid": jnp.ones(batch["mask"].shape[:2], bool), **batch}


def ours(pairing: Pairing, data) -> tuple[np.ndarray, np.ndarray]:
    """Loss of an objective of a config, and its gradient with respect to what is trained."""
    batch = _batch(data)
    terms = objective.bind(pairing.objective, alignment.policy_gradients, "objective", statistics.EACH, list(batch))
    weights = objective.weights(terms, statistics.EACH, batch)

    def loss(x):
        x = jnp.where(batch["mask"], x, 0.0)  # as the scoring pass gives it
        sums, _ = objective.evaluate(terms, {}, statistics.EACH, {**batch, pairing.trained: x}, batch)
        return sum(term.weight * sums[term.name] / weights[term.name] for term in terms)

    value, gradient = jax.value_and_grad(loss)(batch[pairing.trained])
    return np.asarray(value), np.asarray(gradient).reshape(data[pairing.trained].shape)


def estimated(pairing: Estimate, data) -> dict[str, np.ndarray]:
    """The columns of a rollout after shaping and estimating as a config asks for."""
    batch = _batch(data)
    for name in ("advantages", "token_advantages", "token_returns"):
        del batch[name]
    gives = ("advantages", "token_advantages")
    bound = objective.bind_estimators(
        pairing.estimators, alignment.policy_gradients, "advantages", gives, [*batch, "behaviour_token_values"]
    )
    states = objective.initial_states([e.term for e in bound])
    batch, _ = objective.estimate(bound, states, {}, batch)
    return {name: np.asarray(x).reshape(N, *x.shape[2:]) for name, x in batch.items()}


def name_of(pairing: Pairing | Estimate) -> str:
    theirs = "-".join(str(v) for v in pairing.settings.values() if isinstance(v, str))
    return "-".join(x for x in ("+".join(pairing[0]), pairing.theirs.__name__, theirs) if x)


def agree(pairing: Pairing, kind: str, seed: int) -> None:
    data = draw(kind, seed)
    value, gradient = ours(pairing, data)
    expected, expected_gradient = pairing.theirs(data, **pairing.settings)
    assert np.isfinite(expected) and np.isfinite(expected_gradient).all(), kind
    np.testing.assert_allclose(value, expected, rtol=2e-5, atol=2e-6, err_msg=kind)
    scale = max(1.0, float(np.abs(expected_gradient).max()))
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-4, atol=2e-6 * scale, err_msg=kind)


def estimates_agree(pairing: Estimate, kind: str, seed: int) -> None:
    data = draw(kind, seed)
    got = estimated(pairing, data)
    for name, expected in pairing.theirs(data, **pairing.settings).items():
        assert np.isfinite(expected).all(), kind
        scale = max(1.0, float(np.abs(expected).max()))
        np.testing.assert_allclose(got[name], expected, rtol=1e-4, atol=5e-6 * scale, err_msg=f"{kind} {name}")


def differ(pairing: Pairing | Estimate) -> bool:
    """Whether ours is finite, as it has to be, and not what theirs is, on any of the rollouts."""
    differs = False
    for kind in pairing.kinds:
        for seed in range(3):
            data = draw(kind, seed)
            if isinstance(pairing, Pairing):
                got = dict(zip("vg", ours(pairing, data), strict=True))
                expected = dict(zip("vg", pairing.theirs(data, **pairing.settings), strict=True))
            else:
                got, expected = estimated(pairing, data), pairing.theirs(data, **pairing.settings)
            for name, theirs in expected.items():
                assert np.isfinite(got[name]).all(), (kind, name)
                differs |= not np.allclose(got[name], theirs, rtol=1e-3, atol=1e-4)
    return differs
