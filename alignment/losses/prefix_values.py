"""Values of unfinished responses, for decoding that looks at where a token leads (`alignment.decoding`)."""

import jax
import jax.numpy as jnp

from alignment import checks
from alignment.losses.masking import keep

Array = jax.Array


def cd_fudge(token_scores: Array, rewards: Array, mask: Array) -> Array:
    """(V(x, y_1:t) - r(x, y))^2 / 2 of every prefix: the value is fitted to the reward that its response got.

    On responses of the frozen base its minimum is V = E_base[r | y_1:t]. The other target of the paper, which looks at
    all next tokens, is `alignment.decoding.combinations.cd_q_targets`. Train the head alone
    (`optimizer.only=("reward_head",)`), or a model of its own: the base must stay what the responses were drawn from.

    Args:
      token_scores: V of the prefix that ends with the token. Trained.
      rewards: of the whole response. Held fixed.
      mask: bool, True on the completion's tokens.

    Shapes: token_scores and mask `[..., T]`, rewards `[...]`; result float32 `[..., T]`. The paper sums over t and
      takes the mean over responses.

    Raises:
      AssertionError: shapes differ, or a wrong dtype.

    Paper: Mudgal et al., 2023, arXiv 2310.17022, eq. 3.
    """
    (values,) = checks.floats(token_scores=token_scores)
    (rewards,) = checks.floats(rewards=rewards)
    checks.leading_shape(rewards=rewards, token_scores=values)
    return 0.5 * jnp.square(keep(values - jax.lax.stop_gradient(rewards)[..., None], mask))
