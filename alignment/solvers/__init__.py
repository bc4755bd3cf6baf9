"""Solvers of small problems beside the training of a model: bilevel ones, convex heads, models without a normaliser.

Pure functions of callables and arrays, one `lax.scan` over the steps, so they run under `jax.jit`. A bilevel problem is
min_x F(x, y*(x)) where y*(x) minimises g(x, .): weights of data sources, weights of examples, hyperparameters. Reward
design against a policy that adapts (PARL) is in `alignment.games`. Only jax and chex are imported.
"""

from alignment.solvers.data_weights import ScaleBiORun, scalebio, scalebio_weight_gradient
from alignment.solvers.momentum import BoRepRun, bo_rep, hypergradient_estimate
from alignment.solvers.newton import GnsNewtonRun, gns_newton, gns_newton_step
from alignment.solvers.proximal_lagrangian import LvHbaState, lv_hba, lv_hba_directions
from alignment.solvers.unnormalized import MecoRun, meco, nce_loss, unnormalized_nll
from alignment.solvers.value_penalty import PenaltyRun, penalty_bilevel, penalty_objective

__all__ = [
    "BoRepRun",
    "GnsNewtonRun",
    "LvHbaState",
    "MecoRun",
    "PenaltyRun",
    "ScaleBiORun",
    "bo_rep",
    "gns_newton",
    "gns_newton_step",
    "hypergradient_estimate",
    "lv_hba",
    "lv_hba_directions",
    "meco",
    "nce_loss",
    "penalty_bilevel",
    "penalty_objective",
    "scalebio",
    "scalebio_weight_gradient",
    "unnormalized_nll",
]
