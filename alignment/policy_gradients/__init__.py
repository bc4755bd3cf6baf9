"""Everything between a rollout and its loss: shaping of rewards, advantage estimators, surrogates, penalties, trackers.

Pure functions of named arrays (the vocabulary in `alignment.statistics`), by their public name.
"""

from alignment.policy_gradients.filters import (
    pf_bon_weights,
    pf_br_weights,
    pf_bw_weights,
    pf_pow_weights,
    pf_r_squared,
)
from alignment.policy_gradients.offline import (
    a_lol,
    a_lol_advantages,
    a_lol_kl,
    a_lol_reference_free,
    a_lol_sequence,
    gold,
    r_lol,
    wbc,
)
from alignment.policy_gradients.pairwise import (
    copg,
    copg_squared,
    p3o_joint,
    p3o_separate,
    prdp,
    pro,
    rdp,
)

__all__ = [
    "a_lol",
    "a_lol_advantages",
    "a_lol_kl",
    "a_lol_reference_free",
    "a_lol_sequence",
    "copg",
    "copg_squared",
    "gold",
    "p3o_joint",
    "p3o_separate",
    "pf_bon_weights",
    "pf_br_weights",
    "pf_bw_weights",
    "pf_pow_weights",
    "pf_r_squared",
    "prdp",
    "pro",
    "r_lol",
    "rdp",
    "wbc",
]
