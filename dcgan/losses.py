"""The adversarial losses as pure functions of logits (Goodfellow et al. 2014, arXiv:1406.2661).

With p = sigmoid(logit), binary cross-entropy against label 1 is -log p = softplus(-logit), and against
label 0 it is -log(1 - p) = softplus(logit). The softplus form is the stable one: it never takes the
logarithm of a probability that was rounded to 0.
"""

from torch import Tensor
from torch.nn.functional import softplus


def bce_real(logits: Tensor) -> Tensor:
    """Mean binary cross-entropy of logits (batch,) against label 1 ("real"): -log sigmoid(logit)."""
    return softplus(-logits).mean()


def bce_fake(logits: Tensor) -> Tensor:
    """Mean binary cross-entropy of logits (batch,) against label 0 ("fake"): -log(1 - sigmoid(logit))."""
    return softplus(logits).mean()
