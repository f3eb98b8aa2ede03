"""The record of one comparison: plain data that `build` makes and the pages show. Needs no torch."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pandas as pd

from analysis.compare.quality import Outcome
from analysis.measures.inference import Association, Effect, Estimate, pooled_effect, pooled_sd
from analysis.runs.run import Note, Run

#: The columns of compare.csv in order; those from the ninth on are measured. `_end` is the last quarter of the steps
#: that are compared, `_last` the last quarter of the whole run, `_at_end` its last 1,000 steps.
RUN_COLUMNS = (
    "experiment", "seed", "data", "profile", "image_size", "batch_size", "steps", "status", "extractor", "n_fake",
    "n_real", "isc_mean", "isc_std", "fid", "fid_floor", "fid_at_64", "kid_mean", "kid_std", "precision", "recall",
    "face_rate", "interleaving_ratio", "interleaving_ratio_low", "interleaving_ratio_high", "lead_balance",
    "dominance", "equilibrium_gap", "d_win_share", "images_per_s", "data_wait_fraction", "gpu_hours", "cost",
    "fid_at_floor_n", "floor_n", "face_rate_low", "face_rate_high", "face_rate_real", "interleaving_ratio_5",
    "interleaving_ratio_20", "best_step", "best_fid", "last_fid", "floor_share", "d_win_share_last",
    "d_win_share_at_end", "step_ms", "spread", "overlap", "period_2", "smooth_crossings",
    "kid_endpoint", "d_win_share_whole", "interleaving_ratio_end", "interleaving_ratio_5_end",
    "copied", "copied_real", "variety", "variety_real", "precision_real", "recall_real", "g_has_won", "steps_compared",
    "dominance_end", "interleaving_ratio_last", "d_win_longest", "last_fid_unseen",
)  # fmt: skip
#: One row per snapshot. interleaving_ratio is over the steps since the previous snapshot; NaN where it is unknown.
SNAPSHOT_COLUMNS = (
    "experiment", "seed", "image_size", "step", "fid", "kid_mean", "kid_std", "isc_mean", "isc_std",
    "interleaving_ratio", "fid_unseen", "kid_unseen",
)  # fmt: skip
#: One row per window of steps.
WINDOW_COLUMNS = ("experiment", "seed", "step", "interleaving_ratio", "lead_balance", "reference_crossings")

#: What the losses do. Runs on other images can be compared only by these; runs of two image sizes by these and by FID
#: at 64 px.
DYNAMICS = (
    "interleaving_ratio", "interleaving_ratio_5", "interleaving_ratio_20", "lead_balance", "dominance", "spread",
    "overlap", "period_2", "smooth_crossings", "equilibrium_gap", "d_win_share",
)  # fmt: skip
#: The measures that are averaged over seeds and compared with the parent's.
AVERAGED = (
    "fid", "fid_at_64", "kid_mean", "isc_mean", "precision", "recall", "face_rate", *DYNAMICS, "copied",
    "variety",
)  # fmt: skip

#: An answer's verdict -> how people read it. A plain answer has no verdict, only a text.
VERDICTS = {
    "better": "Better",
    "behind": "Behind, and still improving",
    "worse": "Worse",
    "yes": "Yes",
    "slower": "Merely slower",
    "no": "No",
    "reversed": "The other way round",
    "depends": "It depends",
    "open": "Can't tell",
    "plain": "",
}


def sentence(verdict: str, text: str) -> str:
    """A verdict and its text: 'Better. FID is 3 lower than ...'; only the text for a plain one."""
    return f"{VERDICTS[verdict]}. {text}" if VERDICTS[verdict] else text


def titles(rows: pd.DataFrame) -> pd.Series:
    """The title of each row's run."""
    return rows["experiment"] + " seed " + rows["seed"].astype(str)


def without_runs(rows: pd.DataFrame, without: Collection[str]) -> pd.DataFrame:
    """The rows of all runs, or of their snapshots, but those of these titles."""
    return rows[~titles(rows).isin(without)].reset_index(drop=True)


@dataclass(frozen=True)
class Answer:
    """One question and what the numbers say about it."""

    question: str
    verdict: str  # a key of VERDICTS
    text: str  # one or more sentences without the verdict's words; begins with a capital letter
    more: str = ""  # further sentences, which a short table may leave out
    evidence: Sequence[str] = ()  # the numbers with n and intervals, one sentence each
    key: str = ""  # of a question across runs, by which a page finds it
    rule: str = ""  # by which the verdict was reached, where the plan has one
    #: Whether the rule comes from docs/study/plan.md and all runs that the rule asks for are there.
    primary: bool = False
    not_run: bool = False  # the runs that the rule asks for are not all there
    facts: Mapping[str, Any] = field(default_factory=dict)  # what a page words by itself: n, rho, the corrected p ...

    @property
    def kind(self) -> str:
        """The degree to which the answer was fixed beforehand."""
        if self.primary:
            return "by the plan"
        if self.not_run:
            return "not applied"
        return "exploratory, by the plan's rule" if self.rule else "exploratory"

    @property
    def word(self) -> str:
        """The verdict in words, "" for a plain answer."""
        return VERDICTS[self.verdict]

    @property
    def is_asked(self) -> bool:
        """True if these runs have any numbers on the question."""
        return self.verdict != "open" or bool(self.evidence)

    @property
    def sentence(self) -> str:
        """The whole answer, verdict first."""
        return sentence(self.verdict, f"{self.text} {self.more}".strip())


@dataclass(frozen=True)
class Arms:
    """The runs of the plan's primary question at equal steps."""

    runs: pd.DataFrame  # experiment, seed, arm, q (log KID) and the candidates' columns; one row per run
    snapshots: pd.DataFrame  # of these runs up to these steps, with `arm`; a trajectory that two runs share counts once
    planned: bool  # whether they are the plan's; else all recipes of the comparison, and the answer is exploratory
    complete: bool = False  # whether all arms of the plan are there, with all of its seeds
    steps: int = 0  # the equal steps
    #: Of the plan's arms: the setting and value in which each differs from baseline; for baseline its own value of the
    #: setting that most others change.
    changes: Mapping[str, tuple[str, Any]] = field(default_factory=dict)
    baseline: str | None = None  # the arm that is the plan's baseline

    @property
    def means(self) -> pd.DataFrame:
        """The means of each arm, one row per arm."""
        return self.runs.groupby("arm").mean(numeric_only=True)

    @property
    def logs(self) -> dict[str, list[float]]:
        """Each arm's log KIDs, one per scored run."""
        return {str(arm): q.dropna().to_list() for arm, q in self.runs.groupby("arm")["q"]}

    def effect(self, arm: str, other: str) -> Effect:
        """The log KID of one arm minus another's, the variance pooled over all arms. Both have scored runs."""
        logs = self.logs
        sd, df = pooled_sd(logs)
        return pooled_effect(logs[arm], logs[other], sd=sd, df=df)


class Claim(NamedTuple):
    """The subject of an association: does more x go with less KID?"""

    x: str  # a candidate, a column of the snapshots
    when: str  # "here" or "next": the snapshot that has KID
    among: str  # what is compared, a key of correlations.AMONG


@dataclass(frozen=True)
class Alternative:
    """An experiment as it stands in one comparison: how it differs from its parent, and its results."""

    name: str  # the slug
    parent: str | None  # the slug of the experiment that it is compared with; None: a root
    question: str  # that the experiment asks
    changes: Mapping[str, tuple[Any, Any]]  # dotted key -> (the parent's value, its own)
    seeds: Sequence[int]  # that finished
    measures: Mapping[str, Estimate]  # one of AVERAGED -> mean over seeds
    differences: Mapping[str, Effect]  # a measure -> this minus parent, see `build`; empty for a root
    quality: str | None  # what it is compared with its parent by: `kid_endpoint`, `fid_at_64`; None: on other images
    parent_known: bool = True  # whether the parent's settings are known; else there are no changes
    outcome: Outcome | None = None  # its endpoint compared with the parent's, where both are known
    stand_in: str = ""  # what stands for seeds of the parent that have no run: the first steps of a longer one
    own_course: str = ""  # how its runs went on after their first steps, which are the parent's
    experiment: str = ""  # its name without what was set on the command line
    overrides: Sequence[str] = ()  # the dotted keys that were set there
    copied: Sequence[str] = ()  # its runs whose compared steps repeat a parent's run, as `Twin.text` says it
    diverged: Mapping[int, int] = field(default_factory=dict)  # seed -> step; these are in none of the means
    d_won: Sequence[int] = ()  # seeds in which D has won for good


@dataclass(frozen=True)
class Comparison:
    """Everything that one report shows. The frames are tidy and sorted by experiment (in display order), seed, step."""

    data: str  # "faces128-0feed4f5", the report's folder
    profile: str
    protocol: Mapping[str, str]  # for people, key -> text: extractor, generated images, reference, BatchNorm ...
    runs: Sequence[Run]  # all of them, the unfinished ones too; an ancestor before its heirs
    alternatives: Sequence[Alternative]  # in display order, by which those that are no dose get their colours
    table: pd.DataFrame  # RUN_COLUMNS, one row per run
    snapshots: pd.DataFrame  # SNAPSHOT_COLUMNS and `next_kid_mean`, of the run's next snapshot; one row per snapshot
    windows: pd.DataFrame  # WINDOW_COLUMNS, one row per window
    associations: Mapping[Claim, Association]
    predictions: Mapping[str, Answer]  # a candidate -> whether it predicts quality, without evidence
    arms: Arms  # the runs behind these predictions
    steps_compared: int  # the steps, from the first on, over which losses are compared; 0: none are
    experiment_answers: Mapping[str, Answer]  # an experiment's name -> the answer to its own question
    alarms: Sequence[Note]  # runs that diverged, that D has won, or whose last snapshot is much worse than their best
    notes: Sequence[Note]  # what is named and not hidden: unfinished, refused, unreadable, not scored
    #: A candidate -> step -> rank correlation of the recipes' means with the next snapshot's KID, and of how many.
    step_correlations: Mapping[str, Mapping[int, tuple[float, int]]] = field(default_factory=dict)
    ratings: Sequence[Mapping[str, Any]] = ()  # experiment, seed, and both rates with their intervals
    apart: Collection[str] = ()  # titles of runs that were scored against other real images than most of their size
    repeats: int = 0  # runs whose first steps are another's, to the last bit
    answers: Sequence[Answer] = ()  # to the questions across runs

    @property
    def comparable(self) -> pd.DataFrame:
        """The snapshots without those of runs that stand apart."""
        return without_runs(self.snapshots, self.apart)
