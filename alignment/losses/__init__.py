"""Every loss of the library: pure functions of arrays, by their public name.

A config names a kernel by its name here. Reductions live in `alignment.losses.reductions`, link functions in
`alignment.losses.links`, margins in `alignment.losses.margins`; this namespace (`__all__`) holds kernels only.
"""

from alignment.losses.anchored import (
    apo_down,
    apo_zero,
    bco_pair,
    cal_dpo,
    dpop,
    nca_pair,
    sft_dpo,
)
from alignment.losses.distribution_matching import (
    exo,
    infonca,
    nca,
)
from alignment.losses.distributional import (
    aot_paired,
    aot_unpaired,
)
from alignment.losses.divergences import (
    exo_pair,
    f_dpo,
    f_dpo_jensen_shannon,
)
from alignment.losses.dynamic_beta import (
    beta_dpo,
    beta_dpo_sampling_weights,
    beta_dpo_stats,
)
from alignment.losses.label_noise import (
    lcpo,
    lcpo_cpo,
    lcpo_eta_update,
    lcpo_ipo,
    lcpo_loss,
    lcpo_posterior,
    lcpo_preference_probability,
    lcpo_simpo,
)
from alignment.losses.listwise import (
    cpl_list,
    lipo_lambda,
    lipo_list_mle,
    lipo_pairwise_hinge,
    lipo_pairwise_logistic,
    lipo_pointwise_mse,
    lipo_pointwise_sigmoid,
    lipo_softmax,
    rrhf_list,
)
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
from alignment.losses.reward_modeling import (
    bt_reward_loss,
    bt_reward_margin_loss,
)
from alignment.losses.several_objectives import (
    cgpo_codpo,
    cgpo_crraft,
    mah_dpo,
    modpo,
    safe_rlhf_cost,
)
from alignment.losses.supervised import (
    mdlm,
    sft,
)
from alignment.losses.token_level import (
    cpl,
    cpl_kl,
    ld_dpo,
    ld_dpo_logp,
    position_kl,
    simpo_reg,
    sparse_token_dpo,
    tdpo1,
    tdpo2,
    treg,
    treg_token_rewards,
)
from alignment.losses.unpaired import (
    bco,
    bco_delta,
    bco_udm_weight,
    kto,
    kto_kl,
)
from alignment.losses.weights import (
    wpo,
    wpo_weight,
)

__all__ = [
    "alpha_po",
    "aot_paired",
    "aot_unpaired",
    "apo_down",
    "apo_zero",
    "bco",
    "bco_delta",
    "bco_pair",
    "bco_udm_weight",
    "beta_dpo",
    "beta_dpo_sampling_weights",
    "beta_dpo_stats",
    "bt_reward_loss",
    "bt_reward_margin_loss",
    "cal_dpo",
    "cdpo",
    "cgpo_codpo",
    "cgpo_crraft",
    "cpl",
    "cpl_kl",
    "cpl_list",
    "cpo",
    "discopop",
    "dpo",
    "dpo_gamma",
    "dpop",
    "exo",
    "exo_pair",
    "f_dpo",
    "f_dpo_jensen_shannon",
    "flex_dpo",
    "focal_po",
    "implicit_reward",
    "infonca",
    "ipo",
    "ipo_length_normalized",
    "kto",
    "kto_kl",
    "lcpo",
    "lcpo_cpo",
    "lcpo_eta_update",
    "lcpo_ipo",
    "lcpo_loss",
    "lcpo_posterior",
    "lcpo_preference_probability",
    "lcpo_simpo",
    "ld_dpo",
    "ld_dpo_logp",
    "length_normalized_dpo",
    "length_regularized_dpo",
    "lipo_lambda",
    "lipo_list_mle",
    "lipo_pairwise_hinge",
    "lipo_pairwise_logistic",
    "lipo_pointwise_mse",
    "lipo_pointwise_sigmoid",
    "lipo_softmax",
    "mah_dpo",
    "mdlm",
    "modpo",
    "nca",
    "nca_pair",
    "orpo",
    "orpo_odds_ratio",
    "position_kl",
    "robust_dpo",
    "rrhf",
    "rrhf_list",
    "rso_hinge",
    "rso_hinge_norm",
    "rso_sigmoid_norm",
    "safe_rlhf_cost",
    "sft",
    "sft_dpo",
    "simpo",
    "simpo_reg",
    "slic_hf",
    "slic_hf_target",
    "sparse_token_dpo",
    "tdpo1",
    "tdpo2",
    "tpo",
    "tpo_l",
    "treg",
    "treg_token_rewards",
    "wpo",
    "wpo_weight",
]
