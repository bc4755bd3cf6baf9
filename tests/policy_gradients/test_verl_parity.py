"""Losses, gradients and advantages against verl's published formulas, rederived here; skipped where torch is missing.

verl cannot be installed beside this project's tests, so what follows states in torch, in our own words, what
github.com/volcengine/verl computes at commit b178a3cd (2026-01-29): verl/trainer/ppo/core_algos.py (losses, advantages,
KL estimates) and verl/utils/torch_functional.py (masked moments). Torch differentiates it. What follows was
once compared with those very files, loaded with stand-ins for what they import, on all kinds of `parity.draw`: the
same in value and gradient. Three were not: PF-PPO and the entropy loss, which that comparison left out, and k3+, for
which verl's function raises NotImplementedError at that commit.

What both have stands in `SAME` and `ESTIMATES`; what is known to differ stands in `DIFFERENT` with its reason, and is
held to differ. `test_no_formula_of_verl_is_forgotten` goes through the names that verl registers.
"""

import math

import jax.numpy as jnp
import numpy as np
import parity
import pytest
from parity import KINDS, Estimate, N, Pairing

import alignment.policy_gradients

torch = pytest.importorskip("torch")

LOW, HIGH = 0.2, 0.3
EPS = {"eps_low": LOW, "eps_high": HIGH}
NEVER = 1e9  # a dual clip that no ratio reaches: those are capped at e^20

ESTIMATORS_OF_VERL = (
    "gae", "grpo", "grpo_vectorized", "grpo_passk", "reinforce_plus_plus", "reinforce_plus_plus_baseline", "remax",
    "rloo", "rloo_vectorized", "opo", "gpg", "optimal_token_baseline", "tir_optimal_token_baseline",
)  # fmt: skip
LOSSES_OF_VERL = ("vanilla", "gspo", "sapo", "gpg", "clip_cov", "kl_cov", "geo_mean", "cispo", "bypass_mode")
AGGREGATIONS_OF_VERL = ("token-mean", "seq-mean-token-sum", "seq-mean-token-mean", "seq-mean-token-sum-norm")
KLS_OF_VERL = ("k1", "abs", "k2", "k3", "k3+", "full")


# ------------------------------------------------------------------------------------------------- theirs: the losses


def aggregate(values, mask, mode, scale):
    rows = torch.where(mask, values, 0.0).sum(-1)
    there = mask.any(-1)  # completions without a token count in no mean over completions
    if mode == "token-mean":
        return rows.sum() / mask.sum()
    if mode == "seq-mean-token-sum":
        return rows.sum() / there.sum()
    if mode == "seq-mean-token-mean":
        return (rows / (mask.sum(-1) + 1e-8)).sum() / there.sum()
    assert mode == "seq-mean-token-sum-norm"
    return rows.sum() / scale


def with_gradient(data, trained, loss_of):
    leaf = torch.tensor(data[trained], requires_grad=True)
    given = {k: torch.tensor(v) for k, v in data.items()} | {trained: leaf}
    loss = loss_of(given)
    loss.backward()
    return loss.detach().numpy(), leaf.grad.numpy()


def vanilla(x, dual_clip):
    """PPO with two bounds, and a third for negative advantages."""
    ratio = (x["policy_token_logps"] - x["behaviour_token_logps"]).clamp(-20, 20).exp()
    advantages = x["token_advantages"]
    pessimistic = torch.maximum(-advantages * ratio, -advantages * ratio.clamp(1 - LOW, 1 + HIGH))
    return torch.where(advantages < 0, torch.minimum(pessimistic, -advantages * dual_clip), pessimistic)


def gspo(x):
    log_ratio, mask = x["policy_token_logps"] - x["behaviour_token_logps"], x["mask"]
    of_sequence = (log_ratio * mask).sum(-1, keepdim=True) / mask.sum(-1, keepdim=True).clamp(min=1)
    policy = x["policy_token_logps"]
    ratio = (policy - policy.detach() + of_sequence.detach()).clamp(max=10).exp()
    advantages = x["token_advantages"]
    return torch.maximum(-advantages * ratio, -advantages * ratio.clamp(1 - LOW, 1 + HIGH))


def cispo(x):
    ratio = (x["policy_token_logps"] - x["behaviour_token_logps"]).clamp(-20, 20).exp()
    return -ratio.clamp(1 - LOW, 1 + HIGH).detach() * x["token_advantages"] * x["policy_token_logps"]


def gpg(x):
    return -x["policy_token_logps"] * x["token_advantages"]


def policy_loss(data, *, loss, mode="token-mean", scale=None, **settings):
    of_tokens = {"vanilla": vanilla, "gspo": gspo, "cispo": cispo, "gpg": gpg}[loss]
    return with_gradient(
        data, "policy_token_logps", lambda x: aggregate(of_tokens(x, **settings), x["mask"], mode, scale)
    )


def geo_mean(data, *, bound):
    """GMPO: verl calls it geo_mean."""

    def loss_of(x):
        log_ratio, mask = x["policy_token_logps"] - x["behaviour_token_logps"], x["mask"]
        sign = x["token_advantages"].sign()
        smaller = sign * torch.minimum(sign * log_ratio, sign * log_ratio.clamp(-bound, bound))
        lengths = mask.sum(-1) + 1e-8
        ratio = ((smaller * mask).sum(-1) / lengths).exp()
        return (-(x["token_advantages"] * mask).sum(-1) / lengths * ratio).mean()

    return with_gradient(data, "policy_token_logps", loss_of)


def value_loss(data, *, clip):
    def loss_of(x):
        values, old, returns = x["token_values"], x["behaviour_token_values"], x["token_returns"]
        near = torch.maximum(torch.minimum(values, old + clip), old - clip)
        errors = torch.maximum((values - returns) ** 2, (near - returns) ** 2)
        return aggregate(errors, x["mask"], "token-mean", None) / 2

    return with_gradient(data, "token_values", loss_of)


def kl_of_tokens(d, kind):
    """Of d = log pi - log ref."""
    if kind.endswith("+"):  # its value with the gradient of k2
        k2 = d.square() / 2
        return k2 - k2.detach() + kl_of_tokens(d, kind[:-1]).detach()
    if kind == "k1":
        return d
    if kind == "k2":
        return d.square() / 2
    assert kind == "k3"
    d = d.clamp(-20, 20)
    return ((-d).exp() - 1 + d).clamp(-10, 10)


def kl_penalty(data, *, kl):
    return with_gradient(
        data,
        "policy_token_logps",
        lambda x: aggregate(
            kl_of_tokens(x["policy_token_logps"] - x["reference_token_logps"], kl), x["mask"], "token-mean", None
        ),
    )


def entropy_loss(data):
    """Subtracted from the policy's loss."""
    return with_gradient(
        data,
        "policy_token_entropies",
        lambda x: -aggregate(x["policy_token_entropies"], x["mask"], "token-mean", None),
    )


# --------------------------------------------------------------------------------------------- theirs: the advantages


def whiten(values, mask):
    count = mask.sum()
    mean = np.where(mask, values, 0).sum() / (count + 1e-8)
    variance = np.where(mask, (values - mean) ** 2, 0).sum() / (count + 1e-8) * count / (count - 1)
    return (values - mean) / np.sqrt(variance + 1e-8)


def shaped(data, beta):
    """The score on the last token, and the KL penalty of each."""
    mask = data["mask"]
    penalties = beta * (data["behaviour_token_logps"].astype(np.float64) - data["reference_token_logps"])
    rewards = np.where(mask, -penalties, 0.0)
    last = mask.shape[1] - 1 - mask[:, ::-1].argmax(-1)
    rewards[np.arange(N), last] += data["rewards"]
    return rewards


def by_group(data):
    """For each completion, the rewards of its prompt."""
    rewards = data["rewards"].astype(np.float64)
    return [rewards[data["group_ids"] == group] for group in data["group_ids"]]


def grpo(data, *, with_std):
    out = []
    for reward, group in zip(data["rewards"].astype(np.float64), by_group(data), strict=True):
        mean, std = (group.mean(), group.std(ddof=1)) if len(group) > 1 else (0.0, 1.0)
        out.append((reward - mean) / (std + 1e-6) if with_std else reward - mean)
    return {"advantages": np.array(out)}


def grpo_vectorized(data, **settings):
    return grpo(data, **settings)


def rloo(data):
    out = []
    for reward, group in zip(data["rewards"].astype(np.float64), by_group(data), strict=True):
        n = len(group)
        out.append(n / (n - 1) * (reward - group.mean()) if n > 1 else reward)
    return {"advantages": np.array(out)}


def rloo_vectorized(data):
    alone = np.array([len(group) == 1 for group in by_group(data)])
    return {"advantages": np.where(alone, 0.0, rloo(data)["advantages"])}


def reinforce_plus_plus(data, *, gamma, beta):
    mask, rewards = data["mask"], shaped(data, beta)
    returns, running = np.zeros_like(rewards), np.zeros(N)
    for t in reversed(range(mask.shape[1])):
        running = rewards[:, t] + gamma * running
        returns[:, t] = running
        running = running * mask[:, t]
    return {"token_advantages": np.where(mask, whiten(returns, mask), 0.0)}


def reinforce_plus_plus_baseline(data):
    mask, centred = data["mask"], grpo(data, with_std=False)["advantages"]
    return {"token_advantages": np.where(mask, whiten(np.where(mask, centred[:, None], 0.0), mask), 0.0)}


def remax(data, *, beta):
    mask = data["mask"]
    to_go = np.where(mask, shaped(data, beta), 0.0)[:, ::-1].cumsum(-1)[:, ::-1]
    return {"token_advantages": np.where(mask, to_go - data["greedy_rewards"][:, None], 0.0)}


def gae(data, *, gamma, lam, beta):
    mask, rewards, values = data["mask"], shaped(data, beta), data["behaviour_token_values"].astype(np.float64)
    advantages, next_value, running = np.zeros_like(rewards), np.zeros(N), np.zeros(N)
    for t in reversed(range(mask.shape[1])):
        here = rewards[:, t] + gamma * next_value - values[:, t] + gamma * lam * running
        # What is not a token of the completion is stepped over.
        next_value, running = np.where(mask[:, t], values[:, t], next_value), np.where(mask[:, t], here, running)
        advantages[:, t] = running
    return {
        "token_returns": np.where(mask, advantages + values, 0.0),
        "token_advantages": np.where(mask, whiten(advantages, mask), 0.0),
    }


def pf_ppo(data, *, method):
    rewards = data["rewards"]
    high, low = rewards == rewards.max(), rewards == rewards.min()
    return {
        "weights": {
            "pow": np.abs(rewards) ** 2.0,
            "max_min": np.where(high | low, 1.0, 0.0),
            "max_random": np.where(high, 0.4, 0.1),
        }[method]
    }


# ------------------------------------------------------------------------------------------------------------ tables

SHAPED = {"kl_shaped_rewards": {"beta": 0.1, "order": -1, "gives": "token_rewards"}}
MODES = {
    "token-mean": {"reduction": "token_mean"},
    "seq-mean-token-sum": {"reduction": "sequence_sum"},
    "seq-mean-token-mean": {"reduction": "sequence_mean"},
    # One number for the whole batch, where ours is one per completion.
    "seq-mean-token-sum-norm": {"reduction": "constant", "reduction_length": 24 / N},
}
EVERY = (*KINDS, "beyond", "holes")
GAE = Estimate(
    {**SHAPED, "gae_whitened": {"gamma": 0.99, "lam": 0.9}}, gae, {"gamma": 0.99, "lam": 0.9, "beta": 0.1}, EVERY
)

SAME = (
    *(
        Pairing(
            {"ppo_dual_clip": {**EPS, **settings, "dual_clip": 3.0}},
            policy_loss,
            {"loss": "vanilla", "mode": mode, "dual_clip": 3.0, "scale": 24},
            EVERY if mode == "seq-mean-token-sum-norm" else (*EVERY, "empty"),
        )
        for mode, settings in MODES.items()
    ),
    Pairing({"ppo": EPS}, policy_loss, {"loss": "vanilla", "dual_clip": NEVER}, EVERY),
    # Beyond these, verl's mean log-ratio has no lower cap, ours -10; the losses then differ by some 1e-5.
    Pairing({"gspo": EPS}, policy_loss, {"loss": "gspo", "mode": "seq-mean-token-mean"}, (*KINDS, "holes")),
    Pairing(
        {"gspo_token": {**EPS, "reduction": "sequence_mean"}},
        policy_loss,
        {"loss": "gspo", "mode": "seq-mean-token-mean"},
        (*KINDS, "holes"),
    ),
    Pairing({"cispo": EPS}, policy_loss, {"loss": "cispo"}, (*EVERY, "empty")),
    Pairing({"reinforce": {}}, policy_loss, {"loss": "gpg"}, (*EVERY, "empty")),
    Pairing({"gmpo": {"eps": 0.4}}, geo_mean, {"bound": 0.4}, (*KINDS, "holes")),
    Pairing({"ppo_value_loss": {"clip": 0.2}}, value_loss, {"clip": 0.2}, EVERY, "token_values"),
    Pairing({"kl_k1": {}}, kl_penalty, {"kl": "k1"}, (*EVERY, "empty")),
    Pairing({"kl_k2": {}}, kl_penalty, {"kl": "k2"}, (*EVERY, "empty")),
    Pairing({"kl_k3": {"value_clip": 10.0}}, kl_penalty, {"kl": "k3"}, (*EVERY, "empty")),
    Pairing({"kl_k3_plus": {"value_clip": 10.0}}, kl_penalty, {"kl": "k3+"}, (*EVERY, "empty")),
    Pairing({"entropy_bonus": {}}, entropy_loss, {}, ("ordinary", "holes", "empty"), "policy_token_entropies"),
)

ESTIMATES = (
    GAE,
    Estimate({"grpo_advantages": {}}, grpo, {"with_std": True}, (*EVERY, "alike")),
    Estimate({"dr_grpo_advantages": {}}, grpo, {"with_std": False}, (*EVERY, "alike")),
    Estimate({"grpo_advantages": {}}, grpo_vectorized, {"with_std": True}, (*EVERY, "alike")),
    Estimate({"rloo_advantages": {}}, rloo, {}, (*EVERY, "alike", "alone")),
    Estimate({"rloo_advantages": {}}, rloo_vectorized, {}, (*EVERY, "alike")),
    Estimate({"reinforce_pp_baseline_advantages": {}}, reinforce_plus_plus_baseline, {}, EVERY),
    *(
        Estimate(
            {**SHAPED, "reinforce_pp_advantages": {"gamma": gamma}},
            reinforce_plus_plus,
            {"gamma": gamma, "beta": 0.1},
            (*KINDS, "beyond"),
        )
        for gamma in (1.0, 0.9)
    ),
    Estimate({"remax_kl_to_go_advantages": {"beta": 0.1, "limit": math.inf}}, remax, {"beta": 0.1}, EVERY),
    Estimate({"pf_pow_weights": {"gives": "weights"}}, pf_ppo, {"method": "pow"}, EVERY),
    Estimate({"pf_bw_weights": {"gives": "weights"}}, pf_ppo, {"method": "max_min"}, ("one prompt",)),
    Estimate({"pf_br_weights": {"gives": "weights"}}, pf_ppo, {"method": "max_random"}, ("one prompt",)),
)

DIFFERENT = (
    (
        "verl lets a token's log-ratio of -1e4 take the whole geometric mean to 0; ours counts it as -20",
        Pairing({"gmpo": {"eps": 0.4}}, geo_mean, {"bound": 0.4}, ("beyond",)),
    ),
    (
        "a completion without a token has no loss in verl's GMPO; in ours the ratio 1, the product of nothing",
        Pairing({"gmpo": {"eps": 0.4}}, geo_mean, {"bound": 0.4}, ("empty",)),
    ),
    (
        "verl divides by one number for the whole batch; ours leaves completions without a token out of it",
        Pairing(
            {"ppo": {**EPS, **MODES["seq-mean-token-sum-norm"]}},
            policy_loss,
            {"loss": "vanilla", "mode": "seq-mean-token-sum-norm", "dual_clip": NEVER, "scale": 24},
            ("empty",),
        ),
    ),
    (
        "verl gives a group of one its raw reward; ours 0: it has nothing to be compared with",
        Estimate({"grpo_advantages": {}}, grpo, {"with_std": True}, ("alone",)),
    ),
    (
        "the same without the division",
        Estimate({"dr_grpo_advantages": {}}, grpo, {"with_std": False}, ("alone",)),
    ),
    (
        "verl's vectorised form gives a group of one 0, its other one the raw reward; ours is the latter",
        Estimate({"rloo_advantages": {}}, rloo_vectorized, {}, ("alone",)),
    ),
    (
        "verl's return forgets what comes after a token that is not the policy's; ours steps over it",
        Estimate(
            {**SHAPED, "reinforce_pp_advantages": {}}, reinforce_plus_plus, {"gamma": 1.0, "beta": 0.1}, ("holes",)
        ),
    ),
    (
        "verl filters by the best and worst of the whole batch; ours, as the authors' code, within each prompt",
        Estimate({"pf_bw_weights": {"gives": "weights"}}, pf_ppo, {"method": "max_min"}, ("ordinary",)),
    ),
    (
        "the same for best and random",
        Estimate({"pf_br_weights": {"gives": "weights"}}, pf_ppo, {"method": "max_random"}, ("ordinary",)),
    ),
)

NOT_COMPARED = {
    "no kernel here, not in the catalogue": (
        "grpo_passk", "opo", "optimal_token_baseline", "tir_optimal_token_baseline", "sapo",
        "clip_cov", "kl_cov", "abs",
    ),
    "the advantage gpg; its loss is `reinforce`": ("gpg",),
    "corrects for the sampler, then calls another": ("bypass_mode",),
    "not implemented in verl; `kl_full_vocabulary` here": ("full",),
}  # fmt: skip


# ------------------------------------------------------------------------------------------------------------- tests


@pytest.mark.parametrize("pairing", SAME, ids=parity.name_of)
def test_loss_and_gradient_are_those_of_verl(pairing):
    for kind in pairing.kinds:
        for seed in range(2):
            parity.agree(pairing, kind, seed)


@pytest.mark.parametrize("pairing", ESTIMATES, ids=parity.name_of)
def test_advantages_are_those_of_verl(pairing):
    for kind in pairing.kinds:
        for seed in range(2):
            parity.estimates_agree(pairing, kind, seed)


@pytest.mark.parametrize(("reason", "pairing"), DIFFERENT, ids=[parity.name_of(p) for _, p in DIFFERENT])
def test_what_is_said_to_differ_differs(reason, pairing):
    assert parity.differ(pairing), f"no longer true: {reason}"


@pytest.mark.parametrize("kl", [0.0, 5.5, 6.0, 6.5, 100.0])
def test_adaptive_coefficient_is_that_of_verl(kl):
    got = alignment.policy_gradients.kl_coefficient_update(
        jnp.float32(0.2), jnp.full(16, kl, jnp.float32), jnp.ones(16, bool), target=6.0, horizon=100
    )
    expected = 0.2 * (1 + np.clip(kl / 6.0 - 1, -0.2, 0.2) * 16 / 100)
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_no_formula_of_verl_is_forgotten():
    pairings = (*SAME, *ESTIMATES, *(p for _, p in DIFFERENT))
    compared = {p.theirs.__name__ for p in pairings}
    compared |= {value for p in pairings for value in p.settings.values() if isinstance(value, str)}
    said = compared | {name for names in NOT_COMPARED.values() for name in names}
    assert {*ESTIMATORS_OF_VERL, *LOSSES_OF_VERL, *AGGREGATIONS_OF_VERL, *KLS_OF_VERL} <= said
