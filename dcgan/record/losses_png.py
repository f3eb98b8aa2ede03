"""The write-up's figure: the losses of both networks over the steps."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dcgan import counted
from dcgan.tools.files import replacing
from dcgan.tools.loss_style import COLORS, DASHES, LABELS, smoothing

if TYPE_CHECKING:
    import pandas as pd


def draw_losses(history: "pd.DataFrame", path: Path, *, title: str) -> None:
    """Draw both losses, raw and smoothed, from a history to a PNG."""
    import seaborn as sns  # takes seconds to import, and a run starts long before it ends
    from matplotlib.figure import Figure

    with sns.axes_style("whitegrid"), replacing(path) as aside:
        figure = Figure(figsize=(9, 4.5), layout="constrained")  # pyplot would need a display
        axis, mean_of = figure.subplots(), smoothing(len(history))
        for column, color in COLORS.items():
            axis.plot(history["step"], history[column], color=color, alpha=0.25, linewidth=0.5)
            smooth = history[column].rolling(mean_of, min_periods=1, center=True).mean()
            axis.plot(
                history["step"], smooth, color=color, linestyle=DASHES[column], linewidth=1.8, label=LABELS[column]
            )
        # A single spike would flatten everything else, and an axis can't end at infinity.
        top = history[list(COLORS)].where(np.isfinite).quantile(0.999).max()
        axis.set(xlabel="step", ylabel="loss (binary cross-entropy, nats)", title=title)
        axis.set_ylim(0, 1.1 * top if top > 0 else 1.0)
        axis.margins(x=0)
        title = f"mean of {counted(mean_of, 'step')} (pale: every step)"
        figure.legend(title=title, loc="outside lower center", ncols=2)  # it hides no data there
        figure.savefig(aside, format="png", dpi=130)
