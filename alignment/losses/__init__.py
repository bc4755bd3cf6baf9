"""Every loss of the library: pure functions of arrays, by their public name.

A config names a kernel by its name here. Reductions live in `alignment.losses.reductions`, link functions in
`alignment.losses.links`; this namespace (`__all__`) holds kernels only.
"""

from alignment.losses.dynamic_beta import beta_dpo, beta_dpo_sampling_weights, beta_dpo_stats
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
from alignment.losses.listwise import lipo_lambda
from alignment.losses.preference import cdpo, dpo, focal_po, implicit_reward, ipo, ipo_length_normalized
from alignment.losses.reward_modeling import bt_reward_loss, bt_reward_margin_loss
from alignment.losses.supervised import sft
from alignment.losses.token_level import (
    cpl,
    cpl_kl,
    ld_dpo,
    ld_dpo_logp,
    position_kl,
    sparse_token_dpo,
    tdpo1,
    tdpo2,
    treg,
    treg_token_rewards,
)
from alignment.losses.unpaired import bco, bco_delta, bco_udm_weight, kto, kto_kl
from alignment.losses.weights import wpo, wpo_weight

__all__ = [
    "bco",
    "bco_delta",
    "bco_udm_weight",
    "beta_dpo",
    "beta_dpo_sampling_weights",
    "beta_dpo_stats",
    "bt_reward_loss",
    "bt_reward_margin_loss",
    "cdpo",
    "cpl",
    "cpl_kl",
    "dpo",
    "focal_po",
    "implicit_reward",
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
    "lipo_lambda",
    "position_kl",
    "sft",
    "sparse_token_dpo",
    "tdpo1",
    "tdpo2",
    "treg",
    "treg_token_rewards",
    "wpo",
    "wpo_weight",
]
