"""The command line of the analysis: every mistake is one line, and help answers."""

import pytest
from support.made_runs import make_run

from analysis.__main__ import main
from analysis.runs.folders import read_folders


def _output(capsys, *words):
    """Exit code and the text on stderr."""
    try:
        code = main([str(word) for word in words])
    except SystemExit as stopped:
        code = stopped.code
    return code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["compare", "--runs", "nowhere"],
            "error: nowhere: no runs (no such folder); `make run EXP=baseline` makes one",
        ),
        (["compare", "--samples", "0"], "error: argument --samples: '0' is not a positive whole number; see"),
        (["compare", "--cost-per-hour", "free"], "error: argument --cost-per-hour: 'free' is not a positive number"),
        (["rate", "nope", "--profile", "smoke"], "error: no experiment 'nope'"),
        (["dashboard", "--terminal", "--runs", "nowhere"], "error: nowhere: no runs"),
        (
            ["compare", "--runs", "{}", "--extractor", "resnet"],
            "extractor 'resnet': there are inception and effnet_lite0",
        ),
        (["compare", "--runs", "{}", "--inception-weights", "{}/weights.pth"], "error: {}/weights.pth: broken"),
        (
            ["rate", "baseline", "--profile", "smoke", "--runs", "{}"],
            "no generator.params (no such run); `make run` with the same EXP, PROFILE, SEED, SET and DATA trains it",
        ),
        (["study-page", "--wandb", "me/faces"], "only run folders have"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(tmp_path, capsys, words, line):
    make_run(tmp_path, "baseline")
    (tmp_path / "weights.pth").write_bytes(b"no weights")
    code, output = _output(capsys, *(word.format(tmp_path) for word in words))
    assert code == 2
    assert output.startswith("error: ")
    assert line.format(tmp_path) in output
    assert output.count("\n") == 1


def test_when_no_run_can_be_used_each_is_reported_and_nothing_is_compared(tmp_path, capsys):
    make_run(tmp_path / "runs", "baseline").config.write_text("image_size: 64\n")
    code, output = _output(capsys, "compare", "--runs", tmp_path / "runs", "--out", tmp_path / "reports")
    assert code == 2
    assert output.splitlines()[-1] == f"error: {tmp_path / 'runs'}: none of the runs can be used"
    assert "config.yaml" in output.splitlines()[0]
    assert not (tmp_path / "reports").exists()


def test_a_comparison_of_what_wandb_has_takes_no_scored_report_away(tmp_path, capsys, monkeypatch):
    make_run(tmp_path / "runs", "baseline")
    monkeypatch.setattr("analysis.runs.wandb.read_wandb", lambda project: read_folders(tmp_path / "runs"))
    monkeypatch.setattr("analysis.measures.features.choose", None)  # nothing to score, so no extractor is loaded
    assert main(["compare", "--wandb", "me/faces", "--out", str(tmp_path / "reports")]) == 0
    (page,) = (tmp_path / "reports").rglob("index.html")
    assert page.parent == tmp_path / "reports" / "wandb" / "faces-01234567" / "smoke"
    assert "none: read from W&amp;B" in page.read_text(encoding="utf-8")


def test_the_ladder_has_no_runs_and_its_help_speaks_of_real_images(capsys):
    assert _output(capsys, "ladder", "--runs", "runs")[0] == 2
    with pytest.raises(SystemExit):
        main(["ladder", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "(default: the embedded drawn faces)" in text
    assert "how many real images to damage per rung, and to compare them with (default: 1000)" in text
    assert "trained on" not in text
    assert "generated images" not in text


def test_help_answers_for_each_command(capsys):
    for command in ("compare", "study-page", "rate", "dashboard"):
        with pytest.raises(SystemExit) as stopped:
            main([command, "--help"])
        assert stopped.value.code == 0
        assert "--runs" in capsys.readouterr().out
