"""Alarms: runs that diverged, that D or G has won, or whose last snapshots are much worse than their best.

None is raised where the images are all alike: the losses and a detector look calm then. Look at the grid.
"""

from collections.abc import Callable
from typing import Any

import pandas as pd

from analysis.compare.comparison import Note
from analysis.compare.quality import MUCH_WORSE
from analysis.compare.writeup import SLOWER_D
from analysis.measures import interleaving


def alarms_of(table: pd.DataFrame) -> list[Note]:
    """The alarms of all runs, those that diverged first."""
    diverged = table[table["status"] == "diverged"]
    worse = table[table["last_fid"].astype(float) > MUCH_WORSE * table["best_fid"].astype(float)]
    return [
        *_notes(
            diverged,
            lambda row: (
                f"diverged at step {row.steps:,}: a loss was no longer finite; try a lower learning rate. No mean "
                "includes this seed"
            ),
        ),
        *_notes(
            table[d_has_won(table)],
            lambda row: (
                f"D has won: its loss is below {interleaving.D_WINS_BELOW} in "
                f"{100 * row.d_win_share_at_end:.1f} % of the last {interleaving.D_WON_STEPS:,} steps, so G learns next "
                f"to nothing; try a lower discriminator.learning_rate ({SLOWER_D})"
            ),
        ),
        *_notes(
            table[table["g_has_won"].eq(True)],
            lambda _: (
                f"G has won: its loss is below {interleaving.D_WINS_BELOW} in more than "
                f"{100 * interleaving.D_WON_SHARE:.0f} % of the last {interleaving.D_WON_STEPS:,} steps, so D takes "
                "nearly all generated images for real and G learns next to nothing; try a higher discriminator.learning_rate"
            ),
        ),
        *_notes(
            worse,
            lambda row: (
                "its last three snapshots are much worse than the best three in a row: FID "
                f"{row.last_fid:.1f} against {row.best_fid:.1f} around step {row.best_step:,.0f}; the table shows the "
                "final generator"
            ),
        ),
    ]


def d_has_won(table: pd.DataFrame) -> pd.Series:
    """Whether D has won each run for good."""
    return table["d_win_share_at_end"].astype(float) > interleaving.D_WON_SHARE


def _notes(rows: pd.DataFrame, text: Callable[[Any], str]) -> list[Note]:
    return [Note(text(row), f"{row.experiment} seed {row.seed}") for row in rows.itertuples()]
