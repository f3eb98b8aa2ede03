"""The adversarial losses as pure functions of logits (Goodfellow et al. 2014, arXiv:1406.2661).

With p = sigmoid(logit), binary cross-entropy against label 1 is -log p, and against label 0 it is
-log(1 - p) = -log sigmoid(-logit). `logsigmoid` is the stable form: it never takes the logarithm of a probability
rounded to 0. (It equals -softplus(-logit), but torch's `softplus` turns linear at 20, which is 2e-9 off.)
D minimises bce_real(D(x)) + bce_fake(D(G(z))), equation 1; G minimises bce_real(D(G(z))), the non-saturating
loss of section 3.
"""

from torch import Tensor
from torch.nn.functional import logsigmoid


def bce_real(logits: Tensor) -> Tensor:
    """Mean binary cross-entropy of logits (batch,) against label 1 ("real"): -log sigmoid(logit)."""
    return -logsigmoid(logits).mean()


def bce_fake(logits: Tensor) -> Tensor:
    """Mean binary cross-entropy of logits (batch,) against label 0 ("fake"): -log(1 - sigmoid(logit))."""
    return -logsigmoid(-logits).mean()
