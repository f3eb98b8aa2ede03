"""The answers of a comparison: what they claim, and when they say that they can't tell."""

import itertools
import math
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from support.made_runs import alternative, answer_to, begin_as, compared, make_run, measures_of, row, scored_run, scores

from analysis.compare import answers, writeup
from analysis.runs.folders import read_folders


def test_a_slow_d_is_compared_over_long_runs_of_one_recipe_each_seed_once(tmp_path):
    found = {}

    def run(name, seed, kid, overrides=()):
        scored_run(tmp_path, found, name, seed, along=[kid + seed / 10] * 6, steps=1200, overrides=overrides)

    for seed in (10, 11, 12):
        run("baseline_long", seed, 100, ["snapshots=18"])
        run("slow_d_long", seed, 130)
    run("baseline_long", 10, 100)
    run("slow_d_long", 10, 130, ["snapshots=18"])
    run("slow_d_long", 11, 900, ["images=200"])
    answer = answer_to(compared(tmp_path, found), "slower")
    assert answer.sentence == (
        "Worse. After 1,200 steps KID over the last three snapshots is 1.30 [1.29, 1.30] times baseline's (n = 3 seeds "
        "each). Within the two recipes the SD of the log KID is 0.00. The plan's power counted on 0.053."
    )
    assert len(answer.evidence) == 6
    assert not answer.primary, "without the plan's arms and profile"
    three = [{seed: math.log(kid + seed / 1000) for seed in (10, 11, 12)} for kid in (1.3, 1.0)]
    kinds = [answers.slower_or_worse(*three, steps=15_000, planned=planned).kind for planned in (True, False)]
    assert kinds == ["by the plan", "exploratory, by the plan's rule"]
    noisy = [{seed: math.log(kid + seed / 5) for seed in (10, 11, 12)} for kid in (-1.9, -1.9)]
    found = answers.slower_or_worse(*noisy, steps=15_000, planned=True)
    assert found.more.endswith("so only a large difference could settle it.")


def test_the_write_ups_change_of_ds_rate_is_told_at_equal_steps_and_at_the_end(tmp_path):
    found = {}
    for seed in (10, 11):
        for name, steps, early, late, gap in (
            ("d_rate_quarter", 1200, 300, 300, 2.0), ("d_rate_double", 1200, 100, 100, 0.5),
            ("d_rate_fourfold", 1200, 100, 100, 0.6), ("baseline_long", 3600, 100, 100, 0.3),
            ("slow_d_long", 3600, 130, 90, 0.0),
        ):  # fmt: skip
            snapshots = steps // 200
            options = {"steps": steps, "gap": gap, "profile": "laptop", "overrides": [f"snapshots={snapshots}"]}
            along = [(early if place < 6 else late) + seed / 100 for place in range(snapshots)]
            scored_run(tmp_path, found, name, seed, along=along, fid=late, **options)
    comparison = compared(tmp_path, found)
    curves, answer = writeup.slowing_d(comparison.table, comparison.alternatives, comparison.arms)
    assert curves in comparison.answers
    assert answer in comparison.answers
    assert re.match(
        r"At step 1,200 they seem worse: KID is 1\.30 \[.*\] times baseline's \(p = [\d.e-]+, not corrected\)\. ",
        answer.text,
    )
    assert re.search(r" At step 3,600 they seem better: 0\.90 \[.*\] times\. .* \(n = 2 seeds each\)\.", answer.text)
    assert re.search(r"Pooled over the two, the first comparison is 1\.30 \[.*\] \(p = [\d.e-]+, not c", answer.more)
    assert re.match(
        r"Over the last quarter of 3,600 steps D's loss is below 0\.1 in 0 % of baseline's steps, and in 0 % with a "
        r"slow D \(n = 2 seeds each\)\. Over steps 901 to 1,200 the curves of a slow D interleave more \(.*\), "
        r"(but|also) .*\. Over the last quarter of 3,600 steps the ratio is \d\.\d\d against \d\.\d\d\.",
        curves.text,
    )
    one = comparison.table[comparison.table["seed"] == 10]
    _, of_one_seed = writeup.slowing_d(one, comparison.alternatives, comparison.arms)
    assert "At step 3,600 we can't tell: 0.90 times." in of_one_seed.text, "and no interval"
    of_seed_10 = tmp_path / "seed 10"
    for folder in tmp_path.glob("*/laptop/*/seed-10"):
        shutil.copytree(folder, of_seed_10 / folder.relative_to(tmp_path))
    only = compared(of_seed_10, found)
    _, answer = writeup.slowing_d(only.table, only.alternatives, only.arms)
    assert "KID is 1.30 times baseline's (one seed has no p)" in answer.text
    short = comparison.table[comparison.table["steps"] == 1200]
    assert writeup.slowing_d(short, comparison.alternatives, comparison.arms) == []


def test_runs_beside_the_study_are_told_in_a_sentence_where_both_recipes_are_there(tmp_path):
    found = {}
    scored_run(tmp_path, found, "baseline", along=[50] * 6, steps=1200, gap=1.0)
    assert writeup.slowed_beside(compared(tmp_path, found)) == ""
    scored_run(tmp_path, found, "slow_d_only", along=[40] * 6, steps=1200, gap=0.0)
    assert re.fullmatch(
        r"with profile `smoke` and 1,200 steps the slow D's KID is 0\.\d{3} and baseline's 0\.\d{3}; the interleaving "
        r"ratio over all steps is (0\.9\d|1\.\d\d) against 0\.\d\d \(n = 1 seed each\)\. One seed can't settle it\.",
        writeup.slowed_beside(compared(tmp_path, found)),
    )
    for name, images, fid in (("baseline", 60, 70), ("baseline", 50, 90), ("slow_d_only", 60, 80)):
        scored_run(tmp_path / "few", found, name, along=[fid] * 6, steps=1200, overrides=[f"images={images}"])
    told = writeup.slowed_beside(compared(tmp_path / "few", found))
    assert "the slow D's KID is 0.080 and baseline's 0.070;" in told, "on as many images"


def test_with_its_initialisation_the_write_ups_change_is_told_beside_it_with_the_number_of_seeds(tmp_path):
    found = {}
    for name, kid, gap in (("regularized", 100, 0.8), ("tuned_lr", 120, 0.0)):
        scored_run(tmp_path, found, name, along=[kid] * 6, steps=1200, gap=gap)
    text = writeup._as_written(compared(tmp_path, found).table)
    assert "(`tuned_lr` and `regularized`, n = 1 and 1), they interleave more (" in text
    assert text.endswith("KID is 1.20 times that of `regularized`. One seed can't rank the two.")


def test_one_recipe_under_two_names_is_one_recipe_at_equal_steps(tmp_path):
    found = {}
    for name, seed, length in (("baseline", 0, 1), ("baseline", 1, 2), ("d_rate_double", 0, 1), ("tuned_lr", 0, 1)):
        overrides = [] if length == 1 else [f"duration_multiplier={length}"]
        along = [100 + len(found) - 5 * i for i in range(6 * length)]
        options = {"steps": 1200 * length, "gap": 0.2 * len(name), "overrides": overrides}
        scored_run(tmp_path, found, name, seed, along=along, **options)
    claims = compared(tmp_path, found).associations
    between = claims["interleaving_ratio", "here", "recipes"]
    assert between.clusters == 3
    seeds = claims["interleaving_ratio", "here", "seeds"]
    assert seeds.clusters == 2, "the two lengths of baseline are seeds of one recipe"


@pytest.mark.parametrize("seeds", [(10,), (10, 11), (10, 11, 13)])
def test_a_part_of_the_plans_seeds_has_no_verdict_by_the_plan(seeds):
    def logs(kid):
        return {seed: math.log(kid + 0.01 * place) for place, seed in enumerate(seeds)}

    answer = answers.slower_or_worse(logs(1.3), logs(1.0), steps=15_000, planned=True)
    assert (answer.verdict == "open") == (len(seeds) < 3)
    assert answer.kind == "exploratory, by the plan's rule"
    assert "After 15,000 steps KID over the last three snapshots is 1.30" in answer.text
    assert ("The plan asks for 3 seeds of each" in answer.text) == (len(seeds) < 3)
    one = answers.slower_or_worse(logs(1.3), {}, steps=15_000, planned=True)
    assert one.verdict == "open"


def test_no_claim_about_interleaving_from_few_recipes_however_many_their_seeds(tmp_path):
    found = {}
    for seed in range(8):
        for name, gap in (("baseline", 0.0), ("regularized", 0.4)):
            along = [100 + 100 * gap - 5 * i for i in range(6)]
            scored_run(tmp_path, found, name, seed, along=along, gap=gap, steps=1200)
    answer = compared(tmp_path, found).answers[0]
    assert answer.question == "Does interleaving predict quality?"
    assert answer.sentence == (
        "Can't tell. An answer needs at least three recipes with three scored snapshots at their end; there are 2."
    )
    assert not answer.primary


def test_what_recipes_of_one_initialisation_say_is_reported_beside_what_all_say(tmp_path):
    """Interleaving goes with the initialisation here, and quality with it; within one initialisation it is reversed."""
    found = {}
    for i in range(8):
        init, gap = ("normal", 0.6) if i % 2 else ("pytorch", 0.0)
        overrides = [f"weight_init.kind={init}", f"discriminator.learning_rate={i + 1}e-5"]
        along = [(100 if i % 2 else 200) + 10 * (i // 2) - 5 * n for n in range(6)]
        options = {"gap": gap + 0.1 * (i // 2), "steps": 1200, "overrides": overrides}
        scored_run(tmp_path, found, "baseline", along=along, **options)
    claims = compared(tmp_path, found).associations
    rho = {among: claims["interleaving_ratio", "here", among].rho for among in ("recipes", "same_init")}
    assert rho["recipes"] > 0.4
    assert rho["same_init"] < -0.8


def test_a_recipe_that_starts_late_is_no_evidence_of_what_changes_go_with(tmp_path):
    """All interleave and improve on the same course, half of them later: between recipes that correlates, as levels and
    as changes. Between seeds of one recipe nothing is left of it."""
    found = {}
    course = [300, 250, 200, 150, 100, 90, 80, 70]
    for i, (rate, seed) in enumerate(itertools.product(range(1, 5), (0, 1))):
        late = 3 * (rate % 2)
        overrides = ["snapshots=8", f"discriminator.learning_rate={rate}e-5"]
        noise = np.random.default_rng(i).normal(0, 2, 8)
        along = [course[max(n - late, 0)] + noise[n] for n in range(8)]
        folder = scored_run(tmp_path, found, "baseline", seed, along=along, steps=1600, overrides=overrides)
        with measures_of(folder) as measures:
            measures[:, 3] *= np.exp(np.repeat(np.maximum(np.arange(8) - late, 0) * 0.2, 200))
    claims = compared(tmp_path, found).associations
    levels, changes = (claims["interleaving_ratio", "here", among] for among in ("recipes", "changes"))
    assert levels.rho > 0.5
    assert changes.reason


def courses(runs):
    """The snapshots of runs, each with its FIDs, ratios and KIDs."""
    return pd.concat(
        pd.DataFrame(
            {
                "experiment": "a",
                "seed": seed,
                "step": range(1, 8),
                "fid": fid,
                "interleaving_ratio": ratio,
                "kid_mean": kid,
                "fid_unseen": np.nan,
            }
        )
        for seed, (fid, ratio, kid) in enumerate(runs)
    )


FALLS, TURNS = [100, 80, 60, 50, 50, 50, 50], [100, 50, 50, 50, 80, 90, 95]
FIRST, LAST, ALWAYS = [1, 0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1, 0], [0] * 7
LEARNT, UNLEARNT = [0.1] * 7, [0.5] * 7


@pytest.mark.parametrize(
    ("runs", "sentence"),
    [
        (
            [(FALLS, FIRST, LEARNT)] * 6,
            "No. Most runs without a turn have a false alarm: FID turned in none of 6 runs (the largest rise is 0 %)",
        ),
        (
            [(TURNS, FIRST, LEARNT)] * 6,
            "Can't tell. FID turned in 6 of 6 runs, and interleaving had collapsed before in 6 of these [61 to 100 %",
        ),
        (
            [(TURNS, FIRST, UNLEARNT)] * 6,
            "Can't tell. FID turned in 6 of 6 runs, and interleaving had collapsed before in 0 of these [0 to 39 %, "
            "Wilson]. In 6 more it collapsed only while KID was above 0.3",
        ),
        (
            [(TURNS, LAST, LEARNT)] * 6,
            "Can't tell. FID turned in 6 of 6 runs, and interleaving had collapsed before in 0 of these [0 to 39 %",
        ),
        (
            [(FALLS, ALWAYS, LEARNT)] * 6,
            "Can't tell. FID turned in none of 6 runs (the largest rise is 0 %), so there was nothing to warn of.",
        ),
        (
            [(TURNS, FIRST, LEARNT)] * 6 + [(FALLS, ALWAYS, LEARNT)] * 6,
            "Yes. A collapse comes before a turn more often than elsewhere: FID turned in 6 of 12 runs, and",
        ),
        (  # the plan's rule comes first: 100 % [94, 100] lies above 68 % [55, 79]
            [(TURNS, FIRST, LEARNT)] * 60 + [(FALLS, FIRST, LEARNT)] * 41 + [(FALLS, ALWAYS, LEARNT)] * 19,
            "Yes. A collapse comes before a turn more often than elsewhere: FID turned in 60 of 120 runs",
        ),
        (
            [(TURNS, ALWAYS, LEARNT)] * 9 + [(FALLS, FIRST, LEARNT)] * 5 + [(FALLS, ALWAYS, LEARNT)] * 2,
            "No. A collapse is rarer before a turn than elsewhere: FID turned in 9 of 16 runs",
        ),
        (  # without a ratio the turn counts all the same
            [(TURNS, [0.9, 0.8, *[np.nan] * 5], LEARNT)],
            "Can't tell. FID turned in 1 of 1 runs, and interleaving had collapsed before in 0 of these [0 to 79 %",
        ),
        (  # one bad snapshot is no turn, however bad
            [([100, 80, 60, 50, 50, 50, 80], ALWAYS, LEARNT)],
            "Can't tell. FID turned in none of 1 runs (the largest rise is 17 %), so there was nothing to warn of. "
            "Interleaving collapsed in 0 of the 1 runs without a turn",
        ),
    ],
)
def test_a_collapse_is_an_alarm_if_fid_turns_after_it_and_rarely_without_it(runs, sentence):
    answer = answers.alarm(courses(runs))
    assert answer.question.startswith("Does interleaving collapse before FID turns")
    assert answer.sentence.startswith(sentence)


def test_a_face_rate_carries_its_interval_and_its_name(tmp_path):
    make_run(tmp_path, "baseline")
    found = compared(tmp_path, {"baseline": scores(50.0, face_found=90, face_n=100, face_rate_real=0.99)})
    assert row(found, "baseline")["face_rate"] == 0.9
    assert row(found, "baseline")["face_rate_low"] == pytest.approx(0.8256, abs=1e-3)
    answer = answer_to(found, "normal")
    assert "a face is detected in 90.0 % [82.6, 94.5]" in answer.evidence[0]


@pytest.mark.parametrize(
    ("low", "sentence"),
    [
        (slice(0), "No. It is never below 0.1 (n = 1 run)."),
        (
            slice(1000),
            "No. It is below 0.1 in up to 50 % of a run's steps, but stays there in none of 1 runs. In a run's last "
            "quarter it is below 0.1 in at most 0 % (all recipes, 2,000 steps).",
        ),
        (
            slice(1500, 1980),
            "It depends. It is below 0.1 in up to 24 % of a run's steps, but stays there in none of 1 runs. In a run's "
            "last quarter it is below 0.1 in 96 % of the steps (baseline, n = 1, 2,000 steps).",
        ),
        (slice(990, 2000), "Yes. It stays below 0.1 in 1 of 1 runs: baseline seed 0."),
    ],
)
def test_whether_d_dives_is_asked_of_the_whole_run_and_whether_it_stays_of_the_end(tmp_path, low, sentence):
    dive(make_run(tmp_path, "baseline", steps=2000), low)
    answer = answer_to(compared(tmp_path), "dive")
    assert answer.sentence.startswith(sentence)


def dive(folder, low):
    """Put D's loss near 0 in some steps."""
    with measures_of(folder) as measures:
        measures[low, 0] = 0.001


def test_a_run_that_is_longer_than_the_others_is_asked_about_its_own_end(tmp_path):
    """D wins after the steps that the runs have in common, as in a run of twice the length of the others."""
    for name in ("baseline", "regularized"):
        make_run(tmp_path, name, steps=2000)
    dive(make_run(tmp_path, "tuned_lr", steps=4000), slice(2500, 4000))
    found = compared(tmp_path)
    longer = row(found, "tuned_lr")
    assert longer["d_win_share"] == 0, "at equal steps"
    assert (longer["d_win_share_whole"], longer["d_win_share_last"], longer["d_win_share_at_end"]) == (0.375, 1, 1)
    answer = answer_to(found, "dive")
    assert answer.sentence == (
        "It depends. It stays below 0.1 in 1 of 3 runs: tuned_lr seed 0. In 1 it is below 0.1 in more than half of the "
        "last quarter. In a run's last quarter it is below 0.1 in 100 % of the steps (tuned_lr, n = 1, 4,000 steps), "
        "at most 0 % (the others, 2,000 steps)."
    )
    said = "tuned_lr seed 0: below 0.1 in 37.5 % of its 4,000 steps, in 100.0 % of the last quarter, in 1,500 "
    assert any(line.startswith(said) for line in answer.evidence)


def test_a_trajectory_that_two_runs_share_is_counted_once(tmp_path):
    """tuned_lr at twice the length repeats its shorter run, and the alarm counts the trajectory once."""
    for name, steps in (("regularized", 1200), ("baseline", 1200), ("tuned_lr", 1200)):
        make_run(tmp_path, name, steps=steps)
    twin = make_run(tmp_path, "tuned_lr", steps=2400, overrides=["duration_multiplier=2"])
    first = read_folders(tmp_path)[0]
    short = next(run for run in first if run.name == "tuned_lr")
    begin_as(twin, short.folder)
    long = next(run for run in first if run.name.startswith("tuned_lr+"))
    found = compared(
        tmp_path,
        {run.title: scores(50.0, along=[60, 55, 50], at=[run.steps // 4, run.steps // 2, run.steps]) for run in first},
    )
    text = "its first 1,200 steps are those of tuned_lr seed 0, to the last bit"
    assert any(note.run == long.title and note.text.startswith(text) for note in found.notes)
    assert found.repeats == 1
    answer = found.experiment_answers[long.name]
    assert f"Its losses can't be compared with tuned_lr's: seed 0: {text}." in answer.text
    assert "interleaving_ratio" not in alternative(found, long.name).differences
    alarm = answer_to(found, "alarm")
    assert "FID turned in none of 3 runs" in alarm.text, "of four folders"
    dive = answer_to(found, "dive")
    assert "(n = 3 runs)" in dive.text


def test_an_alarm_says_how_many_runs_could_not_raise_it():
    """Two that never learnt or never interleaved; a third interleaves too late; two others could have."""
    too_late = [0, 0, 0, 0, 0, 0, 1]
    runs = [(FIRST, UNLEARNT), (ALWAYS, LEARNT), (too_late, LEARNT), (FIRST, LEARNT), (LAST, LEARNT)]
    answer = answers.alarm(courses([(FALLS, *run) for run in runs]))
    assert (
        "In 3 of the 5 runs no collapse could have counted: no snapshot with a KID below 0.3 comes after" in answer.text
    )


def test_runs_of_which_no_turn_or_no_ratio_is_known_are_not_counted_as_calm():
    known = courses([(FALLS, FIRST, LEARNT)])
    few = known[:2]
    no_ratio = courses([(FALLS, [math.nan] * 7, LEARNT)])
    rows = pd.concat([known, few.assign(experiment="few"), no_ratio.assign(experiment="no ratio")])
    assert "FID turned in none of 1 runs" in answers.alarm(rows.reset_index(drop=True)).text
    unknown = answers.alarm(few)
    assert unknown.text == "No run has 3 scored snapshots and an interleaving ratio between them."


def test_an_alarm_says_whether_fid_turns_against_images_that_the_runs_have_not_seen():
    snapshots = courses([(FALLS, FIRST, LEARNT), (FALLS, LAST, LEARNT)])
    snapshots["fid_unseen"] = [*FALLS, *(2 * fid for fid in TURNS)]
    answer = answers.alarm(snapshots, {"a seed 0", "a seed 1"}, steps=7)
    assert "FID turned in none of 2 runs" in answer.text
    assert (
        "against images that a run was not trained on, over all steps: FID turned in 1 of 2 runs (the largest rise is "
        "76 %), and is 1.00 to 3.80 times the FID against the training images."
    ) in answer.more


def test_runs_that_only_begin_alike_are_two(tmp_path):
    for overrides in ([], ["duration_multiplier=2"]):
        folder = make_run(tmp_path, "tuned_lr", steps=1200 * (1 + len(overrides)), overrides=overrides)
        with measures_of(folder) as measures:
            measures[:500] = 1
    assert not any("to the last bit" in note.text for note in compared(tmp_path).notes)


@pytest.mark.parametrize(
    ("wait", "text"),
    [
        (0.00528, "In these runs, waiting for input took at most 0.53 % of the time (n = 3)."),
        (0.3, "In these runs, waiting for input took at most 30 % of the time (n = 3)."),
    ],
)
def test_the_time_goes_into_input_or_not(wait, text):
    waits = [wait, 0.001, 0.002]
    table = pd.DataFrame({"experiment": "a", "seed": range(3), "images_per_s": 500.0, "data_wait_fraction": waits})
    assert answers.speed(table).text == f"The write-up's machines were not tested. {text}"
