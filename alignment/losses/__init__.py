"""Every loss of the library: pure functions of arrays, by their public name.

A config names a kernel by its name here. Reductions live in `alignment.losses.reductions`, link functions in
`alignment.losses.links`; this namespace (`__all__`) holds kernels only.
"""

from alignment.losses.distribution_matching import exo, infonca, nca
from alignment.losses.distributional import aot_paired, aot_unpaired
from alignment.losses.label_noise import (
    lcpo,
    lcpo_eta_update,
    lcpo_loss,
    lcpo_posterior,
    lcpo_preference_probability,
)
from alignment.losses.listwise import (
    lipo_lambda,
    lipo_list_mle,
    lipo_pairwise_hinge,
    lipo_pairwise_logistic,
    lipo_pointwise_mse,
    lipo_pointwise_sigmoid,
    lipo_softmax,
    rrhf_list,
)
from alignment.losses.preference import (
    cdpo,
    dpo,
    focal_po,
    implicit_reward,
    ipo,
    ipo_length_normalized,
    position_kl,
    tdpo1,
    tdpo2,
)
from alignment.losses.reference_free import (
    alpha_po,
    cpo,
    orpo,
    orpo_odds_ratio,
    rrhf,
    simpo,
    slic_hf,
    slic_hf_target,
    tpo,
    tpo_l,
)
from alignment.losses.reward_modeling import bt_reward_loss, bt_reward_margin_loss
from alignment.losses.supervised import sft

__all__ = [
    "alpha_po",
    "aot_paired",
    "aot_unpaired",
    "bt_reward_loss",
    "bt_reward_margin_loss",
    "cdpo",
    "cpo",
    "dpo",
    "exo",
    "focal_po",
    "implicit_reward",
    "infonca",
    "ipo",
    "ipo_length_normalized",
    "lcpo",
    "lcpo_eta_update",
    "lcpo_loss",
    "lcpo_posterior",
    "lcpo_preference_probability",
    "lipo_lambda",
    "lipo_list_mle",
    "lipo_pairwise_hinge",
    "lipo_pairwise_logistic",
    "lipo_pointwise_mse",
    "lipo_pointwise_sigmoid",
    "lipo_softmax",
    "nca",
    "orpo",
    "orpo_odds_ratio",
    "position_kl",
    "rrhf",
    "rrhf_list",
    "sft",
    "simpo",
    "slic_hf",
    "slic_hf_target",
    "tdpo1",
    "tdpo2",
    "tpo",
    "tpo_l",
]
