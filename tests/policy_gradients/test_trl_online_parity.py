"""Losses, gradients and advantages against TRL's own GRPO, RLOO and GMPO trainers; skipped where TRL is not installed.

TRL computes them inside trainers. Each `*_trainer` function below calls the installed method on a stand-in for the
trainer, whose forward pass gives back the log-probs of the test. What both have stands in `SAME`, or in `ESTIMATES`
for what happens before the loss; what is known to differ stands in `DIFFERENT` with its reason, and is held to differ,
so that the entry goes when the difference does. `test_no_loss_of_trl_is_forgotten` reads TRL's source.
"""

import collections
import importlib.util
import inspect
import re
import types
from unittest import mock

import numpy as np
import parity
import pytest
from parity import GROUP, Estimate, N, Pairing

torch = pytest.importorskip("torch")
trl = pytest.importorskip("trl")

EPS = {"eps_low": 0.2, "eps_high": 0.3}
THEIR_EPS = {"epsilon_low": 0.2, "epsilon_high": 0.3}
BUDGET = 7  # max_completion_length


# ------------------------------------------------------------------------------------------------------------ theirs


def accelerator():
    return types.SimpleNamespace(
        device=torch.device("cpu"), num_processes=1, process_index=0, sync_gradients=True,
        gather=lambda x: x, gather_for_metrics=lambda x: x, reduce=lambda x, reduction: x, unwrap_model=lambda m: m,
    )  # fmt: skip


def trainer(forward, **settings):
    """What the loss methods look at besides their hyperparameters; in evaluation, where nothing is accumulated."""
    arguments = {
        "delta": None, "use_bias_correction_kl": False, "steps_per_generation": 1, "sapo_temperature_pos": 1.0,
        "sapo_temperature_neg": 1.05, "vespo_k_pos": 2.0, "vespo_lambda_pos": 3.0, "vespo_k_neg": 3.0,
        "vespo_lambda_neg": 2.0,
    }  # fmt: skip
    arguments = {name: settings.pop(name, value) for name, value in arguments.items()}
    return types.SimpleNamespace(
        **{
            "model": torch.nn.Module().eval(),
            "accelerator": accelerator(),
            "args": types.SimpleNamespace(**arguments),
            "aux_loss_enabled": False,
            "top_entropy_quantile": 1.0,
            "off_policy_mask_threshold": None,
            "importance_sampling_level": "token",
            "beta": 0.0,
            "use_vllm": False,
            "vllm_importance_sampling_correction": False,
            "max_completion_length": BUDGET,
            "current_gradient_accumulation_steps": 1,
            "_entropy_bonus_enabled": False,
            "use_adaptive_entropy": False,
            "_metrics": collections.defaultdict(lambda: collections.defaultdict(list)),
            "_get_per_token_logps_and_entropies": forward,
            **settings,
        }
    )


def inputs_of(data):
    mask = torch.tensor(data["mask"]).long()
    prompts = torch.zeros(N, 2, dtype=torch.long)
    return {
        "prompt_ids": prompts, "prompt_mask": torch.ones_like(prompts),
        "completion_ids": torch.zeros_like(mask), "completion_mask": mask,
        "advantages": torch.tensor(data["advantages"]),
        "old_per_token_logps": torch.tensor(data["behaviour_token_logps"]),
        "ref_per_token_logps": torch.tensor(data["reference_token_logps"]),
        "old_logps": torch.tensor(data["behaviour_token_logps"]).sum(-1),
        "num_items_in_batch": mask.sum(),
    }  # fmt: skip


def loss_and_gradient(method, data, trained="policy_token_logps", **settings):
    leaf = torch.tensor(data[trained], requires_grad=True)
    names = ("policy_token_logps", "policy_token_entropies")
    logps, entropies = (leaf if name == trained else torch.tensor(data[name]) for name in names)
    loss = method(trainer(lambda *_, **__: (logps, entropies, None), **settings), None, inputs_of(data))
    loss.backward()
    return loss.detach().numpy(), leaf.grad.numpy()


def grpo_trainer(data, **settings):
    GRPOTrainer = pytest.importorskip("trl.trainer.grpo_trainer").GRPOTrainer
    return loss_and_gradient(GRPOTrainer._compute_loss, data, **(THEIR_EPS | settings))


def rloo_trainer(data, **settings):
    RLOOTrainer = pytest.importorskip("trl.trainer.rloo_trainer").RLOOTrainer
    return loss_and_gradient(RLOOTrainer._compute_loss, data, **(THEIR_EPS | settings))


def gmpo_trainer(data, *, epsilon):
    GMPOTrainer = pytest.importorskip("trl.experimental.gmpo.gmpo_trainer").GMPOTrainer
    return loss_and_gradient(GMPOTrainer._compute_loss, data, epsilon_low=epsilon, epsilon_high=epsilon)


def scored(cls, data, *, num_generations=GROUP, **settings):
    """What a trainer makes of a rollout before its loss: prompts, completions and rewards given, advantages taken."""
    lengths = data["mask"].sum(-1).clip(1)
    frozen = object()
    forwards = {id(frozen): "reference_token_logps"}

    def forward(model, *_, **__):
        return torch.tensor(data[forwards.get(id(model), "behaviour_token_logps")])[:, : lengths.max()], None, None

    completions = [[1] * length for length in lengths]
    # Whatever else the method looks at only serves its logs; the settings are what its numbers hang on.
    me = mock.MagicMock(
        model=mock.MagicMock(training=True), ref_model=frozen, accelerator=accelerator(), environment_factories=None,
        environments=None, tools=None, use_vllm=False, mask_truncated_completions=False, pad_to_multiple_of=None,
        num_generations=num_generations, reward_func_names=["reward"], reward_weights=torch.ones(1), beta=0.0,
        reward_clip_range=None, normalize_advantages=False, multi_objective_aggregation="sum_then_normalize",
        num_iterations=2, _is_vlm=False, _pending_extra_logs={}, _pending_metrics={},
        _get_per_token_logps_and_entropies=forward,
        _calculate_rewards=lambda *_, **__: torch.tensor(data["rewards"])[:, None],
    )  # fmt: skip
    me._tokenizer.pad_token_id = 0
    me.args = types.SimpleNamespace(
        per_device_train_batch_size=N, steps_per_generation=1, gradient_accumulation_steps=1,
        gradient_checkpointing_kwargs=None,
    )  # fmt: skip
    if "RLOO" in cls.__name__:
        me._generate.return_value = ([[1]] * N, completions, completions)
    else:
        me._generate.return_value = ([[1]] * N, completions, None, completions, None, {}, None, None)
    for name, value in settings.items():
        setattr(me, name, value)
    rows = [{"prompt": "x"} for _ in range(N)]
    return {"advantages": cls._generate_and_score_completions(me, rows)["advantages"].numpy()}


def grpo_scores(data, **settings):
    return scored(pytest.importorskip("trl.trainer.grpo_trainer").GRPOTrainer, data, **settings)


def rloo_scores(data, **settings):
    return scored(pytest.importorskip("trl.trainer.rloo_trainer").RLOOTrainer, data, **settings)


# ------------------------------------------------------------------------------------------------------------ tables


def clipped(reduction, **extra):
    return {"ppo": {"reduction": reduction, **EPS, **extra}}


SAME = (
    Pairing(clipped("sequence_mean"), grpo_trainer, {"loss_type": "grpo"}),
    Pairing(clipped("token_mean"), grpo_trainer, {"loss_type": "bnpo"}),
    Pairing(clipped("token_mean"), grpo_trainer, {"loss_type": "dapo"}),
    Pairing(clipped("constant", reduction_length=BUDGET), grpo_trainer, {"loss_type": "dr_grpo"}),
    Pairing(
        {"ppo_dual_clip": {"reduction": "sequence_mean", **EPS, "dual_clip": 2.0}},
        grpo_trainer,
        {"loss_type": "grpo", "delta": 2.0},
    ),
    # The weight of a term is what TRL calls beta; each term is reduced as the loss type says.
    *(
        Pairing(
            {"ppo": {"reduction": reduction, **EPS}, "kl_k3": {"reduction": reduction, "weight": 0.04}},
            grpo_trainer,
            {"loss_type": loss_type, "beta": 0.04},
        )
        for loss_type, reduction in (("grpo", "sequence_mean"), ("bnpo", "token_mean"))
    ),
    # TRL's bound is that of the weight itself, and it has no lower one.
    Pairing(
        {"cispo": {"reduction": "token_mean", "eps_low": 1.0, "eps_high": 0.3}},
        grpo_trainer,
        {"loss_type": "cispo", "epsilon_high": 1.3},
    ),
    Pairing({"gspo": EPS}, grpo_trainer, {"loss_type": "grpo", "importance_sampling_level": "sequence"}),
    Pairing(
        {"gspo_token": {"reduction": "sequence_mean", **EPS}},
        grpo_trainer,
        {"loss_type": "grpo", "importance_sampling_level": "sequence"},
    ),
    # LUSPO multiplies a sequence's loss by its length: the sum over tokens of their shares in it.
    Pairing(
        {"gspo_token": {"reduction": "sequence_sum", **EPS}},
        grpo_trainer,
        {"loss_type": "luspo", "importance_sampling_level": "sequence"},
    ),
    Pairing({"gmpo": {"eps": 0.4}}, gmpo_trainer, {"epsilon": 0.4}),
    Pairing({"ppo_sequence": EPS}, rloo_trainer, {}, ("ordinary", "steep", "empty")),
)

ESTIMATES = (
    Estimate({"grpo_advantages": {"eps": 1e-4}}, grpo_scores, {"scale_rewards": "group"}),
    Estimate({"dr_grpo_advantages": {}}, grpo_scores, {"scale_rewards": "none"}),
    Estimate({"lite_ppo_advantages": {"eps": 1e-4}}, grpo_scores, {"scale_rewards": "batch"}),
    Estimate({"rloo_advantages": {}}, rloo_scores, {}),
    Estimate(
        {"kl_penalized_rewards": {"beta": 0.1, "order": -1, "gives": "rewards"}, "rloo_advantages": {}},
        rloo_scores,
        {"beta": 0.1},
        parity.KINDS,
    ),
    Estimate(
        {"clip_rewards": {"limit": 0.5, "order": -1, "gives": "rewards"}, "rloo_advantages": {}},
        rloo_scores,
        {"reward_clip_range": (-0.5, 0.5)},
    ),
    Estimate({"grpo_advantages": {"eps": 1e-4}}, grpo_scores, {"scale_rewards": "group", "num_generations": 1},
             ("alone",)),
)  # fmt: skip

DIFFERENT = (
    (
        "TRL's ratio of a token overflows: inf or NaN where ours is capped at e^20",
        Pairing(clipped("sequence_mean"), grpo_trainer, {"loss_type": "grpo"}, ("beyond",)),
    ),
    (
        "TRL's ratio of a completion overflows: inf or NaN where ours is capped at e^20",
        Pairing({"ppo_sequence": EPS}, rloo_trainer, {}, ("beyond",)),
    ),
    (
        "TRL's ratio of a completion overflows: inf or NaN where ours is capped at e^10",
        Pairing({"gspo": EPS}, grpo_trainer, {"loss_type": "grpo", "importance_sampling_level": "sequence"},
                ("beyond",)),
    ),
    (
        "TRL lets a token's log-ratio of -1e4 take the whole geometric mean to 0; ours counts it as -20",
        Pairing({"gmpo": {"eps": 0.4}}, gmpo_trainer, {"epsilon": 0.4}, ("beyond",)),
    ),
    (
        "TRL's exp(ref - policy) of k3 overflows: inf or NaN where ours is clipped at d = 20",
        Pairing({"kl_k3": {"reduction": "sequence_mean", "weight": 0.04}, "ppo": {"reduction": "sequence_mean", **EPS}},
                grpo_trainer, {"loss_type": "grpo", "beta": 0.04}, ("beyond",)),
    ),
    (
        "a completion without a token counts in TRL's mean over completions; ours leaves it out",
        Pairing(clipped("sequence_mean"), grpo_trainer, {"loss_type": "grpo"}, ("empty",)),
    ),
    (
        "the same where the mean is over all tokens that completions of full length would have",
        Pairing(clipped("constant", reduction_length=BUDGET), grpo_trainer, {"loss_type": "dr_grpo"}, ("empty",)),
    ),
    (
        "TRL gives a group of one the advantage 0; ours keeps the raw reward, as verl does: it has no baseline",
        Estimate({"rloo_advantages": {}}, rloo_scores, {"num_generations": 1}, ("alone",)),
    ),
    (
        "TRL's normalize_advantages whitens over completions; ours over tokens (`masked_whiten`)",
        Estimate({"rloo_advantages": {}}, rloo_scores, {"normalize_advantages": True}, ("ordinary",)),
    ),
)  # fmt: skip

NOT_COMPARED = {
    "sapo": "no kernel here: not in the catalogue",
    "vespo": "no kernel here: not in the catalogue",
    "use_bias_correction_kl, off_policy_mask_threshold, top_entropy_quantile": "no such term here",
    "multi_objective_aggregation='normalize_then_sum'": "for several rewards, which are one column here",
    "PPO, its GAE, whitening and value loss": "TRL has no PPO trainer any more; compared with verl's",
}


# ------------------------------------------------------------------------------------------------------------- tests


@pytest.mark.parametrize("pairing", SAME, ids=parity.name_of)
def test_loss_and_gradient_are_those_of_trl(pairing):
    for kind in pairing.kinds:
        for seed in range(3):
            parity.agree(pairing, kind, seed)


@pytest.mark.parametrize("pairing", ESTIMATES, ids=parity.name_of)
def test_advantages_are_those_of_trl(pairing):
    for kind in pairing.kinds:
        for seed in range(3):
            parity.estimates_agree(pairing, kind, seed)


@pytest.mark.parametrize(("reason", "pairing"), DIFFERENT, ids=[parity.name_of(p) for _, p in DIFFERENT])
def test_what_is_said_to_differ_differs(reason, pairing):
    assert parity.differ(pairing), f"no longer true: {reason}"


def test_entropy_bonus_is_that_of_trl():
    """With advantages of 0 nothing else is left of TRL's loss."""
    pairing = Pairing(
        {"entropy_bonus": {"reduction": "token_mean", "weight": 0.01}},
        grpo_trainer,
        {},
        trained="policy_token_entropies",
    )
    data = parity.draw("ordinary")
    data["advantages"] = np.zeros_like(data["advantages"])
    expected, expected_gradient = grpo_trainer(
        data, loss_type="grpo", _entropy_bonus_enabled=True, entropy_coef=0.01, trained=pairing.trained
    )
    value, gradient = parity.ours(pairing, data)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-5)


def test_no_loss_of_trl_is_forgotten():
    """Every loss type and scaling in the source of the installed trainer stands in a line above."""
    GRPOTrainer = pytest.importorskip("trl.trainer.grpo_trainer").GRPOTrainer
    settings = [p.settings for p in (*SAME, *ESTIMATES, *(p for _, p in DIFFERENT))]
    compared = {value for s in settings for value in s.values() if isinstance(value, str)}
    source = inspect.getsource(GRPOTrainer._compute_loss)
    lists = re.findall(r"self\.loss_type (?:in|==) (\[[^\]]+\]|\"\w+\")", source)
    there = set(re.findall(r"\"(\w+)\"", " ".join(lists)))
    assert {"grpo", "dapo"} <= there and there <= compared | set(NOT_COMPARED), there - compared
    levels = set(re.findall(r"importance_sampling_level == \"(\w+)\"", source))
    assert levels == {"token", "sequence"}
    source = inspect.getsource(GRPOTrainer._generate_and_score_completions)
    scalings = set(re.findall(r"\"(\w+)\"", " ".join(re.findall(r"self\.scale_rewards .*", source))))
    assert scalings == {"group", "none", "batch"} <= compared


def test_trl_has_no_ppo_any_more():
    assert not any(importlib.util.find_spec(name) for name in ("trl.trainer.ppo_trainer", "trl.experimental.ppo"))
