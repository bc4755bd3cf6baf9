"""What training does to pairs that were ranked right, and wrong, to begin with: FocalPO and DPO (arXiv 2501.06645)."""

import tempfile

import jax
import numpy as np
import optax

import alignment.losses
from alignment import objective, statistics
from alignment.training import state, step
from experiments.reproductions import style
from experiments.reproductions.gradient_entanglement import TINY, supervised_model

SMALL = {
    "seeds": 1, "gammas": (0.5,), "steps": 2, "every": 1, "batch_size": 2, "held_out": 8,
    "lm": {"steps": 2, "model": TINY | {"hidden_size": 16, "num_layers": 1}},
}  # fmt: skip
PAIR = ("policy_chosen_logps", "policy_rejected_logps")


def batch_of(data, examples):
    return {k: v for k, v in data.collate(examples).items() if v is not None}


def scorer(model, sides):
    """`(params, batch) -> (log pi(y_w|x) - log pi(y_l|x) [B], log-probs of the tokens)`."""
    needs = statistics.needs_of(PAIR)

    def score(params, batch):
        computed = statistics.compute(needs, model, params, {}, batch)
        chosen, rejected = (statistics.deliver(name, sides, computed, batch) for name in PAIR)
        return chosen - rejected, computed["policy_token_logps"]

    return jax.jit(score)


def trained(kernel, hyperparameters, data, model, params, score, *, steps, every, batch_size, learning_rate, seed):
    """Trains on pairs with the loss; yields (step, parameters) at the start and every so many steps."""
    optimizer = optax.adam(learning_rate)
    terms = objective.bind({kernel: hyperparameters}, alignment.losses, "objective", data.sides, data.columns)
    losses = step.make_losses(model, {}, terms, (), data.sides)
    update = jax.jit(step.make_step(losses, terms, (), data.sides, optimizer))
    train_state = state.create(params, optimizer, {}, jax.random.key(seed))
    order = np.random.default_rng(seed).permutation(len(data.train))
    yield 0, params
    for at in range(1, steps + 1):
        examples = [data.train[i] for i in order[(at - 1) * batch_size : at * batch_size]]
        batch = batch_of(data, examples)
        batch["reference_token_logps"] = score(params, batch)[1]  # of the start, which is never updated in place
        train_state, _ = update(train_state, {}, batch)
        if at % every == 0:
            yield at, train_state.params


def tables(
    *, seeds=5, gammas=(0.05, 0.5), beta=0.5, steps=80, every=10, batch_size=16, learning_rate=1e-4, held_out=200,
    workdir=None, lm=None,
):  # fmt: skip
    """`workdir` keeps the language models between calls; None: a temporary directory. `lm`: of `supervised_model`."""
    methods = {"DPO": ("dpo", {"beta": beta})}
    methods |= {f"FocalPO, gamma {g:g}": ("focal_po", {"beta": beta, "gamma": g}) for g in gammas}
    settings = {"steps": steps, "every": every, "batch_size": batch_size, "learning_rate": learning_rate}
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        for seed in range(seeds):
            data, model, params = supervised_model(seed, workdir or temporary, **(lm or {}))
            score = scorer(model, data.sides)
            evaluation = batch_of(data, data.evaluation[:held_out])
            start = np.asarray(score(params, evaluation)[0])
            groups = {"right": start > 0, "wrong": start <= 0}
            for method, (kernel, hyperparameters) in methods.items():
                stages = trained(kernel, hyperparameters, data, model, params, score, seed=seed, **settings)
                for at, moved in stages:
                    margins = np.asarray(score(moved, evaluation)[0])
                    rows += [
                        {"method": method, "seed": seed, "step": at, "at_first": group, "pairs": int(members.sum())}
                        | {"margin_gained_nats": float((margins - start)[members].mean())}
                        | {"ranked_right": float((margins[members] > 0).mean())}
                        for group, members in groups.items()
                    ]
    return {"dynamics": rows}


def figure(tables):
    drawn, axes = style.panels(2)
    looks = {"right": "-", "wrong": "--"}
    for axis, y, label in zip(
        axes,
        ("margin_gained_nats", "ranked_right"),
        ("margin gained over the start (nats)", "ranked right by the policy (share)"),
        strict=True,
    ):
        for method, colour in zip(style.distinct(tables["dynamics"], "method"), style.COLOURS, strict=False):
            for group, dashes in looks.items():
                rows = style.select(tables["dynamics"], method=method, at_first=group)
                style.band(axis, rows, "step", y, label=f"{method}, {group} at first", color=colour, linestyle=dashes)
        axis.set(xlabel="gradient steps", ylabel=label)
    drawn.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return drawn
