"""Online DPO and online IPO against TRL's own trainer; skipped where TRL is not installed.

TRL computes both inside `OnlineDPOTrainer.training_step`, from sampling to the backward pass. Here its own method runs
on a stand-in for the trainer whose sampling, forward pass and rewards give back the numbers of the test. TRL's trainers
of Nash-MD and XPO are gone from the installed releases; what is known of the first (a product of log-ratio and log-prob
token by token, which is biased) is held against ours in `tests/policy_gradients/test_nash_md_pg.py`.
"""

import collections
import types

import jax
import numpy as np
import pytest

from alignment import losses
from alignment.training import pairs

torch = pytest.importorskip("torch")
online_dpo_trainer = pytest.importorskip("trl.experimental.online_dpo.online_dpo_trainer")

B, T, BETA = 4, 5, 0.3


def drawn(seed=0):
    """Two completions of each of B prompts, the first of all and then the second of all, as TRL lays them out."""
    rng = np.random.default_rng(seed)
    mask = np.arange(T) < rng.integers(1, T + 1, 2 * B)[:, None]
    policy, reference = -2 + 0.5 * rng.normal(size=(2, 2 * B, T))
    rewards = rng.normal(size=2 * B)
    rewards[B] = rewards[0]  # a tie, which goes to the first
    return policy, reference, rewards, mask


def theirs(loss_type, policy, reference, rewards, mask):
    """Loss and gradient in the log-probs, by TRL's training step."""
    logps = torch.tensor(policy, requires_grad=True)
    models = {"policy": logps, "reference": torch.tensor(reference)}
    found = {}
    model = types.SimpleNamespace(train=lambda: None, name="policy")
    prompts, completions = (torch.zeros(2 * B, n, dtype=torch.long) for n in (2, T))
    gathered = types.SimpleNamespace(
        gather_for_metrics=lambda x: x,
        backward=lambda loss, **_: (found.update(loss=loss.item()), loss.backward()),
        num_processes=1,
    )
    trainer = types.SimpleNamespace(
        args=types.SimpleNamespace(
            use_vllm=False, missing_eos_penalty=None, loss_type=loss_type, torch_empty_cache_steps=None, n_gpu=1,
            gradient_accumulation_steps=1, optim="adamw_torch",
        ),
        state=types.SimpleNamespace(global_step=0), accelerator=gathered, beta=BETA, eos_token_ids=[1],
        ref_model=types.SimpleNamespace(name="reference"), stats=collections.defaultdict(list),
        processing_class=types.SimpleNamespace(batch_decode=lambda ids, **_: ["text"] * len(ids)),
        _generate=lambda *_: (prompts, prompts, completions, torch.tensor(mask).long(), None),
        _forward=lambda model, *_: models[model.name],
        _calculate_rewards_from_functions=lambda **_: torch.tensor(rewards),
    )  # fmt: skip
    trainer.reward_funcs = None
    online_dpo_trainer.OnlineDPOTrainer.training_step(trainer, model, {"prompt": ["p"] * B})
    return found["loss"], logps.grad.numpy()


def ours(kernel, settings, policy, reference, rewards, mask, more=()):
    scores = rewards.reshape(2, B).T
    chosen, rejected = pairs.best_and_worst(scores, {})
    rows = [side * B + np.arange(B) for side in (chosen, rejected)]

    def loss(policy):
        policy_logps, reference_logps = (np.where(mask, 1.0, 0.0) * x for x in (policy, reference))
        given = [x.sum(-1)[r] for x in (policy_logps, reference_logps) for r in rows]
        return kernel(*given, *more, **settings).mean()

    return jax.value_and_grad(loss)(jax.numpy.asarray(policy))


@pytest.mark.parametrize(
    "loss_type, kernel, settings, more",
    [
        ("sigmoid", losses.online_dpo, {"beta": BETA}, ()),
        ("ipo", losses.ipo_md, {"tau": BETA}, (np.ones(B),)),  # TRL has hard labels alone
    ],
)
def test_loss_and_gradient_are_trls(loss_type, kernel, settings, more):
    with jax.enable_x64(True):
        data = drawn()
        value, gradient = ours(kernel, settings, *data, more)
        their_value, their_gradient = theirs(loss_type, *data)
        np.testing.assert_allclose(value, their_value, rtol=1e-6)
        np.testing.assert_allclose(gradient, their_gradient, rtol=1e-5, atol=1e-7)
        assert np.abs(gradient).max() > 1e-3
