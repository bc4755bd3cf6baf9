"""GKD's value and gradient against TRL's own loss code; skipped where TRL or its GKD trainer is not installed.

Ours go the whole way of a training step: the entry of a config through `objective.bind`, the divergences through the
chunked pass (an identity as output matrix makes hidden states of logits), `objective.evaluate` and the reduction.
"""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import alignment.losses
from alignment import objective, vocabulary_walk

torch = pytest.importorskip("torch")
GKDTrainer = pytest.importorskip("trl.experimental.gkd.gkd_trainer").GKDTrainer

B, T, V = 3, 4, 11


def draw(kind, seed=0):
    """Logits [B, T, V] of both and a mask; "extreme": one token is 100 nats ahead of the rest, in either model."""
    rng = np.random.default_rng(seed)
    student, teacher = (2 * rng.normal(size=(B, T, V)).astype(np.float32) for _ in range(2))
    if kind == "extreme":
        student, teacher = (100 * np.eye(V, dtype=np.float32)[rng.integers(0, V, (B, T))] for _ in range(2))
    mask = np.arange(T) < rng.integers(1, T + 1, B)[:, None]
    return student, teacher, mask


def ours(student, teacher, mask, beta, temperature):
    terms = objective.bind({"gkd": {"beta": beta}}, alignment.losses, "objective", ("",), ("valid",))
    batch = {"mask": jnp.asarray(mask)[:, None], "valid": jnp.ones(B, bool)}
    names = [a.removeprefix("teacher_") for a in terms[0].arguments if a.startswith("teacher_")]

    def loss(student):
        computed = vocabulary_walk.token_statistics(
            names, student, jnp.eye(V), jnp.zeros((B, T), jnp.int32), jnp.asarray(mask), jnp.asarray(teacher),
            jnp.eye(V), chunk_size=4, temperature=temperature,
        )  # fmt: skip
        computed = {f"teacher_{name}": value[:, None] for name, value in computed.items()}
        sums, _ = objective.evaluate(terms, {}, ("",), computed, batch)
        return sums["gkd"] / objective.weights(terms, ("",), batch)["gkd"]

    value, gradient = jax.value_and_grad(loss)(jnp.asarray(student))
    return np.asarray(value), np.asarray(gradient)


def with_gradient(loss_of, student):
    leaf = torch.tensor(student, requires_grad=True)
    loss = loss_of(leaf)
    loss.backward()
    return loss.detach().numpy(), leaf.grad.numpy()


def theirs(student, teacher, mask, beta, temperature):
    labels = torch.where(torch.tensor(mask), 1, -100)
    return with_gradient(
        lambda leaf: GKDTrainer.generalized_jsd_loss(
            leaf, torch.tensor(teacher), labels=labels, beta=beta, temperature=temperature
        ),
        student,
    )


@pytest.mark.parametrize("beta", [0.0, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("kind", ["ordinary", "extreme"])
def test_value_and_gradient_are_those_of_trl(beta, kind):
    for seed, temperature in enumerate((1.0, 0.9)):
        data = draw(kind, seed)
        value, gradient = ours(*data, beta, temperature)
        expected, expected_gradient = theirs(*data, beta, temperature)
        assert np.isfinite(expected) and np.isfinite(gradient).all()
        np.testing.assert_allclose(value, expected, rtol=2e-5, atol=2e-6)
        # A log-prob of -100 has an error of 1e-5 in float32, and the gradient is a difference of such.
        atol = 2e-6 if kind == "ordinary" else 3e-5
        np.testing.assert_allclose(gradient, expected_gradient, rtol=2e-4, atol=atol)


def test_trls_trainer_scores_at_temperature_one_what_it_samples_at_another():
    """Said of the kernel to differ from a run here, whose one temperature is that of both; if not so any more, this
    fails, and the docstring of `gkd` is to change."""
    student, teacher, mask = draw("ordinary")
    # position 0 is the prompt, whose logits predict the first token; the last position predicts nothing
    labels = torch.nn.functional.pad(torch.where(torch.tensor(mask), 1, -100), (1, 0), value=-100)
    inputs = {"input_ids": torch.zeros_like(labels), "attention_mask": torch.ones_like(labels), "labels": labels}

    def padded(logits):
        return types.SimpleNamespace(logits=torch.nn.functional.pad(logits, (0, 0, 0, 1)))

    class Teacher:
        def eval(self):
            return self

        def __call__(self, **_):
            return padded(torch.tensor(teacher))

    me = types.SimpleNamespace(
        teacher_model=Teacher(), generalized_jsd_loss=GKDTrainer.generalized_jsd_loss, beta=0.5, temperature=0.9
    )
    value, _ = with_gradient(lambda leaf: GKDTrainer.compute_loss(me, lambda **_: padded(leaf), inputs), student)
    np.testing.assert_allclose(value, ours(student, teacher, mask, 0.5, 1.0)[0], rtol=2e-5)
    assert abs(value - ours(student, teacher, mask, 0.5, 0.9)[0]) > 1e-3
