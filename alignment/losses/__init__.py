"""Every loss of the library: pure functions of arrays, by their public name.

A config names a kernel by its name here. Reductions live in `alignment.losses.reductions`, link functions in
`alignment.losses.links`, margins in `alignment.losses.margins`; this namespace (`__all__`) holds kernels only.
"""

from alignment.losses.distribution_matching import exo, infonca, nca
from alignment.losses.distributional import aot_paired, aot_unpaired
from alignment.losses.anchored import (
    apo_down,
    apo_zero,
    bco_pair,
    cal_dpo,
    dpop,
    nca_pair,
    sft_dpo,
)
from alignment.losses.divergences import (
    exo_pair,
    f_dpo,
    f_dpo_jensen_shannon,
)
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
from alignment.losses.listwise import lipo_lambda
from alignment.losses.pair_links import (
    discopop,
    robust_dpo,
    rso_hinge,
    rso_hinge_norm,
    rso_sigmoid_norm,
)
from alignment.losses.pair_margins import (
    dpo_gamma,
    flex_dpo,
    length_normalized_dpo,
    length_regularized_dpo,
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
    "apo_down",
    "apo_zero",
    "bco_pair",
    "bt_reward_loss",
    "bt_reward_margin_loss",
    "cal_dpo",
    "cdpo",
    "cpo",
    "dpo",
    "exo",
    "discopop",
    "dpo",
    "dpo_gamma",
    "dpop",
    "exo_pair",
    "f_dpo",
    "f_dpo_jensen_shannon",
    "flex_dpo",
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
    "length_normalized_dpo",
    "length_regularized_dpo",
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
    "nca_pair",
    "position_kl",
    "robust_dpo",
    "rso_hinge",
    "rso_hinge_norm",
    "rso_sigmoid_norm",
    "sft",
    "sft_dpo",
    "tdpo1",
    "tdpo2",
    "tpo",
    "tpo_l",
]
