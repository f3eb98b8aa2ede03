"""The runs of a W&B project as they come from a stand-in for `wandb.Api`."""

import json
import re
import threading

import numpy as np
import pytest
from support.recorded_runs import api_of, make, record_of, wandb_run

from analysis.runs import wandb as wandb_reader
from analysis.runs.wandb import read_wandb
from dcgan import UserError
from dcgan.record.folder import HISTORY


def test_numbers_that_wandb_writes_without_a_fraction_leave_the_slug_as_it_is(runs):
    overrides = ["duration_multiplier=2", "discriminator.learning_rate=1"]
    folder = make(runs, overrides=overrides)
    shortened = json.loads(json.dumps(record_of(overrides=overrides)).replace(".0,", ",").replace(".0}", "}"))
    assert "2.0" not in json.dumps(shortened["overrides"])
    ((run,), _) = read_wandb("e/p", api_of(wandb_run(shortened)))
    assert run.name == folder.path.parent.name


def test_the_history_is_downloaded_once_and_a_change_to_it_does_not_stay():
    there = wandb_run()
    asked = []
    scan = there.scan_history
    there.scan_history = lambda use_cache: asked.append(use_cache) or scan(use_cache)
    ((run,), _) = read_wandb("e/p", api_of(there))
    assert asked == []
    history = run.history()
    history["loss_d"] = 0.0
    assert (run.history()["loss_d"] > 0).all()
    assert asked == [False]


def test_of_a_step_that_was_logged_twice_the_last_row_counts_whatever_the_order():
    def row(step, value):
        return dict(zip(HISTORY, (step, *[value] * 6), strict=True))

    scattered = [row(1, 1.0), row(3, 1.0), row(2, 1.0), row(3, 7.0), {"_step": 9, "note": "x"}, {"step": 2, "fid": 3.0}]
    ((run,), _) = read_wandb("e/p", api_of(wandb_run(rows=3, history=scattered)))
    assert run.history()[["step", "loss_g"]].to_numpy().tolist() == [[1, 1.0], [2, 1.0], [3, 7.0]]


@pytest.mark.parametrize(
    ("word", "value"), [("NaN", np.nan), ("Infinity", np.inf), ("-Infinity", -np.inf), (None, np.nan)]
)
def test_words_for_numbers_that_are_not_finite_become_those_numbers(word, value):
    there = wandb_run(rows=1, history=[dict(zip(HISTORY, (1, word, 1, 2, 3, 4, 5), strict=True))])
    there.summary_metrics["images_per_s"] = word
    ((run,), _) = read_wandb("e/p", api_of(there))
    np.testing.assert_array_equal(run.history().iloc[0, 1:].tolist(), [value, 1, 2, 3, 4, 5])
    np.testing.assert_array_equal(run.status["images_per_s"] if word else np.nan, value)


@pytest.mark.parametrize(
    ("of_wandb", "own", "step", "expected"),
    [
        ("finished", "finished", 40, "finished"),
        ("finished", "diverged", 7, "diverged"),
        ("finished", "interrupted", 7, "interrupted"),
        ("failed", "failed", 7, "failed"),
        ("crashed", "finished", 40, "finished"),  # its last message did not arrive
        ("running", "finished", 40, "finished"),
        ("running", "interrupted", 7, "running"),  # resumed; its own word is of the last session
        ("crashed", "interrupted", 9, "interrupted"),
        ("running", None, 7, "running"),
        ("finished", None, 40, "finished"),
        ("finished", None, 7, "interrupted"),
        ("failed", None, 7, "failed"),
        ("crashed", None, 7, "interrupted"),
        ("killed", None, 7, "interrupted"),
    ],
)
def test_the_state_is_the_runs_own_word_where_that_is_its_last(of_wandb, own, step, expected):
    summary = {"step": step, "images_per_s": 5.0} | ({"state": own} if own else {})
    ((run,), _) = read_wandb("e/p", api_of(wandb_run(state=of_wandb, summary=summary)))
    assert run.state == expected
    in_order = own is not None and (own in ("finished", "diverged") or of_wandb == "finished")
    assert run.status["images_per_s"] == (5.0 if in_order else None), "else it is that only of the last rows"


def test_runs_of_other_kinds_are_passed_over_in_silence_and_broken_ones_with_a_line():
    others = [
        wandb_run({}, id="empty"),
        wandb_run({"lr": 1e-4, "batch_size": 64, "name": "sweep", "seed": 3}, id="foreign"),
        wandb_run(group="comparison", id="compared"),
    ]
    record = record_of()
    del record["adam"]
    broken = [wandb_run(record, id="broken"), wandb_run(id="odd", summary={"step": "x", "state": "finished"})]
    ((run,), problems) = read_wandb("e/p", api_of(*others, wandb_run(), *broken))
    assert run.where == "e/p/abcd1234"
    assert len(problems) == 2
    assert re.match(r"e/p/broken: adam: missing or not valid in this version", problems[0])
    assert re.match(r"e/p/odd: step: missing or not what this version of the lab writes", problems[1])


def test_a_project_without_runs_of_ours_is_a_user_error():
    with pytest.raises(UserError, match="e/p: none of its 1 runs in W&B is from this lab"):
        read_wandb("e/p", api_of(wandb_run({})))


def test_of_two_trainings_of_a_run_the_newer_counts_and_of_two_uploads_the_longer():
    first, again = record_of(wandb_id="aaaaaaaa"), record_of(wandb_id="bbbbbbbb")
    there = [
        wandb_run(first, id="aaaaaaaa", rows=40),
        wandb_run(again, id="bbbbbbbb-whole", rows=30, summary={"step": 30}),
        wandb_run(again, id="bbbbbbbb", rows=20, summary={"step": 20}),
    ]
    ((run,), problems) = read_wandb("e/p", api_of(*there))
    assert run.where == "e/p/bbbbbbbb-whole"
    assert [line.partition(": skipped: ")[0] for line in problems] == ["e/p/aaaaaaaa", "e/p/bbbbbbbb"]


@pytest.mark.parametrize(
    ("history", "message"),
    [
        ([], "W&B has 0 rows of a history of 40 steps"),
        ([dict(zip(HISTORY, range(1, 8), strict=True))], "W&B has 1 rows of a history of 40 steps"),
        ([dict(zip(HISTORY, range(2, 9), strict=True))], "no row for step 1, but one for 2"),
        ([{"step": 1, "loss_d": 1.0}], r"W&B has a row without loss_d_real \(step 1\)"),
        ([dict(zip(HISTORY, "abcdefg", strict=True))], "not a table of numbers"),
    ],
)
def test_a_history_that_wandb_has_only_in_part_is_a_user_error(history, message):
    ((run,), _) = read_wandb("e/p", api_of(wandb_run(history=history)))
    with pytest.raises(UserError, match=f"e/p/abcd1234: .*{message}"):
        run.history()


def test_a_history_that_does_not_come_is_given_up(monkeypatch):
    monkeypatch.setattr(wandb_reader, "ANSWER_S", 0.1)
    never = threading.Event()
    there = wandb_run()
    there.scan_history = lambda use_cache: never.wait(60)
    ((run,), _) = read_wandb("e/p", api_of(there))
    with pytest.raises(UserError, match=r"can't be read from W&B \(no answer for 0.1 s\)"):
        run.history()
    never.set()


def test_a_history_that_fails_is_a_user_error():
    there = wandb_run()
    there.scan_history = lambda use_cache: (_ for _ in ()).throw(RuntimeError("two\nlines"))
    ((run,), _) = read_wandb("e/p", api_of(there))
    with pytest.raises(UserError, match=r"can't be read from W&B \(RuntimeError: two\)"):
        run.history()
