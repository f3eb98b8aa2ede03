"""A run that diverged and one that D has won for good: the comparison shows both where its means would hide them."""

import numpy as np
import pytest
from support.made_runs import alternative, compared, make_run, row, scores

from analysis.pages import report, tables
from analysis.pages.figures import SECTIONS

NO_FIGURES = dict.fromkeys(SECTIONS, ())


def with_losses(folder, change):
    """The run with other losses of D."""
    measures = folder.read_history().iloc[:, 1:].to_numpy(dtype=np.float32)
    change(measures[:, 0])
    folder.append_history(1, measures)


def won(last):
    def change(loss_d):
        loss_d[-last:] = 0.01

    return change


def test_a_run_that_d_has_won_is_an_alarm_with_the_remedy_and_marked_in_the_results(tmp_path):
    for seed in range(2):
        folder = make_run(tmp_path, "baseline", seed, steps=2000)
        if seed:
            with_losses(folder, won(1000))
    found = compared(tmp_path, {"baseline": scores(50.0)})
    (alarm,) = found.alarms
    assert str(alarm).startswith("baseline seed 1: D has won: its loss is below 0.1 in 100.0 % of the last 1,000 steps")
    assert "discriminator.learning_rate" in alarm.text
    assert row(found, "baseline", 1)["d_win_share_at_end"] == 1
    assert row(found, "baseline", 0)["d_win_share_at_end"] < 0.01
    assert alternative(found, "baseline").d_won == [1]
    assert found.experiment_answers["baseline"].evidence[0] == "D has won for good in seed 1"
    page, text = report.html(found, NO_FIGURES), tables.markdown(found)
    assert '<span class="badge worse">D has won for good in seed 1</span>' in page
    assert '<span class="badge worse">D won 1</span>' in page
    assert "| 2, D won 1 |" in text
    assert str(alarm) in text


def test_a_run_that_g_has_won_is_an_alarm_with_the_remedy(tmp_path):
    folder = make_run(tmp_path, "baseline", steps=2000)
    losses = folder.read_history().iloc[:, 1:]
    losses.loc[1000:, ["loss_d", "loss_g"]] = 3.0, 0.05
    folder.append_history(1, losses.to_numpy(dtype=np.float32))
    (alarm,) = compared(tmp_path).alarms
    assert str(alarm).startswith(
        "baseline seed 0: G has won: its loss is below 0.1 in more than 99 % of the last 1,000"
    )
    assert "try a higher discriminator.learning_rate" in alarm.text


def test_nearly_won_is_not_won(tmp_path):
    with_losses(make_run(tmp_path, "baseline", steps=2000), won(980))
    found = compared(tmp_path)
    assert found.alarms == []
    assert alternative(found, "baseline").d_won == []


@pytest.mark.parametrize("state", ["interrupted", "running", "diverged"])
def test_that_d_has_won_is_seen_before_a_run_has_finished(tmp_path, state):
    make_run(tmp_path, "baseline", steps=4000)
    with_losses(make_run(tmp_path, "tuned_lr", steps=4000, state=state), won(1000))
    found = compared(tmp_path)
    assert any(str(alarm).startswith("tuned_lr seed 0: D has won") for alarm in found.alarms)


def test_a_seed_that_diverged_is_an_alarm_and_named_where_the_others_mean_stands(tmp_path):
    for seed in range(3):
        make_run(tmp_path, "baseline", seed, state="diverged" if seed == 2 else "finished")
    found = compared(tmp_path, {"baseline": scores(50.0)})
    (alarm,) = found.alarms
    assert str(alarm).startswith("baseline seed 2: diverged at step 200")
    baseline = alternative(found, "baseline")
    assert (baseline.seeds, baseline.diverged) == ([0, 1], {2: 200})
    assert (
        found.experiment_answers["baseline"].evidence[0] == "diverged, so left out of these means: seed 2 at step 200"
    )
    page, text = report.html(found, NO_FIGURES), tables.markdown(found)
    assert '<span class="badge worse">1 diverged</span>' in page
    assert '<span class="badge worse">Seed 2 diverged at step 200</span>' in page
    assert "| 2, 1 diverged |" in text
    assert row(found, "baseline", 2)["status"] == "diverged"
