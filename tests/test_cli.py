"""The command line as a user meets it: records, bad input in one line, resuming, sampling."""

import errno
import io
import logging
import os
import signal
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from support import ROOT, TINY
from support.tiny_run import interrupting
from support.waiting import until

from dcgan import config
from dcgan.__main__ import main, parser
from dcgan.options import log_to_stderr
from dcgan.record.folder import RunFolder

RECIPE = ["--profile", "smoke", "--device", "cpu", "--set", *TINY, "steps=6", "threads=1"]


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def pictures(tmp_path):
    """A folder of 40 pictures."""
    folder = tmp_path / "my pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(40):
        Image.fromarray(rng.integers(0, 256, (36, 40, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return folder


def _run(*arguments):
    return main(["run", "tuned_lr", *RECIPE, *map(str, arguments)])


def _folder(tmp_path):
    (folder,) = (tmp_path / "runs").glob("*/smoke/tuned_lr+*/seed-*")
    return folder


def test_a_dry_run_prints_the_experiment_and_its_diff_and_writes_nothing(tmp_path, capsys):
    assert main(["run", "tuned_lr", "--profile", "laptop", "--seed", "3", "--dry-run"]) == 0
    printed = capsys.readouterr()
    assert config.from_record(yaml.safe_load(printed.out), "stdout") == config.load(
        "tuned_lr", profile="laptop", seed=3
    )
    assert "differs from regularized" in printed.err
    assert "discriminator.learning_rate: 0.0002 -> 0.0001" in printed.err
    assert list(tmp_path.iterdir()) == []


def test_the_record_says_what_was_run_on_what(tmp_path, pictures, capsys):
    assert _run("--data", pictures) == 0
    folder = _folder(tmp_path)
    record = yaml.safe_load((folder / "config.yaml").read_text())
    experiment = config.from_record(record, folder / "config.yaml")
    assert folder.relative_to(tmp_path / "runs").parts[1:] == ("smoke", experiment.slug, "seed-0")
    assert folder.parts[-4] == f"my-pictures-{record['data']['fingerprint'][:8]}"
    assert record["data"]["count"] == 40
    assert record["environment"]["device"] == "cpu"
    assert record["environment"]["threads"] == torch.get_num_threads()
    assert record["environment"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert str(tmp_path) not in (folder / "config.yaml").read_text(), "no path of anybody's machine"
    printed = capsys.readouterr()
    assert "finished after step 6 of 6" in printed.out
    assert "compute" in printed.out


def test_a_finished_run_is_not_trained_again_unless_fresh(tmp_path, pictures, capsys):
    _run("--data", pictures)
    weights = _folder(tmp_path) / "generator.params"
    before = weights.stat().st_mtime_ns
    assert _run("--data", pictures) == 0
    assert "already finished" in capsys.readouterr().out
    assert weights.stat().st_mtime_ns == before
    assert _run("--data", pictures, "--fresh") == 0
    assert weights.stat().st_mtime_ns > before


def test_an_edited_experiment_is_not_taken_for_the_one_that_was_trained(tmp_path, pictures, capsys):
    edited = tmp_path / "edited.yaml"
    edited.write_text("extends: baseline\ndiscriminator: {learning_rate: 5e-5}\n")
    command = ["run", str(edited), *RECIPE, "--data", str(pictures)]
    assert main(command) == 0
    edited.write_text("extends: baseline\ndiscriminator: {learning_rate: 9e-5}\n")
    capsys.readouterr()
    assert main(command) == 2
    assert "discriminator.learning_rate 5e-05 -> 9e-05" in capsys.readouterr().err


def test_resuming_elsewhere_is_reported(tmp_path, pictures, caplog):
    _run("--data", pictures)
    folder = _folder(tmp_path)
    record = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(record.replace("  threads: 1", "  threads: 7"))
    (folder / "status.json").write_text('{"state": "interrupted"}')
    assert _run("--data", pictures) == 0
    assert "resuming in another environment (threads 7 -> 1): the last bits will differ" in caplog.text


def test_a_record_that_lacks_something_is_reported_in_one_line(tmp_path, pictures, capsys):
    _run("--data", pictures)
    record = yaml.safe_load((_folder(tmp_path) / "config.yaml").read_text())
    for key, said in (("wandb_id", "wandb_id missing or damaged"), ("steps", "steps: missing")):
        (_folder(tmp_path) / "config.yaml").write_text(yaml.safe_dump({k: v for k, v in record.items() if k != key}))
        assert _run("--data", pictures) == 2
        assert said in capsys.readouterr().err
    damaged = record | {"environment": 5, "code_files": ["a"]}
    (_folder(tmp_path) / "config.yaml").write_text(yaml.safe_dump(damaged))
    assert _run("--data", pictures) == 2
    assert "config.yaml: environment and code_files missing or damaged; --fresh" in capsys.readouterr().err


def test_two_recipes_or_two_data_sets_never_share_a_folder(tmp_path, pictures):
    _run("--data", pictures)
    _run("--data", pictures, "--set", "latent_dim=7")
    _run("--data", pictures, "--seed", "1")
    _run()
    assert len(list((tmp_path / "runs").rglob("generator.params"))) == 4


def test_no_profile_chosen_is_said_in_one_line(capsys):
    assert main(["run", "baseline", "--device", "cpu", "--dry-run"]) == 0
    printed = capsys.readouterr()
    assert yaml.safe_load(printed.out)["profile"] == "laptop"
    assert "profile laptop, for a machine without CUDA" in printed.err


@pytest.fixture
def given(tmp_path):
    """A folder of what one should not train on."""
    given = tmp_path / "given"
    (given / "torn").mkdir(parents=True)
    for number in range(5):
        (given / "torn" / f"{number}.png").write_bytes(b"\x89PNG not really")
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.png", b"x" * 1000)
    (given / "torn.zip").write_bytes(archive.getvalue()[:600])
    (given / "file").write_text("a file where a folder should be")
    return given


# The arguments ("@" stands for the folder `given`), and what the one line must say. All mistakes in settings are in
# tests/test_config.py, those in images in tests/data/.
BAD_INPUTS = {
    "unknown experiment": ("run tunedlr", ["tunedlr", "did you mean tuned_lr", "baseline"]),
    "data missing": ("run baseline --data @/nowhere", ["nowhere"]),
    "unreadable images": ("run baseline --data @/torn", ["can't be read", "0.png"]),
    "truncated archive": ("run baseline --data @/torn.zip", ["torn.zip", "not a zip archive"]),
    "too few images": ("run baseline --set images=20", ["20", "128", "batch_size"]),
    "runs not writable": ("run baseline --set images=200 --runs @/file/runs", ["/given/file"]),
    "cache not writable": ("run baseline --set images=200 --cache @/file/cache", ["/given/file"]),
    "unknown experiment, the second": ("study baseline tunedlr", ["tunedlr", "did you mean tuned_lr"]),
    "impossible seed": ("study baseline --seeds 5000000000-5000000001", ["seed", "4294967296"]),
    "a seed for all": ("study baseline --set seed=4", ["--set seed", "--seeds"]),
    "data of nobody's": ("study baseline --data ~nobody-here/faces", ["no such folder or file", "~nobody-here/faces"]),
    "data empty": ("study baseline --data=", ["--data (DATA=) is an empty name"]),
    "too few images for a study": ("study baseline --set images=20", ["20", "128", "batch_size"]),
}


@pytest.mark.parametrize("case", BAD_INPUTS)
def test_bad_input_gets_one_line_exit_code_2_and_leaves_nothing(case, given, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("dcgan.study.ray_tasks.connected", lambda *_: pytest.fail("Ray was started"))
    arguments, parts = BAD_INPUTS[case]
    assert main([*arguments.replace("@", str(given)).split(), "--device", "cpu", "--profile", "smoke"]) == 2
    printed = capsys.readouterr()
    lines = [line for line in printed.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, printed.err
    for part in parts:
        assert part in lines[0]
    assert not (tmp_path / "runs").exists()
    assert not list(tmp_path.rglob("*.tmp")) + list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("run", "are required: EXP"),
        ("run baseline --seed x", "--seed: 'x' is not a whole number"),
        ("run baseline --device tpu", "--device: invalid choice: 'tpu'"),
        ("sample x --seeds 0-30000000", "--seeds"),
        ("sample x --seeds 1,5-3", "--seeds"),
        ("sample x --seeds 0-", "--seeds"),
        ("sample x --seeds 9e9", "--seeds"),
        ("sample x --seeds 0-99999999999999999999", "--seeds"),
        ("study", "are required: EXP"),
        ("study baseline --seeds x", "--seeds: 'x' is not a number of seeds, like 5, or a list of them, like 10-12"),
        ("study baseline --seeds 0", "--seeds: '0' is not a number of seeds, like 5, or a list of them, like 10-12"),
        ("study baseline --seeds 99999999999999999999", "--seeds"),
        ("study baseline --cpus-per-run 1.5", "'1.5' is not a whole number, or a part of one like 0.5"),
        ("study baseline --cpus-per-run inf", "'inf' is not a whole number, or a part of one like 0.5"),
        ("study baseline --gpus-per-run 2", "'2' is not a number from 0 to 1; one run on several GPUs is"),
    ],
)
def test_a_mistyped_command_gets_one_line_too(arguments, words, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments.split())
    assert ended.value.code == 2
    output = capsys.readouterr().err
    assert output.startswith("error: ")
    assert output.count("\n") == 1
    assert words in output
    assert "--help" in output


def test_sample_draws_from_a_run_or_from_any_generator_params(tmp_path, pictures, capsys):
    _run("--data", pictures)
    assert main(["sample", "tuned_lr", *RECIPE, "--data", str(pictures), "--seeds", "2,5-7"]) == 0
    drawn = _folder(tmp_path) / "sampled"
    names = {path.name for path in drawn.iterdir()}
    assert names == {"grid.png", "walk.gif", "training.webp", *(f"seed-{n:05d}.png" for n in (2, 5, 6, 7))}
    assert main(["sample", str(_folder(tmp_path) / "generator.params"), "--seeds", "6", "--out", "alone"]) == 0
    assert (tmp_path / "alone" / "seed-00006.png").read_bytes() == (drawn / "seed-00006.png").read_bytes()
    next((_folder(tmp_path) / "snapshots").iterdir()).write_bytes(b"damaged")
    assert main(["sample", "tuned_lr", *RECIPE, "--data", str(pictures), "--seeds", "9"]) == 0
    assert (drawn / "seed-00009.png").is_file()
    assert "warning: left out of the film: " in capsys.readouterr().err


def test_a_log_that_can_not_be_written_is_no_traceback(monkeypatch, capsys):
    """W&B keeps one beside the run, and the disk may be full."""

    class Full(io.StringIO):
        def flush(self):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(logging, "raiseExceptions", True)
    log, handler = logging.getLogger("wandb"), logging.StreamHandler(Full())
    log.addHandler(handler)
    try:
        log_to_stderr()
        log.error("a line")
    finally:
        log.removeHandler(handler)
    assert handler.stream.getvalue() == "a line\n"
    assert "Traceback" not in capsys.readouterr().err


def test_help_names_every_option_and_does_not_wait_for_torch(capsys):
    code = "import sys, dcgan.__main__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    shown = capsys.readouterr().out
    for option in ("--profile", "--data", "--runs", "--seed", "--set", "--fresh", "--dry-run", "Ctrl-C"):
        assert option in shown


@pytest.mark.slow
def test_ctrl_c_saves_and_says_how_to_resume_and_the_same_command_does(tmp_path, pictures, caplog):
    command = ["run", "tuned_lr", *RECIPE, "--set", "steps=300", "--data", str(pictures)]
    process = subprocess.Popen(
        [sys.executable, "-m", "dcgan", *command],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    until(lambda: any(path.read_text().count("\n") > 1 for path in (tmp_path / "runs").rglob("history.csv")))
    process.send_signal(signal.SIGINT)
    printed = process.communicate(timeout=60)[0]
    assert process.returncode == 130, printed
    assert "interrupted after step" in printed
    assert "the same command resumes from there" in printed
    assert "--fresh" not in printed
    assert main(command) == 0
    assert "resuming after step" in caplog.text
    history = (_folder(tmp_path) / "history.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in history] == ["step", *map(str, range(1, 301))]


def test_a_run_that_was_started_afresh_and_stopped_does_not_invite_to_delete_it(
    tmp_path, pictures, capsys, monkeypatch
):
    interrupting(monkeypatch, 3, lambda: os.kill(os.getpid(), signal.SIGINT))
    assert _run("--data", pictures, "--fresh") == 130
    assert "resumes from there" in (printed := capsys.readouterr()).out
    assert "resume without --fresh (FRESH=1), which would delete the run and start again" in printed.err


def test_prune_deletes_what_only_resuming_needs_of_ended_runs_and_sampling_still_works(tmp_path, pictures, capsys):
    assert _run("--data", pictures) == 0
    folder = _folder(tmp_path)
    others = {path for path in folder.rglob("*") if path.is_file() and path.parent.name != "checkpoints"}
    status, ended = folder / "status.json", (folder / "status.json").read_text()
    status.write_text('{"state": "interrupted"}')
    assert main(["prune"]) == 0
    assert list((folder / "checkpoints").iterdir()), "it has not ended"
    status.write_text(ended)
    assert main(["prune", "--dry-run"]) == 0
    assert list((folder / "checkpoints").iterdir())
    capsys.readouterr()
    assert main(["prune"]) == 0
    assert "MB freed: the checkpoints of 1 ended run" in capsys.readouterr().out
    assert {path for path in folder.rglob("*") if path.is_file()} == others
    assert main(["sample", "tuned_lr", *RECIPE, "--data", str(pictures), "--seeds", "0-3"]) == 0
    assert _run("--data", pictures) == 0  # already finished
    assert main(["prune"]) == 0
    assert "the checkpoints of 0 ended runs" in capsys.readouterr().out
    assert main(["prune", "--runs", "nowhere"]) == 2
    assert capsys.readouterr().err == "error: --runs nowhere (RUNS=nowhere): no such folder\n"


def test_prune_leaves_out_a_run_in_use_and_prunes_the_others(tmp_path, capsys):
    folders = [RunFolder(tmp_path / f"faces-01234567/smoke/baseline/seed-{seed}") for seed in range(4)]
    for folder in folders:
        folder.checkpoints.mkdir(parents=True)
        folder.config.touch()
        (folder.checkpoints / "step-000001.pt").write_bytes(bytes(10**6))
        folder.write_status("finished")
    folders[2].lock.mkdir()  # as good as somebody else's, whose lock root can open
    with folders[1].locked():
        assert main(["prune", "--runs", str(tmp_path)]) == 0
    assert [folder.checkpoints.exists() for folder in folders] == [False, True, True, False]
    printed = capsys.readouterr()
    in_use, not_ours = printed.err.splitlines()
    assert in_use == f"left out: {folders[1].path}: process {os.getpid()} is using this run now"
    assert not_ours.startswith("left out: ")
    assert str(folders[2].lock) in not_ours
    assert "2.0 MB freed: the checkpoints of 2 ended runs" in printed.out
    assert str(folders[1].path) not in printed.out


@pytest.mark.parametrize("words", ["prune --runs", "run baseline --cache", "sample baseline --out"])
def test_a_tilde_is_the_home_folder_in_every_path(monkeypatch, words):
    """No shell reads the one in make's RUNS=~/runs."""
    monkeypatch.setenv("HOME", "/home/me")
    options = parser().parse_args([*words.split(), "~/there"])
    assert str(getattr(options, words.partition("--")[2])) == "/home/me/there"
