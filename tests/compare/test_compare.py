"""The comparison of run folders: what is put side by side, what is refused, and what the notes say."""

import dataclasses
import math

import pandas as pd
import pytest
from support.made_runs import DATA, alternative, begin_as, compared, make_run, measures_of, row, scored_run, scores

from analysis.compare.build import compare, groups
from analysis.compare.comparison import RUN_COLUMNS, SNAPSHOT_COLUMNS, Claim, Note
from analysis.compare.one_run import NOTHING
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
    assert any("its batch size is 32, the others' is 128" in str(note) for note in found.notes)
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
    sentence = found.experiment_answers["regularized"].sentence
    assert sentence == "Can't tell. None of its runs has finished, and 1 diverged."


def test_one_run_alone_is_compared_with_nothing(tmp_path):
    make_run(tmp_path, "tuned_lr")
    found = compared(tmp_path, {"tuned_lr": scores(50.0, along=[60, 50])})
    assert len(found.table) == 1
    assert (
        "No run has 3 scored snapshots at its end both here and in regularized"
        in found.experiment_answers["tuned_lr"].sentence
    )
    assert alternative(found, "tuned_lr").changes["discriminator.learning_rate"] == (2e-4, 1e-4)
    assert "weight_init.kind" not in alternative(found, "tuned_lr").changes


def test_a_run_of_another_device_or_code_is_compared_and_named(tmp_path):
    for seed in range(2):
        make_run(tmp_path, "baseline", seed)
    make_run(tmp_path, "tuned_lr", device="cuda")
    found = compared(tmp_path)
    assert len(found.table) == 3
    (note,) = [note for note in found.notes if "this may explain" in note.text]
    assert note.run == "tuned_lr seed 0"
    assert "trained by code - on cuda in -, unlike most runs (code - on cpu in -):" in note.text


def test_quality_at_two_image_sizes_is_compared_only_at_64_px(tmp_path):
    make_run(tmp_path, "tuned_lr")
    make_run(tmp_path, "hires_128")
    found = compared(tmp_path, {"tuned_lr": scores(50.0), "hires_128": scores(90.0, fid_at_64=70.0)})
    hires = alternative(found, "hires_128")
    assert "fid" not in hires.differences
    assert hires.differences["fid_at_64"].difference == 20
    assert "FID at 64 px is 20 higher" in found.experiment_answers["hires_128"].text


def test_last_snapshots_much_worse_than_the_best_are_an_alarm_and_one_bad_snapshot_is_none(tmp_path):
    courses = {
        "baseline": [50, 50, 50, 90, 90, 90],
        "tuned_lr": [50, 50, 50, 50, 50, 90],
        "regularized": [90, 80, 70, 60],
    }
    for name, along in courses.items():
        make_run(tmp_path, name, steps=200 * len(along))
    found = compared(tmp_path, {name: scores(90.0, along=along) for name, along in courses.items()})
    (alarm,) = found.alarms
    assert alarm.run == "baseline seed 0"
    assert (
        "three snapshots are much worse than the best three in a row: FID 90.0 against 50.0 around step 400"
        in alarm.text
    )
    assert (row(found, "baseline")["best_step"], row(found, "baseline")["last_fid"]) == (400, pytest.approx(90))


def test_a_snapshot_has_the_interleaving_of_the_steps_since_the_one_before(tmp_path):
    folder = make_run(tmp_path, "baseline")
    with measures_of(folder) as measures:
        measures[:200, 3] = 9 * measures[:200, 0]  # apart, then together
    found = compared(tmp_path, {"baseline": scores(48.0, along=[50, 48])})
    assert tuple(found.snapshots) == (*SNAPSHOT_COLUMNS, "next_kid_mean")
    first, second = found.snapshots["interleaving_ratio"]
    assert math.isnan(first) or first == 0
    assert second > 0.8


def test_runs_with_as_many_snapshots_are_parent_and_child(tmp_path):
    found = {}
    for name, seed, fid in (("baseline", 0, 50), ("baseline", 1, 51), ("regularized", 0, 80), ("regularized", 1, 81)):
        scored_run(tmp_path, found, name, seed, along=[fid] * 6, steps=1200, overrides=["snapshots=6"])
    child = alternative(compared(tmp_path, found), "regularized+snapshots=6")
    assert child.parent == "baseline+snapshots=6"
    assert child.differences["fid"].difference == pytest.approx(30)
    assert "interleaving_ratio" in child.differences


def test_the_protocol_on_the_page_is_that_of_the_scores_on_it(tmp_path):
    make_run(tmp_path, "baseline")
    make_run(tmp_path, "regularized")
    other, usual = (Protocol(each, "0123456789abcdef", "faces-01234567:64px:500", 9, 9) for each in ("other", "usual"))
    found_by = {"baseline": (other, NOTHING), "regularized": (usual, scores(20.0))}
    found = compare(read_folders(tmp_path)[0], lambda run: found_by[run.name])
    assert found.protocol["feature extractor"] == "usual (weights 01234567)"


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


def cut_a_row_out(folder):
    lines = folder.history.read_text().splitlines(keepends=True)
    folder.history.write_text("".join([*lines[:100], *lines[101:], lines[-1]]))


def make_a_loss_negative(folder):
    with measures_of(folder) as measures:
        measures[7, 0] = -1


@pytest.mark.parametrize(
    ("steps", "damage", "note"),
    [
        (400, cut_a_row_out, "no row for step 100"),
        (400, make_a_loss_negative, "tuned_lr seed 0: a cross-entropy is never negative"),
        (60, lambda folder: None, "tuned_lr seed 0: no interleaving ratio: no window of 100 steps"),
    ],
)
def test_a_run_without_usable_losses_has_no_ratio_and_a_note_says_why(tmp_path, steps, damage, note):
    make_run(tmp_path, "baseline", steps=steps)
    damage(make_run(tmp_path, "tuned_lr", steps=steps))
    found = compared(tmp_path)
    assert pd.isna(row(found, "tuned_lr")["interleaving_ratio"])
    assert note in "\n".join(map(str, found.notes))
    assert steps < 100 or row(found, "baseline")["interleaving_ratio"] > 0.5


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


def test_scores_against_other_real_images_are_not_compared_with_each_other(tmp_path):
    make_run(tmp_path, "baseline")
    make_run(tmp_path, "regularized")
    make_run(tmp_path, "baseline", overrides=["images=200"], data={**DATA, "count": 200})
    names = ("baseline", "regularized", "baseline+images=200")
    found = compared(tmp_path, {run: scores(50.0, along=[60, 50]) for run in names})
    (fewer,) = [each for each in found.alternatives if each.name.startswith("baseline+")]
    assert fewer.quality is None
    assert "fid" not in fewer.differences
    assert (
        "Not compared with its parent, baseline: the two were trained on different images."
        in found.experiment_answers[fewer.name].text
    )
    assert any(
        str(note).startswith(f"{fewer.name} seed 0: it was trained on other images than most") for note in found.notes
    )
    assert fewer.name in set(found.snapshots["experiment"]) - set(found.comparable["experiment"])


def test_recipes_on_other_images_have_no_part_in_the_variance_that_others_are_judged_by(tmp_path):
    def differences(place, *, others):
        found = {}
        for seed in range(3):
            for name, level in (("baseline", 50), ("regularized", 60)):
                scored_run(place, found, name, seed, along=[level + seed] * 4)
            if others and seed < 2:
                options = {"overrides": ["images=200"], "data": {**DATA, "count": 200}}
                scored_run(place, found, "baseline", seed, along=[50 * 3**seed] * 4, **options)
        recipe = alternative(compared(place, found), "regularized")
        return recipe.outcome, recipe.differences["fid"]

    assert differences(tmp_path / "with", others=True) == differences(tmp_path / "without", others=False)


def test_too_few_real_images_for_a_floor_are_a_note(tmp_path):
    make_run(tmp_path, "baseline")
    scored = scores(50.0, along=[60, 50], n_real=150)
    del scored.final["fid_floor"]
    found = compared(tmp_path, {"baseline": scored})
    (note,) = found.notes
    assert note == Note("no real-against-real floor: it needs 200 real images, and there are 150", "baseline seed 0")


def test_a_note_on_seed_10_does_not_hide_that_seed_1_has_no_scores(tmp_path):
    for seed in (1, 10):
        make_run(tmp_path, "baseline", seed)
    found = compared(tmp_path, notes=[Note("not scored: its weights", run="baseline seed 10")])
    assert any(
        str(note).startswith("baseline seed 1: finished, but its final generator has no scores") for note in found.notes
    )


def test_a_deleted_last_snapshot_is_named_and_no_other_passes_for_the_last(tmp_path):
    make_run(tmp_path, "baseline")
    found = compared(tmp_path, {"baseline": scores(90.0, along=[50])})
    assert any("no scores of the snapshots at steps 400" in str(note) for note in found.notes)
    assert pd.isna(row(found, "baseline")["last_fid"])
    assert pd.isna(row(found, "baseline")["kid_endpoint"])


def test_a_comparison_read_from_wandb_has_losses_and_no_scores(tmp_path):
    make_run(tmp_path, "baseline")
    read, _ = read_folders(tmp_path)
    found = compare(read, lambda run: None)
    assert found.protocol["scores"].startswith("none: read from W&B")
    assert row(found, "baseline")["interleaving_ratio"] > 0.5
    assert found.notes == []


def test_scores_have_the_variance_of_all_recipes_pooled_and_loss_curves_that_of_the_two(tmp_path):
    fids = {"baseline": (70.0, 72.0), "slow_d_only": (80.0, 84.0), "init_only": (90.0, 100.0)}
    for name, values in fids.items():
        for seed in range(len(values)):
            make_run(tmp_path, name, seed, gap=0.2 * len(name) / 10)
    found = compared(
        tmp_path,
        {f"{name} seed {seed}": scores(fid) for name, values in fids.items() for seed, fid in enumerate(values)},
    )
    differences = alternative(found, "slow_d_only").differences
    assert differences["fid"].difference == pytest.approx(11)
    assert differences["fid"].df == 3, "of three recipes with two seeds each"
    assert differences["fid"].high - 11 == pytest.approx(3.182 * math.sqrt((2 + 8 + 50) / 3), rel=1e-3)
    assert differences["interleaving_ratio"].df < 2 + 1e-9


def test_the_first_steps_of_a_longer_run_stand_for_a_parent_without_runs(tmp_path):
    """The parent is compared where it ends, and the longer run's own end is another thing."""
    found = {}
    for seed in (0, 1):
        course = (300, 100, 100, 100 + seed, 60, 60, 60, 60, 60, 50, 50, 50)
        for name, along in (("d_rate_eighth", (300, 200, 200, 200)), ("baseline_long", course)):
            options = {"steps": 10 * len(along), "overrides": [f"snapshots={len(along)}"]}
            scored_run(tmp_path, found, name, seed, along=along, at=range(10, 10 * len(along) + 1, 10), **options)
    comparison = compared(tmp_path, found)
    long, short = sorted(each.name for each in comparison.alternatives)

    this = alternative(comparison, short)
    assert this.parent == "baseline"
    assert math.exp(this.outcome.effect.difference) == pytest.approx(200 / (100 * 101 ** (1 / 6) * 100 ** (-1 / 6)))
    assert this.outcome.effect.n == (2, 2)
    sentence = comparison.experiment_answers[short].text
    assert "2.00 [1.98, 2.01] times baseline's (n = 2 seeds each; p <" in sentence
    own = comparison.experiment_answers[long]
    assert own.verdict == "plain", "its end with its own beginning, which is no test"
    assert (
        "after 120 steps KID over the last 3 snapshots is 0.50 times that after 40 steps, and lower in 2 of 2"
        in own.text
    )
    assert "The best 3 snapshots in a row end at step 120 (seed 0), 120 (seed 1)." in own.text
    assert f"The first 40 steps of {long} stand in for baseline" in map(str, comparison.notes)

    make_run(
        tmp_path, "baseline_long", 2, steps=120, overrides=["snapshots=2"]
    )  # was not looked at where baseline ends
    assert alternative(compared(tmp_path, found), short).outcome == this.outcome


def test_longer_runs_stand_for_the_seeds_that_the_parent_lacks(tmp_path):
    found = {}
    for seed in (0, 1, 2):
        for name, steps, level in (("baseline", 1200, 70), ("baseline_long", 3600, 70), ("d_rate_double", 1200, 140)):
            if name == "baseline" and seed:
                continue
            along = [level + seed + (0 if place < 10 else -20) for place in range(steps // 120)]
            options = {"steps": steps, "profile": "laptop", "overrides": [f"snapshots={steps // 120}"]}
            folder = scored_run(tmp_path, found, name, seed, along=along, at=range(120, steps + 1, 120), **options)
            if name == "baseline":
                short = folder
            elif name == "baseline_long" and not seed:
                begin_as(folder, short)
    comparison = compared(tmp_path, found)
    (double,) = (each for each in comparison.alternatives if each.experiment == "d_rate_double")
    assert double.outcome.effect.n == (3, 3)
    assert math.exp(double.outcome.effect.difference) == pytest.approx((140 * 141 * 142 / (70 * 71 * 72)) ** (1 / 3))
    assert double.stand_in.startswith("The first 1,200 steps of baseline_long")
    assert double.stand_in.endswith(" stand in for baseline's seeds 1, 2")
    (longer,) = (each for each in comparison.alternatives if each.experiment == "baseline_long")
    assert longer.outcome is None
    assert "and lower in 3 of 3 seeds. These are the same runs" in comparison.experiment_answers[longer.name].text


def test_a_run_is_not_tested_against_its_own_first_steps_though_its_parent_has_them_too(tmp_path):
    found = {}
    for seed in (0, 1):
        along = [100 - 3 * place + seed for place in range(10)]
        options = {"at": range(120, 1201, 120), "steps": 1200, "profile": "laptop"}
        short = scored_run(tmp_path, found, "baseline", seed, along=along, **options)
        options = {"at": range(360, 3601, 360), "steps": 3600, "profile": "laptop"}
        long = scored_run(tmp_path, found, "baseline_long", seed, along=[100, 90, 80, *along[3:]], **options)
        begin_as(long, short)
    comparison = compared(tmp_path, found)
    (longer,) = (each for each in comparison.alternatives if each.experiment == "baseline_long")
    assert longer.outcome is None
    assert not longer.differences
    answer = comparison.experiment_answers[longer.name]
    assert answer.verdict == "plain"
    assert "1.00 times that after 1,200 steps, and lower in 0 of 2 seeds. These are the same runs" in answer.text
    claim = Claim("interleaving_ratio", "next", "seeds")
    assert comparison.associations[claim].points == 2 * 9, "the next snapshot, too, lies within the equal steps"


def test_how_often_a_run_is_looked_at_makes_no_other_recipe_of_it(tmp_path):
    make_run(tmp_path, "baseline")
    make_run(tmp_path, "slow_d_only", overrides=["snapshots=3"])
    make_run(tmp_path, "slow_d_only", overrides=["latent_dim=50"])
    parents = {each.name: (each.parent, [*each.overrides]) for each in compared(tmp_path).alternatives}
    looked_at, other = (
        next(name for name in parents if key in parents[name][1]) for key in ("snapshots", "latent_dim")
    )
    assert parents[looked_at][0] == "baseline"
    assert parents[other][0] == "slow_d_only"


def test_of_a_parent_that_is_not_here_nothing_is_claimed(tmp_path):
    (tmp_path / "mine.yaml").write_text("extends: baseline\nbatch_size: 32\n")
    make_run(tmp_path / "runs", str(tmp_path / "mine.yaml"), overrides=["latent_dim=50"])
    (alternative,) = compared(tmp_path / "runs").alternatives
    assert (alternative.parent, alternative.parent_known, alternative.changes) == ("mine", False, {})
