"""Values and gradients against TRL's own loss code, wherever both have the loss; skipped where TRL is not installed.

TRL computes its losses inside trainers. Each `*_trainer` function below calls the installed method on a stand-in for
the trainer, with a stand-in for the model that gives back the log-probs of the test. Ours go the whole way of a
training step: from an entry of a config through `objective.bind` and `objective.evaluate` to a reduced loss.

A kernel that both have gets one line in `SAME`; what is known to differ stands in `DIFFERENT` with its reason, and is
held to differ, so that the entry goes when the difference does. `test_no_loss_of_trl_is_forgotten` reads TRL's source.
"""

import collections
import inspect
import re
import types
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import alignment.losses
from alignment import objective

torch = pytest.importorskip("torch")
trl = pytest.importorskip("trl")

B, T = 6, 4
PAIRS, SINGLE = ("chosen", "rejected"), ("", "mismatched")


# ----------------------------------------------------------------------------------------------------------- inputs


def draw(kind: str, seed: int = 0) -> dict[str, np.ndarray]:
    """Token log-probs `[B, 2, T]` of both models, a mask, collision probabilities and rewards `[B, 2]`.

    "ordinary": a few nats. "extreme": sums of 0 and of -1e4, so that log-ratios reach 1e4 in both directions.
    """
    rng = np.random.default_rng(seed)
    mask = np.arange(T) < rng.integers(1, T + 1, (B, 2))[..., None]
    names = ("policy_token_logps", "reference_token_logps")
    if kind == "ordinary":
        tokens = {name: -rng.gamma(1.0, 1.5, mask.shape) for name in names}
    else:
        tokens = {name: -1e4 / mask.sum(-1, keepdims=True) * rng.integers(0, 2, (B, 2, 1)) - 0.01 for name in names}
    tokens = {name: np.where(mask, x, 0.0).astype(np.float32) for name, x in tokens.items()}
    collisions = np.where(mask, rng.uniform(0.2, 1.0, mask.shape), 1.0).astype(np.float32)
    rewards = (rng.normal(size=(B, 2)) if kind == "ordinary" else rng.choice([-1e4, 0.0, 1e4], (B, 2))).astype(
        np.float32
    )
    labels = {"margins": rng.normal(size=B).astype(np.float32), "desirable": np.arange(B) % 3 > 0}
    return {**tokens, **labels, "mask": mask, "policy_token_collision_probs": collisions, "rewards": rewards}


def rows_of(data, rows):
    return {name: value[rows] for name, value in data.items()}


# ------------------------------------------------------------------------------------------------------------- ours


def ours(pairing, data):
    """Reduced loss of an objective of a config, and its gradient with respect to what is trained."""
    columns = ("margins", "desirable", "valid")
    terms = objective.bind(pairing.objective, alignment.losses, "objective", pairing.sides, columns)
    arrays = {k: jnp.asarray(v) for k, v in data.items()}
    batch = {"valid": jnp.ones(len(data["mask"]), bool)} | {k: arrays[k] for k in ("mask", "margins", "desirable")}
    weights = objective.weights(terms, pairing.sides, batch)

    def loss(x):
        sums, _ = objective.evaluate(terms, {}, pairing.sides, {**arrays, pairing.trained: x}, batch)
        return sum(term.weight * sums[term.name] / weights[term.name] for term in terms)

    value, gradient = jax.value_and_grad(loss)(arrays[pairing.trained])
    return np.asarray(value), np.asarray(gradient)


# ------------------------------------------------------------------------------------------------------------ theirs


def idle_model() -> "torch.nn.Module":
    """What `trainer.model` is asked about; a real module, into which TRL looks for adapters where peft is installed."""
    model = torch.nn.Module().eval()
    model.is_gradient_checkpointing = False
    return model


def trainer(**settings):
    """What every trainer's loss method looks at besides its hyperparameters."""
    accelerator = types.SimpleNamespace(
        device=torch.device("cpu"), gather=lambda x: x, gather_for_metrics=lambda x: x, unwrap_model=lambda m: m
    )
    return types.SimpleNamespace(
        **{
            "model": idle_model(),
            "accelerator": accelerator,
            "aux_loss_enabled": False,
            "label_smoothing": 0.0,
            "_metrics": collections.defaultdict(lambda: collections.defaultdict(list)),
            "_total_train_tokens": 0,
            "_tp_size": 1,
            **settings,
        }
    )


def stacked(values) -> "torch.Tensor":
    """[B, 2, T] as TRL lays a batch of pairs out: all chosen rows, then all rejected ones."""
    return torch.cat([values[:, 0], values[:, 1]])


def with_gradient(loss_of, data, trained):
    leaf = torch.tensor(data[trained], requires_grad=True)
    loss = loss_of(leaf)
    loss.backward()
    return loss.detach().numpy(), leaf.grad.numpy()


def dpo_trainer(data, *, loss_type, loss_weights=None, discopop_tau=0.05, **settings):
    DPOTrainer = pytest.importorskip("trl.trainer.dpo_trainer").DPOTrainer

    loss_types = [loss_type] if isinstance(loss_type, str) else list(loss_type)
    mask = torch.nn.functional.pad(stacked(torch.tensor(data["mask"])), (1, 0)).long()  # position 0 is the prompt
    inputs = {"input_ids": torch.zeros_like(mask), "attention_mask": torch.ones_like(mask), "completion_mask": mask}

    def outputs(log_probs):
        nothing = torch.zeros_like(log_probs)
        aligned = torch.log(stacked(torch.tensor(data["policy_token_collision_probs"])))
        return types.SimpleNamespace(
            log_probs=log_probs, log_sum_sq_probs=aligned, entropy=nothing, mean_logits=nothing, is_top1=nothing.bool()
        )

    me = trainer(
        **{
            "ld_alpha": None,
            "precompute_ref_logps": False,
            "ref_model": lambda **_: outputs(stacked(torch.tensor(data["reference_token_logps"]))),
            "f_divergence_type": "reverse_kl",
            "f_alpha_divergence_coef": 0.5,
            "use_weighting": False,
            "beta": 0.1,
            "loss_types": loss_types,
            "loss_weights": loss_weights or [1.0] * len(loss_types),
            "args": types.SimpleNamespace(discopop_tau=discopop_tau, gradient_checkpointing_kwargs=None),
            **settings,
        }
    )

    def loss_of(leaf):
        model = lambda **_: outputs(stacked(leaf))  # noqa: E731
        return DPOTrainer._compute_loss(me, model, dict(inputs), return_outputs=False)

    return with_gradient(loss_of, data, "policy_token_logps")


def completions(leaf, data, averaged):
    sums = leaf.sum(-1)
    return sums / torch.tensor(data["mask"]).sum(-1).clamp(min=1) if averaged else sums


def cpo_trainer(data, *, loss_type, alpha=0.0, simpo_gamma=0.5, beta=0.1, label_smoothing=0.0):
    """Without its likelihood term (cpo_alpha), which is the mean over all chosen tokens of the batch."""
    CPOTrainer = pytest.importorskip("trl.experimental.cpo.cpo_trainer").CPOTrainer

    me = trainer(loss_type=loss_type, alpha=alpha, simpo_gamma=simpo_gamma, beta=beta, label_smoothing=label_smoothing)

    def loss_of(leaf):
        logps = completions(leaf, data, averaged=loss_type in ("ipo", "simpo"))
        return CPOTrainer.cpo_loss(me, logps[:, 0], logps[:, 1])[0].mean()

    return with_gradient(loss_of, data, "policy_token_logps")


def orpo_trainer(data, *, beta=1.0):
    """Without its likelihood term, which in TRL covers the prompt too."""
    ORPOTrainer = pytest.importorskip("trl.experimental.orpo.orpo_trainer").ORPOTrainer

    def loss_of(leaf):
        logps = completions(leaf, data, averaged=True)
        return -ORPOTrainer.odds_ratio_loss(trainer(beta=beta), logps[:, 0], logps[:, 1])[0].mean()

    return with_gradient(loss_of, data, "policy_token_logps")


def tpo_trainer(data, *, loss_type, beta=0.1, tpo_l_gamma=0.5):
    """Without its likelihood term on the gold completion (tpo_alpha)."""
    module = pytest.importorskip("trl.experimental.tpo.tpo_trainer")
    mask = torch.nn.functional.pad(stacked(torch.tensor(data["mask"])), (1, 0)).long()
    inputs = {"input_ids": torch.zeros_like(mask), "attention_mask": torch.ones_like(mask), "completion_mask": mask}
    outputs = types.SimpleNamespace(logits=torch.zeros(*mask.shape, 3))
    me = trainer(loss_type=loss_type, tpo_alpha=0.0, beta=beta, tpo_l_gamma=tpo_l_gamma)

    def loss_of(leaf):
        log_probs = stacked(leaf)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "selective_log_softmax_and_entropy", lambda *_, **__: (log_probs, log_probs.detach()))
            return module.TPOTrainer._compute_loss(me, lambda **_: outputs, dict(inputs), return_outputs=False)

    return with_gradient(loss_of, data, "policy_token_logps")


def reward_trainer(data, *, margin=False, center_rewards_coefficient=None):
    RewardTrainer = pytest.importorskip("trl.trainer.reward_trainer").RewardTrainer

    me = trainer(args=types.SimpleNamespace(center_rewards_coefficient=center_rewards_coefficient))
    inputs = {"attention_mask": torch.ones(1)} | ({"margin": torch.tensor(data["margins"])} if margin else {})

    def loss_of(leaf):
        outputs = types.SimpleNamespace(logits=stacked(leaf)[:, None])
        return RewardTrainer.compute_loss(me, lambda **_: outputs, dict(inputs))

    return with_gradient(loss_of, data, "rewards")


def kto_trainer(data, *, beta=0.1):
    """On single completions: those of slot 0, with the completions of other prompts in slot 1."""
    KTOTrainer = pytest.importorskip("trl.trainer.kto_trainer").KTOTrainer
    masks = torch.nn.functional.pad(torch.tensor(data["mask"]), (1, 0)).long()
    inputs = {"label": torch.tensor(data["desirable"]), "attention_mask": torch.ones_like(masks[:, 0])}
    for slot, prefix in enumerate(("", "KL_")):
        inputs[f"{prefix}input_ids"] = torch.full_like(masks[:, slot], slot)  # which slot is asked for
        inputs[f"{prefix}attention_mask"] = torch.ones_like(masks[:, slot])
        inputs[f"{prefix}completion_mask"] = masks[:, slot]

    def model(tokens):
        def outputs(input_ids, **_):
            log_probs = tokens[:, int(input_ids[0, 0])]
            return types.SimpleNamespace(
                log_probs=log_probs, entropy=torch.zeros_like(log_probs), mean_logits=torch.zeros_like(log_probs)
            )

        return outputs

    me = trainer(
        loss_type="kto", calculate_KL=True, precompute_ref_logps=False, beta=beta, desirable_weight=1.0,
        undesirable_weight=1.0, ref_model=model(torch.tensor(data["reference_token_logps"])),
        args=types.SimpleNamespace(gradient_checkpointing_kwargs=None),
    )  # fmt: skip
    me._compute_kl_logps = types.MethodType(KTOTrainer._compute_kl_logps, me)
    return with_gradient(
        lambda leaf: KTOTrainer._compute_loss(me, model(leaf), dict(inputs), return_outputs=False),
        data,
        "policy_token_logps",
    )


# ------------------------------------------------------------------------------------------------------------ tables


class Pairing(NamedTuple):
    """An objective of ours and the call of TRL's code that is to give the same.

    kinds: inputs on which both are compared; "extreme" is left out only where `DIFFERENT` says why.
    batch_wide: the loss looks at the whole batch, so it is not compared pair by pair.
    trained: the input whose gradients are compared.
    sides: what the second axis of the inputs holds.
    """

    objective: dict
    theirs: object
    settings: dict
    kinds: tuple = ("ordinary", "extreme")
    batch_wide: bool = False
    trained: str = "policy_token_logps"
    sides: tuple = PAIRS


BETA, DPO, CPO = 0.3, dpo_trainer, cpo_trainer
CHOSEN_SFT = {"side": "chosen", "reduction": "token_mean"}
MIXTURE = {"loss_type": ("sigmoid", "bco_pair", "sft"), "loss_weights": [0.8, 0.2, 1.0], "beta": BETA}
ORDINARY = ("ordinary",)


def composed(margin, link, **hyper):
    return {"composed": {"margin": margin, "link": link, **hyper}}


SAME = (
    Pairing({"dpo": {"beta": BETA}}, DPO, {"loss_type": "sigmoid", "beta": BETA}),
    Pairing({"rso_sigmoid_norm": {"gamma": BETA}}, DPO, {"loss_type": "sigmoid", "beta": BETA}),
    Pairing({"rso_hinge_norm": {"gamma": BETA}}, DPO, {"loss_type": "hinge", "beta": BETA}),
    Pairing({"ipo_length_normalized": {"tau": BETA}}, DPO, {"loss_type": "ipo", "beta": BETA}),
    Pairing(
        {"exo_pair": {"beta": BETA, "label_smoothing": 0.01}},
        DPO,
        {"loss_type": "exo_pair", "beta": BETA, "label_smoothing": 0.01},
    ),
    Pairing({"nca_pair": {"beta": BETA}}, DPO, {"loss_type": "nca_pair", "beta": BETA}),
    Pairing(
        {"robust_dpo": {"beta": BETA, "flip_rate": 0.2}},
        DPO,
        {"loss_type": "robust", "beta": BETA, "label_smoothing": 0.2},
    ),
    Pairing({"bco_pair": {"beta": BETA}}, DPO, {"loss_type": "bco_pair", "beta": BETA}),
    Pairing({"apo_zero": {"beta": BETA}}, DPO, {"loss_type": "apo_zero", "beta": BETA}),
    Pairing({"apo_down": {"beta": BETA}}, DPO, {"loss_type": "apo_down", "beta": BETA}),
    Pairing({"discopop": {"beta": BETA}}, DPO, {"loss_type": "discopop", "beta": BETA}, ORDINARY),
    Pairing({"sft": CHOSEN_SFT}, DPO, {"loss_type": "sft"}),
    Pairing({"length_normalized_dpo": {"beta": 2.0}}, DPO, {"loss_type": "sigmoid_norm", "beta": 2.0}),
    # sppo_hard is the calibration of Cal-DPO, whose other part is DPO with beta 1.
    Pairing(
        {"cal_dpo": {"beta": BETA, "lambda_": 1.0}, "dpo": {"weight": -1.0, "beta": 1.0}},
        DPO,
        {"loss_type": "sppo_hard", "beta": BETA},
    ),
    Pairing({"f_dpo": {"beta": BETA, "alpha": 0.0}}, DPO, {"loss_type": "sigmoid", "beta": BETA}),
    Pairing(
        {"f_dpo": {"beta": BETA, "alpha": 1.0}},
        DPO,
        {"loss_type": "sigmoid", "beta": BETA, "f_divergence_type": "forward_kl"},
        ORDINARY,
    ),
    Pairing(
        {"f_dpo": {"beta": BETA, "alpha": 0.3}},
        DPO,
        {
            "loss_type": "sigmoid",
            "beta": BETA,
            "f_divergence_type": "alpha_divergence",
            "f_alpha_divergence_coef": 0.7,  # theirs is 1 - alpha
        },
        ORDINARY,
    ),
    Pairing(
        {"f_dpo_jensen_shannon": {"beta": BETA}},
        DPO,
        {"loss_type": "sigmoid", "beta": BETA, "f_divergence_type": "js_divergence"},
    ),
    # A link and a divergence crossed, in both code bases without a loss of its own.
    Pairing(
        composed("jensen_shannon", "hinge", beta=BETA),
        DPO,
        {"loss_type": "hinge", "beta": BETA, "f_divergence_type": "js_divergence"},
    ),
    Pairing(
        {
            "dpo": {"weight": 0.8, "beta": BETA},
            "bco_pair": {"weight": 0.2, "beta": BETA},
            "sft": {"weight": 1.0, **CHOSEN_SFT},
        },
        DPO,
        MIXTURE,
    ),
    # Kernels of other modules.
    Pairing(
        {"aot_paired": {"beta": BETA, "label_smoothing": 0.1}},
        DPO,
        {"loss_type": "aot", "beta": BETA, "label_smoothing": 0.1},
        batch_wide=True,
    ),
    Pairing(
        {"aot_unpaired": {"beta": BETA, "label_smoothing": 0.1}},
        DPO,
        {"loss_type": "aot_unpaired", "beta": BETA, "label_smoothing": 0.1},
        batch_wide=True,
    ),
    Pairing({"ld_dpo": {"beta": BETA, "alpha": 0.4}}, DPO, {"loss_type": "sigmoid", "beta": BETA, "ld_alpha": 0.4}),
    Pairing(
        {"cpo": {"beta": BETA, "lambda_": 0.0, "label_smoothing": 0.1}},
        CPO,
        {"loss_type": "sigmoid", "beta": BETA, "label_smoothing": 0.1},
    ),
    Pairing({"rso_hinge": {"gamma": BETA}}, CPO, {"loss_type": "hinge", "beta": BETA}),
    Pairing(composed("reference_free", "logistic", beta=BETA), CPO, {"loss_type": "sigmoid", "beta": BETA}),
    Pairing({"simpo": {"beta": 2.0, "gamma": 0.5}}, CPO, {"loss_type": "simpo", "beta": 2.0, "simpo_gamma": 0.5}),
    Pairing(
        composed("length_normalized", "logistic", beta=2.0, target_margin=0.5),
        CPO,
        {"loss_type": "simpo", "beta": 2.0, "simpo_gamma": 0.5},
    ),
    Pairing(
        {"alpha_po": {"alpha": 0.25, "beta": 2.0, "gamma": 0.5}},
        CPO,
        {"loss_type": "simpo", "alpha": 0.25, "beta": 2.0, "simpo_gamma": 0.5},
        ORDINARY,
    ),
    Pairing(
        composed("length_normalized", "squared", beta=1.0, target_margin=0.0, target=1 / (2 * BETA)),
        CPO,
        {"loss_type": "ipo", "beta": BETA},
    ),
    Pairing({"orpo_odds_ratio": {}}, orpo_trainer, {}),
    Pairing({"kto": {"beta": BETA}}, kto_trainer, {"beta": BETA}, batch_wide=True, sides=SINGLE),
    Pairing(composed("reference_free", "logistic", beta=BETA), tpo_trainer, {"loss_type": "sigmoid", "beta": BETA}),
    Pairing(composed("reference_free", "hinge", beta=BETA), tpo_trainer, {"loss_type": "hinge", "beta": BETA}),
    Pairing(
        composed("length_normalized", "logistic", beta=2.0, target_margin=0.5),
        tpo_trainer,
        {"loss_type": "tpo-l", "beta": 2.0, "tpo_l_gamma": 0.5},
    ),
    Pairing(
        {"bt_reward_loss": {"center_coef": 0.01}},
        reward_trainer,
        {"center_rewards_coefficient": 0.01},
        trained="rewards",
    ),
    Pairing({"bt_reward_margin_loss": {}}, reward_trainer, {"margin": True}, trained="rewards"),
)

DIFFERENT = (
    (
        "TRL's 'ipo' averages over the tokens of each completion; `ipo` sums, as printed in the paper",
        Pairing({"ipo": {"tau": BETA}}, DPO, {"loss_type": "ipo", "beta": BETA}, ORDINARY),
    ),
    (
        "TRL's 'sft' member is the mean over all chosen tokens of the batch; `sft_dpo` sums over each completion",
        Pairing(
            {"sft_dpo": {"beta": BETA, "lambda_": 0.5}},
            DPO,
            {"loss_type": ("sigmoid", "sft"), "loss_weights": [1.0, 0.5], "beta": BETA},
            ORDINARY,
        ),
    ),
    (
        "TRL multiplies exp(-z), which is inf, by a gate that is 0: NaN from z = -89 on",
        Pairing({"discopop": {"beta": BETA}}, DPO, {"loss_type": "discopop", "beta": BETA}, ("extreme",)),
    ),
    (
        "TRL's exp(-log u) overflows: a loss of inf or NaN where ours goes on as a tangent",
        Pairing(
            {"f_dpo": {"beta": BETA, "alpha": 1.0}},
            DPO,
            {"loss_type": "sigmoid", "beta": BETA, "f_divergence_type": "forward_kl"},
            ("extreme",),
        ),
    ),
    (
        "TRL clamps u^-alpha at e^80, so a hopeless completion has no gradient; ours goes on as a tangent from e^30",
        Pairing(
            {"f_dpo": {"beta": BETA, "alpha": 0.3}},
            DPO,
            {
                "loss_type": "sigmoid",
                "beta": BETA,
                "f_divergence_type": "alpha_divergence",
                "f_alpha_divergence_coef": 0.7,
            },
            ("extreme",),
        ),
    ),
    (
        "TRL raises p^-alpha of a probability that is 0 in float32: inf - inf",
        Pairing(
            {"alpha_po": {"alpha": 0.25, "beta": 2.0, "gamma": 0.5}},
            CPO,
            {"loss_type": "simpo", "alpha": 0.25, "beta": 2.0, "simpo_gamma": 0.5},
            ("extreme",),
        ),
    ),
    (
        "the paper and its authors cut the weight at 1, TRL does not",
        Pairing({"wpo": {"beta": BETA}}, DPO, {"loss_type": "sigmoid", "beta": BETA, "use_weighting": True}, ORDINARY),
    ),
)

NOT_COMPARED = {
    "bco": "this TRL has no BCO trainer; the pair form is 'bco_pair'",
    "rrhf, slic_hf, focal_po, tdpo1, tdpo2, dpop, cal_dpo's logistic part": "no loss of TRL",
    "apo_zero_unpaired": "`kto` with its KL estimate at 0, which is no kernel here; `apo_zero` is the pair form",
    "the likelihood terms of TRL's CPO, ORPO and TPO": "token means over the batch (ORPO's with the prompt's tokens); "
    "here an entry `sft` with reduction token_mean, compared by 'sft'",
}


def kernels(pairing) -> set[str]:
    return {settings.get("kernel", name) for name, settings in pairing.objective.items() if "margin" not in settings}


def name_of(pairing) -> str:
    ours_ = "+".join(f"{s['link']}({s['margin']})" if "margin" in s else n for n, s in pairing.objective.items())
    loss = pairing.settings.get("loss_type", "")
    theirs = "+".join([loss] if isinstance(loss, str) else loss)
    return f"{ours_}-{pairing.theirs.__name__}-{theirs}-{pairing.settings.get('f_divergence_type', '')}".rstrip("-")


def skip_unless_here(pairing):
    if missing := sorted(kernels(pairing) - set(alignment.losses.__all__)):
        pytest.skip(f"alignment.losses has no {', '.join(missing)} yet")


# ------------------------------------------------------------------------------------------------------------- tests


@pytest.mark.parametrize("pairing", SAME, ids=name_of)
def test_value_and_gradient_are_those_of_trl(pairing):
    skip_unless_here(pairing)
    for kind in pairing.kinds:
        for seed in range(3):
            data = draw(kind, seed)
            whole = [slice(None)]
            for rows in whole if pairing.batch_wide else [*whole, *([i] for i in range(B))]:
                part = rows_of(data, rows)
                value, gradient = ours(pairing, part)
                expected, expected_gradient = pairing.theirs(part, **pairing.settings)
                assert np.isfinite(expected) and np.isfinite(expected_gradient).all(), kind
                np.testing.assert_allclose(value, expected, rtol=2e-5, atol=2e-6, err_msg=kind)
                if gradient.ndim == 3:  # behind the mask stand zeros that no model computed
                    gradient, expected_gradient = gradient * part["mask"], expected_gradient * part["mask"]
                np.testing.assert_allclose(gradient, expected_gradient, rtol=2e-4, atol=2e-6, err_msg=kind)


@pytest.mark.parametrize(("reason", "pairing"), DIFFERENT, ids=[name_of(p) for _, p in DIFFERENT])
def test_what_is_said_to_differ_differs(reason, pairing):
    skip_unless_here(pairing)
    for kind in pairing.kinds:
        agree = []
        for seed in range(3):
            data = draw(kind, seed)
            value, gradient = ours(pairing, data)
            assert np.isfinite(value) and np.isfinite(gradient).all()
            expected, expected_gradient = pairing.theirs(data, **pairing.settings)
            agree.append(
                np.allclose(value, expected, rtol=1e-4) and np.allclose(gradient, expected_gradient, rtol=1e-3)
            )
        assert not all(agree), f"no longer true: {reason}"


def test_no_loss_of_trl_is_forgotten():
    """Every loss type in the source of the installed trainers stands in a line above."""
    DPOTrainer = pytest.importorskip("trl.trainer.dpo_trainer").DPOTrainer
    compared = set()
    for pairing in (*SAME, *(p for _, p in DIFFERENT)):
        if pairing.theirs is dpo_trainer:
            loss = pairing.settings["loss_type"]
            compared |= {loss} if isinstance(loss, str) else set(loss)
    there = set(re.findall(r'loss_type == "(\w+)"', inspect.getsource(DPOTrainer._compute_loss)))
    assert there and there <= compared, there - compared
