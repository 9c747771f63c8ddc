"""The paper's losses: arrays in, scalars out, float32, each a mean over the global batch.

No weight is applied here; every weight is a config field and multiplied once, in `step`.
"""

import jax
import jax.numpy as jnp
from jax import Array


def least_squares(scores: Array, target: float) -> Array:
    """LSGAN: mean over all patches of (D(x) - target)^2, target 1 for real and 0 for synthetic.

    The form of L_GAN in Eq. 3 (Mao et al., ICCV 2017); the paper leaves it to CycleGAN, which uses
    this one. scores: (b, z', y', x', 1), one a patch.
    """
    return jnp.square(scores.astype(jnp.float32) - target).mean()


def l1(image: Array, target: Array) -> Array:
    """Mean absolute difference over all voxels: the norm of Eq. 1 (and of the identity loss).

    image, target: (b, z, y, x, 1).
    """
    return jnp.abs(image.astype(jnp.float32) - target.astype(jnp.float32)).mean()


def cross_entropy(logits: Array, labels: Array) -> Array:
    """Mean over all voxels of -log softmax(logits)[label]: Eq. 2, and the segmentors' own loss.

    Args:
      logits: (b, z, y, x, classes).
      labels: integer (b, z, y, x), values in 0..classes-1.
    """
    log_p = jax.nn.log_softmax(logits.astype(jnp.float32))
    # A one-hot product, because the gradient of a gather is a slow scatter on CPU and TPU.
    hot = jax.nn.one_hot(labels, logits.shape[-1], dtype=jnp.float32)
    return -(hot * log_p).sum(-1).mean()
