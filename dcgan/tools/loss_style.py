"""The look of the two losses in every figure of them."""

#: Blue and vermilion of Okabe and Ito's palette, which colour-blind readers can tell apart.
COLORS = {"loss_d": "#0072B2", "loss_g": "#D55E00"}
#: Dashes tell G from D without colour.
DASHES = {"loss_d": "-", "loss_g": (0, (4, 1.2))}
LABELS = {"loss_d": "D: discriminator (real + fake)", "loss_g": "G: generator"}


def smoothing(steps: int) -> int:
    """Steps that a point of the thick line is a mean of, in a run of so many: over more it crosses elsewhere."""
    return max(1, min(50, steps // 20))
