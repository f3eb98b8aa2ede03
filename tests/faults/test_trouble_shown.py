"""A run that diverged and one that D has won for good: the comparison shows both where its means would hide them."""

import pytest
from support.lab import NO_FIGURES
from support.made_runs import alternative, compared, make_run, measures_of, row, scores

from analysis.pages import report, tables


def d_wins(folder, last):
    """Give D low losses in the last steps."""
    with measures_of(folder) as measures:
        measures[-last:, 0] = 0.01


def test_a_run_that_d_has_won_is_an_alarm_with_the_remedy_and_marked_in_the_results(tmp_path):
    for seed in range(2):
        folder = make_run(tmp_path, "baseline", seed, steps=2000)
        if seed:
            d_wins(folder, 1000)
    found = compared(tmp_path, {"baseline": scores(50.0)})
    (alarm,) = found.alarms
    assert str(alarm).startswith("baseline seed 1: D has won: its loss is below 0.1 in 100.0 % of the last 1,000 steps")
    assert "discriminator.learning_rate" in alarm.text
    assert row(found, "baseline", 1)["d_win_share_at_end"] == 1
    assert row(found, "baseline", 0)["d_win_share_at_end"] < 0.01
    assert alternative(found, "baseline").d_won == [1]
    page, text = report.html(found, NO_FIGURES), tables.markdown(found)
    assert '<span class="badge worse">D has won for good in seed 1</span>' in page
    assert '<span class="badge worse">D won 1</span>' in page
    assert "| 2, D won 1 |" in text
    assert str(alarm) in text


def test_a_run_that_g_has_won_is_an_alarm_with_the_remedy(tmp_path):
    folder = make_run(tmp_path, "baseline", steps=2000)
    with measures_of(folder) as measures:
        measures[1000:, [0, 3]] = 3.0, 0.05
    (alarm,) = compared(tmp_path).alarms
    assert str(alarm).startswith(
        "baseline seed 0: G has won: its loss is below 0.1 in more than 99 % of the last 1,000"
    )
    assert "try a higher discriminator.learning_rate" in alarm.text


@pytest.mark.parametrize("state", ["interrupted", "running", "diverged"])
def test_that_d_has_won_is_seen_before_a_run_has_finished(tmp_path, state):
    make_run(tmp_path, "baseline", steps=4000)
    d_wins(make_run(tmp_path, "tuned_lr", steps=4000, state=state), 1000)
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
    page, text = report.html(found, NO_FIGURES), tables.markdown(found)
    assert '<span class="badge worse">1 diverged</span>' in page
    assert '<span class="badge worse">Seed 2 diverged at step 200</span>' in page
    assert "| 2, 1 diverged |" in text
    assert row(found, "baseline", 2)["status"] == "diverged"
