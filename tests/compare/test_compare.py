"""The comparison of run folders: what is put side by side, what is refused, and what the sentences claim."""

import dataclasses
import itertools
import math
import re

import numpy as np
import pandas as pd
import pytest
from support.made_runs import DATA, alternative, compared, make_run, row, scores

from analysis.compare import answers
from analysis.compare.build import compare, groups
from analysis.compare.comparison import NEXT_COLUMNS, RUN_COLUMNS, SNAPSHOT_COLUMNS, Claim, Note
from analysis.compare.prediction import prediction
from analysis.measures.stats import Association
from analysis.runs.folders import read_folders
from analysis.score import Protocol


def test_the_table_has_a_row_a_run_and_the_documented_columns_in_order(tmp_path):
    for name in ("baseline", "tuned_lr", "regularized"):
        make_run(tmp_path, name)
    found = compared(tmp_path, {"tuned_lr": scores(50.0)}, cost_per_hour=2.0)
    documented = (
        "experiment,seed,data,profile,image_size,batch_size,steps,status,extractor,n_fake,n_real,isc_mean,isc_std,"
        "fid,fid_floor,fid_at_64,kid_mean,kid_std,precision,recall,face_rate,interleaving_ratio,"
        "interleaving_ratio_low,interleaving_ratio_high,lead_balance,dominance,equilibrium_gap,d_win_share,"
        "images_per_s,data_wait_fraction,gpu_hours,cost"
    )
    assert list(found.table)[:32] == documented.split(",")
    assert tuple(found.table) == RUN_COLUMNS
    assert list(found.table["experiment"]) == ["baseline", "regularized", "tuned_lr"], "an ancestor before its heirs"
    tuned = row(found, "tuned_lr")
    assert (tuned["fid"], tuned["fid_at_64"], tuned["n_fake"], tuned["extractor"]) == (50, 50, 200, "effnet_lite0")
    assert (tuned["gpu_hours"], tuned["cost"], tuned["data_wait_fraction"]) == (1, 2, 0.01)
    assert tuned["equilibrium_gap"] == pytest.approx(0.5)
    assert pd.isna(row(found, "baseline")["fid"])


@pytest.mark.parametrize(("device", "hours"), [("cuda", 4), ("cpu", 1)])
def test_four_gpus_cost_four_times_as_much_and_four_processes_of_one_machine_do_not(tmp_path, device, hours):
    make_run(tmp_path, "tuned_lr", device=device, processes=4)  # for an hour
    tuned = row(compared(tmp_path, cost_per_hour=2.0), "tuned_lr")
    assert (tuned["gpu_hours"], tuned["cost"]) == (hours, 2 * hours)


def test_interleaving_falls_with_the_gap_and_has_an_interval_that_holds_it(tmp_path):
    make_run(tmp_path, "baseline", gap=1.0, steps=2000)
    make_run(tmp_path, "tuned_lr", gap=0.0, steps=2000)
    found = compared(tmp_path)
    far, near = row(found, "baseline"), row(found, "tuned_lr")
    assert far["interleaving_ratio"] < 0.1 < 0.9 < near["interleaving_ratio"]
    assert near["interleaving_ratio_low"] <= near["interleaving_ratio"] <= near["interleaving_ratio_high"]
    assert near["interleaving_ratio_5"] == pytest.approx(near["interleaving_ratio"], abs=0.15)
    assert len(found.windows) == 2 * 20
    assert set(found.windows["step"]) == set(range(100, 2001, 100))


def test_runs_of_another_batch_size_or_of_fewer_steps_are_refused_with_the_reason(tmp_path):
    for seed in (0, 1):
        make_run(tmp_path, "baseline", seed)
    make_run(tmp_path, "tuned_lr", overrides=["batch_size=32"])
    make_run(tmp_path, "regularized", steps=300)
    longer = make_run(tmp_path, "hires_128", steps=800, lowest=0.01)
    found = compared(tmp_path)
    (other,) = [each for each in found.table["experiment"] if each.startswith("tuned_lr+")]
    assert pd.isna(row(found, other)["interleaving_ratio"])
    assert pd.isna(row(found, "regularized")["interleaving_ratio"])
    assert any("its batch size is 32, that of the others 128" in str(note) for note in found.notes)
    assert any("it has 300 steps, the others 400" in str(note) for note in found.notes)
    # A longer run is compared over as many steps as the others have: D wins in all of those, in half of its own.
    assert len(longer.read_history()) == 800
    assert row(found, "hires_128")["d_win_share"] == 1


def test_unfinished_and_diverged_runs_are_named_and_not_hidden(tmp_path):
    make_run(tmp_path, "baseline")
    make_run(tmp_path, "tuned_lr", state="interrupted")
    make_run(tmp_path, "regularized", state="diverged")
    make_run(tmp_path, "hires_128", state="failed")
    found = compared(tmp_path)
    assert len(found.table) == 4
    assert any(str(note).startswith("tuned_lr seed 0: interrupted at step 200 of 400") for note in found.notes)
    assert any(
        "regularized seed 0: diverged: a loss was no longer finite at step 200" in str(note) for note in found.notes
    )
    assert any(str(note).startswith("hires_128 seed 0: failed at step 200") for note in found.notes)
    assert alternative(found, "regularized").seeds == []
    assert found.experiment_answers["regularized"].sentence.startswith("Can't tell")


def test_one_run_alone_is_compared_with_nothing(tmp_path):
    make_run(tmp_path, "tuned_lr")
    found = compared(tmp_path, {"tuned_lr": scores(50.0, along=[60, 50])})
    assert len(found.table) == 1
    assert "No seed has a known FID both here and in regularized" in found.experiment_answers["tuned_lr"].sentence
    assert alternative(found, "tuned_lr").changes["discriminator.learning_rate"] == (2e-4, 1e-4)
    assert "weight_init.kind" not in alternative(found, "tuned_lr").changes


def test_one_seed_is_said_to_be_one_seed_and_claims_nothing(tmp_path):
    make_run(tmp_path, "regularized")
    make_run(tmp_path, "tuned_lr")
    found = compared(tmp_path, {"regularized": scores(80.0), "tuned_lr": scores(20.0)})
    answer = found.experiment_answers["tuned_lr"]
    assert answer.sentence.startswith("Can't tell: With one seed, FID is 60 lower than regularized's.")
    assert any("one seed" in line for line in answer.evidence)


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [([-10, -11, -12], "better"), ([10, 11, 12], "worse"), ([-10, 0, 11], "open")],
)
def test_a_difference_is_paired_by_seed_and_claimed_when_its_interval_leaves_out_0(tmp_path, changes, verdict):
    found = {}
    for seed, change in enumerate(changes):
        make_run(tmp_path, "regularized", seed)
        make_run(tmp_path, "tuned_lr", seed)
        found[f"regularized seed {seed}"] = scores(100.0 + 30 * seed)  # seeds differ more than the experiments do
        found[f"tuned_lr seed {seed}"] = scores(100.0 + 30 * seed + change)
    comparison = compared(tmp_path, found)
    tuned = alternative(comparison, "tuned_lr")
    assert comparison.experiment_answers["tuned_lr"].verdict == verdict
    assert tuned.differences["fid"].mean == pytest.approx(np.mean(changes))
    assert (tuned.differences["fid"].n, tuned.measures["fid"].n) == (3, 3)


def test_quality_at_two_image_sizes_is_compared_at_64_px_alone(tmp_path):
    make_run(tmp_path, "tuned_lr")
    make_run(tmp_path, "hires_128")
    found = compared(tmp_path, {"tuned_lr": scores(50.0), "hires_128": scores(90.0, fid_at_64=70.0)})
    hires = alternative(found, "hires_128")
    assert "fid" not in hires.differences
    assert hires.differences["fid_at_64"].mean == 20
    assert "FID at 64 px is 20 higher" in found.experiment_answers["hires_128"].text


def test_the_last_snapshot_much_worse_than_the_best_is_an_alarm(tmp_path):
    make_run(tmp_path, "baseline")
    make_run(tmp_path, "tuned_lr")
    found = compared(tmp_path, {"baseline": scores(90.0, along=[50, 90]), "tuned_lr": scores(48.0, along=[50, 48])})
    (alarm,) = found.alarms
    assert alarm.run == "baseline seed 0"
    assert "FID 90.0 against 50.0 at step 200" in alarm.text
    assert (row(found, "baseline")["best_step"], row(found, "baseline")["last_fid"]) == (200, 90)


def test_a_snapshot_has_the_interleaving_of_the_steps_since_the_one_before(tmp_path):
    folder = make_run(tmp_path, "baseline")
    history = folder.read_history()
    history.loc[:199, "loss_g"] = history.loc[:199, "loss_d"] * 9  # apart, then together
    folder.append_history(1, history.iloc[:, 1:].to_numpy(dtype=np.float32))
    found = compared(tmp_path, {"baseline": scores(48.0, along=[50, 48])})
    assert tuple(found.snapshots) == (*SNAPSHOT_COLUMNS, *NEXT_COLUMNS.values())
    first, second = found.snapshots["interleaving_ratio"]
    assert math.isnan(first) or first == 0
    assert second > 0.8


def test_no_claim_about_interleaving_from_few_runs_and_a_claim_from_many(tmp_path):
    few = {}
    for seed in range(2):
        make_run(tmp_path / "few", "baseline", seed, gap=0.5 * seed, steps=1200)
        few[f"baseline seed {seed}"] = scores(50.0, along=[100 + 10 * seed - 5 * i for i in range(6)])
    question = compared(tmp_path / "few", few).answers[0]
    assert question.question == "Does interleaving predict quality?"
    assert question.sentence.startswith("Can't tell: Between recipes, too few points.")
    assert "etween seeds of one recipe" in question.sentence
    assert "1 independent comparison (2 runs), and at least 5 are needed" in question.sentence

    many = {}
    for seed in range(8):
        gap = 0.2 * seed
        make_run(tmp_path / "many", "baseline", seed, gap=gap, steps=1200)
        many[f"baseline seed {seed}"] = scores(50.0, along=[100 + 10 * gap - 5 * i for i in range(6)])
    question = compared(tmp_path / "many", many).answers[0]
    assert question.sentence.startswith("Can't tell: Between recipes, too few points."), "the claim is about recipes"
    assert re.search(r"between seeds of one recipe: better faces \(-0\.\d\d \[", question.sentence)


def association(rho, *, low=None, high=None, comparisons=9):
    low, high = (rho - 0.1 if low is None else low), (rho + 0.1 if high is None else high)
    return Association(rho, low, high, comparisons + 1, 50, comparisons, "recipe")


@pytest.mark.parametrize(
    ("recipes", "same_init", "verdict", "told"),
    [
        (
            association(-0.5),
            association(-0.4),
            "yes",
            "Yes: Between recipes, at equal steps, more int",
        ),
        (association(0.5), association(0.4), "reversed", "The other way round: Between recipes, at equal steps, more"),
        (association(0.5), association(-0.4), "depends", "It depends: Between recipes"),
        (association(0.5), association(-0.4, comparisons=4), "reversed", "The other way round: Between recipes"),
        (
            association(0.2, low=-0.1, high=0.5),
            association(-0.4),
            "open",
            "Can't tell: Between recipes, the interv",
        ),
        (
            association(0.5, comparisons=4),
            association(-0.4),
            "open",
            "Can't tell: Between recipes, 4 indepen",
        ),
    ],
)
def test_the_verdict_is_that_between_recipes_unless_their_initialisation_says_the_opposite(
    recipes, same_init, verdict, told
):
    x, y, when = "interleaving_ratio", "kid_mean", "next"
    found = prediction(x, y, when, {Claim(x, y, when, "recipes"): recipes, Claim(x, y, when, "same_init"): same_init})
    assert found.verdict == verdict
    assert found.sentence.startswith(told)
    assert "etween recipes of one initialisation: " in found.more


def test_what_recipes_of_one_initialisation_say_is_told_apart_from_what_all_say(tmp_path):
    """Interleaving goes with the initialisation here, and quality with it; within one initialisation it is reversed."""
    found = {}
    for i in range(8):
        init, gap = ("normal", 0.6) if i % 2 else ("pytorch", 0.0)
        overrides = [f"weight_init.kind={init}", f"discriminator.learning_rate={i + 1}e-5"]
        folder = make_run(tmp_path, "baseline", gap=gap + 0.1 * (i // 2), steps=1200, overrides=overrides)
        name = read_folders(folder.path)[0][0].name
        found[name] = scores(50.0, along=[(100 if i % 2 else 200) + 10 * (i // 2) - 5 * n for n in range(6)])
    claims = compared(tmp_path, found).associations
    rho = {among: claims["interleaving_ratio", "kid_mean", "here", among].rho for among in ("recipes", "same_init")}
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
        folder = make_run(tmp_path, "baseline", seed, steps=1600, overrides=overrides)
        history = pd.read_csv(folder.history)
        history["loss_g"] *= np.exp(np.repeat(np.maximum(np.arange(8) - late, 0) * 0.2, 200))
        history.to_csv(folder.history, index=False)
        noise = np.random.default_rng(i).normal(0, 2, 8)
        title = read_folders(folder.path)[0][0].title
        found[title] = scores(50.0, along=[course[max(n - late, 0)] + noise[n] for n in range(8)])
    claims = compared(tmp_path, found).associations
    levels, changes = (claims["interleaving_ratio", "kid_mean", "here", among] for among in ("recipes", "changes"))
    assert levels.rho > 0.5
    assert not changes.settled


@pytest.mark.parametrize(
    ("fid", "gaps", "told"),
    [
        (
            {6: [100, 80, 60, 50]},
            {6: [0, 0, 2, 2]},
            "No: Most runs without a turn have a false alarm: FID turned in 0 of 6 runs; of the 6",
        ),
        ({6: [100, 50, 80, 90]}, {6: [0, 2, 2, 2]}, "Can't tell: FID turned in 6 of 6 runs, in 6 after a collapse."),
        ({6: [100, 50, 80, 90]}, {6: [0, 0, 0, 2]}, "Can't tell: FID turned in 6 of 6 runs, in 0 after a collapse."),
        (
            {6: [100, 80, 60, 50]},
            {6: [2, 2, 2, 2]},
            "Can't tell: FID turned in 0 of 6 runs; of the 6 in which it",
        ),
        (
            {6: [100, 50, 80, 90], 12: [100, 80, 60, 50]},
            {6: [0, 2, 2, 2], 12: [2, 2, 2, 2]},
            "Yes: It comes before most turns and rarely otherwise: FID turned in 6 of 12 runs, in 6 after a collapse;",
        ),
    ],
)
def test_a_collapse_is_an_alarm_if_fid_turns_after_it_and_rarely_without_it(tmp_path, fid, gaps, told):
    found = {}
    for seed in range(max(fid)):
        until = min(limit for limit in fid if seed < limit)
        folder = make_run(tmp_path, "baseline", seed, steps=800, overrides=["snapshots=4"])
        history = pd.read_csv(folder.history)
        history["loss_g"] *= np.exp(np.repeat(gaps[until], 200))
        history.to_csv(folder.history, index=False)
        found[read_folders(folder.path)[0][0].title] = scores(fid[until][-1], along=fid[until])
    answer = compared(tmp_path, found).answers[2]
    assert answer.question.startswith("Does interleaving collapse before FID turns")
    assert answer.sentence.startswith(told)


def test_a_turn_counts_where_the_curves_say_nothing_and_one_run_is_counted_as_one(tmp_path):
    snapshots = pd.DataFrame({"experiment": "a", "seed": 0, "step": [1, 2, 3, 4], "fid": [100, 50, 80, 200.0]})
    answer = answers.alarm(snapshots.assign(interleaving_ratio=[0.9, 0.8, np.nan, np.nan]), key="alarm")
    assert answer.sentence == "Can't tell: FID turned in 1 of 1 runs, in 0 after a collapse."


def test_a_follow_up_at_128_px_says_how_much_of_the_gap_to_64_px_it_closes(tmp_path):
    found = {}
    for name, at_64 in (("tuned_lr", 60), ("hires_128", 100), ("hires_128_equal_lr", 70)):
        for seed in (0, 1, 2):
            make_run(tmp_path, name, seed)
            fid = at_64 if name == "tuned_lr" else 2.0 * at_64 + 0.1 * seed
            found[f"{name} seed {seed}"] = scores(fid, fid_at_64=at_64)
    answer = next(each for each in compared(tmp_path, found).answers if each.key == "size")
    assert answer.sentence == "Better: FID is lower than hires_128's in hires_128_equal_lr."
    assert any("At 64 px it closes the gap to tuned_lr by 75 %." in told for told in answer.evidence)


HIGHER = ", but at 128 px its FID is 30 higher than hires_128's"


@pytest.mark.parametrize(("own_size", "but"), [(80, ""), (130, HIGHER)])
def test_of_follow_ups_with_one_seed_the_one_that_closes_most_of_the_gap_is_named(tmp_path, own_size, but):
    at_64 = {"tuned_lr": 60, "hires_128": 100, "hires_128_equal_lr": 110, "hires_128_longer": 80}
    for name in at_64:
        make_run(tmp_path, name)
    found = {f"{name} seed 0": scores(fid, fid_at_64=fid) for name, fid in at_64.items()}
    found["hires_128_longer seed 0"] = scores(own_size, fid_at_64=80)
    # A seed of the parents alone moves no follow-up: what is compared has one seed.
    for name, fid in (("tuned_lr", 10), ("hires_128", 50)):
        make_run(tmp_path, name, 1)
        found[f"{name} seed 1"] = scores(fid, fid_at_64=fid)
    answer = next(each for each in compared(tmp_path, found).answers if each.key == "size")
    assert answer.sentence == (
        "Can't tell: No follow-up is clearly better. At 64 px hires_128_longer closes the gap to tuned_lr by 50 %, "
        f"the most (n = 1){but}."
    )
    assert any("At 64 px it widens the gap to tuned_lr by 25 %." in told for told in answer.evidence)


def test_without_ratings_the_report_says_that_there_are_none(tmp_path):
    make_run(tmp_path, "baseline")
    answer = next(each for each in compared(tmp_path).answers if "look normal" in each.question)
    assert answer.sentence == "Nobody has rated any yet. `make rate EXP=...` asks you."


def test_a_face_rate_carries_its_interval_and_its_name(tmp_path):
    make_run(tmp_path, "baseline")
    found = compared(tmp_path, {"baseline": scores(50.0, face_found=90, face_n=100, face_rate_real=0.99)})
    assert row(found, "baseline")["face_rate"] == 0.9
    assert row(found, "baseline")["face_rate_low"] == pytest.approx(0.8256, abs=1e-3)
    answer = next(each for each in found.answers if "look normal" in each.question)
    assert "detectable as a face, which is not the same: 90.0 % [82.6, 94.5] (Wilson)" in answer.evidence[0]


def test_data_sets_and_profiles_are_grouped_apart(tmp_path):
    make_run(tmp_path, "baseline")
    make_run(tmp_path, "baseline", profile="laptop", overrides=["snapshots=2"])
    runs, _ = read_folders(tmp_path)
    other = dataclasses.replace(runs[0], record={**runs[0].record, "data": {**DATA, "fingerprint": "f" * 32}})
    assert list(groups([*runs, other])) == [
        ("faces-01234567", "laptop"),
        ("faces-01234567", "smoke"),
        ("faces-ffffffff", "laptop"),
    ]


def test_a_damaged_history_costs_its_run_the_losses_and_is_told(tmp_path):
    make_run(tmp_path, "baseline")
    broken = make_run(tmp_path, "tuned_lr")
    lines = broken.history.read_text().splitlines(keepends=True)
    broken.history.write_text("".join([*lines[:100], *lines[101:], lines[-1]]))
    found = compared(tmp_path)
    assert any("no row for step 100" in str(note) for note in found.notes)
    assert pd.isna(row(found, "tuned_lr")["interleaving_ratio"])


def test_losses_that_are_none_cost_their_run_the_interleaving_and_are_told(tmp_path):
    make_run(tmp_path, "baseline")
    broken = make_run(tmp_path, "tuned_lr")
    measures = broken.read_history().iloc[:, 1:].to_numpy(dtype=np.float32)
    measures[7, 0] = -1
    broken.append_history(1, measures)
    found = compared(tmp_path)
    assert any(str(note).startswith("tuned_lr seed 0: a cross-entropy is never negative") for note in found.notes)
    assert row(found, "baseline")["interleaving_ratio"] > 0.5


def test_a_run_too_short_for_a_window_has_no_ratio_and_it_is_said(tmp_path):
    make_run(tmp_path, "baseline", steps=60)
    found = compared(tmp_path)
    assert pd.isna(row(found, "baseline")["interleaving_ratio"])
    assert any("baseline seed 0: no interleaving ratio: no window of 100 steps" in str(note) for note in found.notes)


def test_seeds_trained_by_an_edited_recipe_do_not_pass_for_seeds_of_one(tmp_path):
    for seed in range(3):
        folder = make_run(tmp_path, "baseline", seed)
        if seed == 1:
            folder.config.write_text(
                folder.config.read_text().replace("learning_rate: 0.0002", "learning_rate: 0.05", 1)
            )
    found = compared(tmp_path, {f"baseline seed {seed}": scores(10.0 + 100 * (seed == 1)) for seed in range(3)})
    assert alternative(found, "baseline").measures["fid"].mean == 10
    (note,) = [note for note in found.notes if str(note).startswith("baseline seed 1: left out")]
    assert "generator.learning_rate 0.05 instead of 0.0002" in note.text


def test_scores_against_other_real_images_are_not_held_against_each_other(tmp_path):
    make_run(tmp_path, "baseline")
    make_run(tmp_path, "regularized")
    make_run(tmp_path, "baseline", overrides=["images=200"], data={**DATA, "count": 200})
    found = compared(tmp_path, {run: scores(50.0, along=[60, 50]) for run in ("baseline", "regularized")})
    (fewer,) = [each for each in found.alternatives if each.name.startswith("baseline+")]
    assert fewer.quality is None
    assert "fid" not in fewer.differences
    assert "baseline, was trained on other images" in found.experiment_answers[fewer.name].text
    assert any(str(note).startswith(f"{fewer.name} seed 0: scored against other real images") for note in found.notes)
    assert fewer.name not in set(found.snapshots["experiment"])


def test_too_few_real_images_for_a_floor_are_told(tmp_path):
    make_run(tmp_path, "baseline")
    scored = scores(50.0, along=[60, 50], n_real=150)
    del scored.final["fid_floor"]
    found = compared(tmp_path, {"baseline": scored})
    (note,) = found.notes
    assert note == Note("no real-against-real floor: that takes 200 real images, and there are 150", "baseline seed 0")


def test_a_note_on_seed_10_does_not_hide_that_seed_1_has_no_scores(tmp_path):
    for seed in (1, 10):
        make_run(tmp_path, "baseline", seed)
    read, _ = read_folders(tmp_path)
    protocol = Protocol("effnet_lite0", "0123456789abcdef", "faces-01234567:64px:500", 200, 200)
    found = compare(
        read, lambda run: (protocol, scores()), notes=[Note("not scored: its weights", run="baseline seed 10")]
    )
    assert any(
        str(note).startswith("baseline seed 1: finished, but its final generator has no scores") for note in found.notes
    )


def test_a_deleted_last_snapshot_is_named_and_no_other_passes_for_the_last(tmp_path):
    make_run(tmp_path, "baseline")
    found = compared(tmp_path, {"baseline": scores(90.0, along=[50])})
    assert any("no scores of the snapshots at steps 400" in str(note) for note in found.notes)
    assert pd.isna(row(found, "baseline")["last_fid"])
    assert row(found, "baseline")["best_fid"] == 50


@pytest.mark.parametrize(
    ("low_until", "told"),
    [
        (0, "No: It is never below 0.1."),
        (200, "No: It dives and comes back: below 0.1 in up to 50.0 % of all steps (baseline), and in none"),
    ],
)
def test_whether_d_dives_is_asked_of_the_whole_run_and_whether_it_stays_of_the_end(tmp_path, low_until, told):
    make_run(tmp_path, "baseline", lowest=0.01 if low_until else None)
    answer = next(each for each in compared(tmp_path).answers if "stay there" in each.question)
    assert answer.sentence.startswith(told)


def test_a_d_that_wins_for_good_is_said_to_have_won(tmp_path):
    folder = make_run(tmp_path, "baseline")
    measures = folder.read_history().iloc[:, 1:].to_numpy(dtype=np.float32)
    measures[240:, 0] = 0.001
    folder.append_history(1, measures)
    answer = next(each for each in compared(tmp_path).answers if "stay there" in each.question)
    assert answer.sentence == "Yes: It is below 0.1 in most of the last quarter of the steps in baseline."


def test_a_comparison_read_from_wandb_has_losses_and_no_scores(tmp_path):
    make_run(tmp_path, "baseline")
    read, _ = read_folders(tmp_path)
    found = compare(read, lambda run: None)
    assert found.protocol["scores"].startswith("none: read from W&B")
    assert row(found, "baseline")["interleaving_ratio"] > 0.5
    assert found.notes == []
