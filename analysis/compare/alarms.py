"""Alarms: runs that diverged, runs that D or G has won, and runs whose last snapshots are much worse than their best.

Images that are all alike raise no alarm: the losses and a detector look calm then. Look at the grid.
"""

from collections.abc import Callable
from typing import Any

import pandas as pd

from analysis.compare.comparison import Note
from analysis.compare.quality import MUCH_WORSE
from analysis.measures import interleaving


def alarms_of(table: pd.DataFrame) -> list[Note]:
    """The alarms of all runs, those that diverged first."""
    worse = table["last_fid"].astype(float) > MUCH_WORSE * table["best_fid"].astype(float)
    return [
        *_notes(table[table["status"] == "diverged"], _diverged),
        *_notes(table[d_has_won(table)], _d_has_won),
        *_notes(table[table["g_has_won"].eq(True)], _g_has_won),
        *_notes(table[worse], _became_worse),
    ]


def d_has_won(table: pd.DataFrame) -> pd.Series:
    """Return, for each run, whether D has won it for good."""
    return table["d_win_share_at_end"].astype(float) > interleaving.D_WON_SHARE


def _notes(rows: pd.DataFrame, wording: Callable[[Any], str]) -> list[Note]:
    return [Note(wording(row), f"{row.experiment} seed {row.seed}") for row in rows.itertuples()]


def _diverged(row: Any) -> str:
    return (
        f"diverged at step {row.steps:,}: a loss was no longer finite; try a lower learning rate. All means leave out "
        "this seed"
    )


def _d_has_won(row: Any) -> str:
    return (
        f"D has won: its loss is below {interleaving.D_WINS_BELOW} in {100 * row.d_win_share_at_end:.1f} % of the last "
        f"{interleaving.D_WON_STEPS:,} steps, so G gets little to learn from; try a lower discriminator.learning_rate"
    )


def _g_has_won(_: Any) -> str:
    return (
        f"G has won: its loss is below {interleaving.D_WINS_BELOW} in more than {100 * interleaving.D_WON_SHARE:.0f} % "
        f"of the last {interleaving.D_WON_STEPS:,} steps, so D takes nearly all generated images for real and G learns "
        "next to nothing; try a higher discriminator.learning_rate"
    )


def _became_worse(row: Any) -> str:
    return (
        f"its last three snapshots are much worse than the best three in a row: FID {row.last_fid:.1f} against "
        f"{row.best_fid:.1f} around step {row.best_step:,.0f}; the table shows the final generator"
    )
