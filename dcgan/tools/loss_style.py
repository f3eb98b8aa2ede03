"""The look of the two losses in every figure of them."""

SMOOTHING_STEPS = 50
#: Blue and vermilion of Okabe and Ito's palette, which colour-blind readers can tell apart.
COLORS = {"loss_d": "#0072B2", "loss_g": "#D55E00"}
LABELS = {"loss_d": "D: discriminator (real + fake)", "loss_g": "G: generator"}
