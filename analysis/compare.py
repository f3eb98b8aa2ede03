"""Runs of one data set and profile, scored by one protocol, side by side: what the report shows, computed here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis.runs import Run
from analysis.stats import Association, Estimate

#: The columns of compare.csv, in order; what follows them tells what they mean more closely.
COLUMNS = (
    "experiment,seed,data,profile,image_size,batch_size,steps,status,extractor,n_fake,n_real,isc_mean,isc_std,"
    "fid,fid_floor,fid_at_64,kid_mean,kid_std,precision,recall,face_rate,interleaving_ratio,interleaving_ratio_low,"
    "interleaving_ratio_high,lead_balance,dominance,equilibrium_gap,d_win_share,images_per_s,data_wait_fraction,"
    "gpu_hours,cost,fid_at_floor_n,floor_n,face_rate_low,face_rate_high,face_rate_real,interleaving_ratio_5,"
    "interleaving_ratio_20,lead_balance_5,lead_balance_20,equilibrium_ratio,best_step,best_fid,last_fid"
).split(",")


@dataclass(frozen=True)
class Answer:
    """One question and what the numbers say to it, in plain sentences; '' where a part has nothing to say."""

    question: str
    answer: str  # the verdict first: "Better: ...", "Can't tell: ..."
    evidence: Sequence[str] = ()  # the numbers with n and intervals, a sentence each


@dataclass(frozen=True)
class Alternative:
    """An experiment as it stands in one comparison: how it differs from its parent and what came of it."""

    name: str  # the slug
    parent: str | None  # the slug it is compared with; None: a root
    changes: Mapping[str, tuple[Any, Any]]  # dotted key -> (the parent's value, its own)
    seeds: Sequence[int]  # that finished
    measures: Mapping[str, Estimate]  # a column of compare.csv -> mean over seeds
    differences: Mapping[str, Estimate]  # a column -> this minus parent, paired by seed; empty for a root
    answer: Answer


@dataclass(frozen=True)
class Comparison:
    """Everything that one report shows. The frames are tidy and sorted by experiment (in display order), seed, step."""

    data: str  # "faces128-0feed4f5", the report's folder
    profile: str
    protocol: Mapping[str, str]  # for people, key -> text: extractor, generated images, reference, seed, BatchNorm ...
    runs: Sequence[Run]  # every run there is, the unfinished ones too; an ancestor before its heirs
    alternatives: Sequence[Alternative]  # in display order; this order gives an experiment its colour
    table: pd.DataFrame  # COLUMNS, a row a run
    snapshots: pd.DataFrame  # experiment, seed, image_size, step, fid, kid_mean, kid_std, isc_mean, interleaving_ratio
    #: ... the last one over the steps since the snapshot before; NaN where it can't be said
    windows: pd.DataFrame  # experiment, seed, step, interleaving_ratio, lead_balance: each window by itself
    answers: Sequence[Answer]  # to the questions across runs
    associations: Mapping[str, Association]  # "interleaving_ratio -> kid_mean here" -> ...
    alarms: Sequence[str]  # runs whose last snapshot is much worse than their best
    notes: Sequence[str]  # what is named and not hidden: unfinished, diverged, refused, unreadable
    ratings: Sequence[Mapping[str, Any]] = ()  # experiment, seed, and both rates with their intervals, see rating.py
