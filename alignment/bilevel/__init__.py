"""Bilevel optimisation: min_x F(x, y*(x)) where y*(x) minimises g(x, .), by gradients of both functions.

Pure functions of callables that run under `jax.jit` (one `lax.scan` over the outer steps), for small problems: weights
of data sources, weights of examples, hyperparameters. Reward design against a policy that adapts (PARL) is in
`alignment.games`.
"""

from alignment.bilevel.data_weights import ScaleBiORun, scalebio, scalebio_weight_gradient
from alignment.bilevel.momentum import BoRepRun, bo_rep, hypergradient_estimate
from alignment.bilevel.proximal_lagrangian import LvHbaState, lv_hba, lv_hba_directions
from alignment.bilevel.value_penalty import PenaltyRun, penalty_bilevel, penalty_objective

__all__ = [
    "BoRepRun",
    "LvHbaState",
    "PenaltyRun",
    "ScaleBiORun",
    "bo_rep",
    "hypergradient_estimate",
    "lv_hba",
    "lv_hba_directions",
    "penalty_bilevel",
    "penalty_objective",
    "scalebio",
    "scalebio_weight_gradient",
]
