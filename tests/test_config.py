"""Experiments as data: the four files, their diffs, and every mistake one can make in one."""

import re
import shutil
from pathlib import Path
from typing import get_args

import pytest

from dcgan import config
from dcgan.config import differences, experiment_names, load
from dcgan.networks import IMAGE_SIZES
from dcgan.tools import plain_yaml
from dcgan.tools.plain_yaml import ConfigError


@pytest.mark.parametrize("profile", config.profile_names())
def test_every_experiment_loads_in_every_profile_and_asks_a_question(profile):
    for name in experiment_names():
        assert load(name, profile=profile).question.endswith("?"), name


def test_the_baseline_is_the_papers_dcgan():
    baseline = load("baseline", profile="full")
    assert config.settings(baseline) == {
        "image_size": 64,
        "batch_size": 128,
        "latent_dim": 100,
        "steps": 40000,
        "duration_multiplier": 1,
        "width_multiplier": 1,
        "images": "all",
        "precision": "auto",
        "threads": "auto",
        "deterministic": False,
        "batchnorm_over": "batch",
        "seed": 0,
        "snapshots": 20,
        "crop_px": None,
        "weight_init.kind": "pytorch",
        "weight_init.std": 0.02,
        "weight_init.batchnorm_mean": 1.0,
        "generator.learning_rate": 2e-4,
        "generator.weight_decay": 0,
        "generator.width_multiplier": 1,
        "discriminator.learning_rate": 2e-4,
        "discriminator.weight_decay": 0,
        "discriminator.width_multiplier": 1,
        "adam.betas": [0.5, 0.999],
    }
    assert baseline.generator_channels == 1024
    assert baseline.total_steps == 40000


INIT = {"weight_init.kind": ("pytorch", "normal"), "weight_init.batchnorm_mean": (1.0, 0.0)}
DECAY = {"generator.weight_decay": (0.0, 1e-6), "discriminator.weight_decay": (0.0, 1e-4)}
SLOW_D = {"discriminator.learning_rate": (2e-4, 1e-4)}
#: By experiment: its parent, and how it differs from it.
DOCUMENTED = {
    "regularized": ("baseline", INIT | DECAY),
    "tuned_lr": ("regularized", SLOW_D),
    "hires_128": ("tuned_lr", {"image_size": (64, 128)}),
    "slow_d_only": ("baseline", SLOW_D),
    "canonical_init": ("tuned_lr", {"weight_init.batchnorm_mean": (0.0, 1.0)}),
    "init_only": ("baseline", INIT),
    "decay_only": ("baseline", DECAY),
    "hires_128_equal_lr": ("hires_128", {"discriminator.learning_rate": (1e-4, 2e-4)}),
    "hires_128_strong_d": ("hires_128", {"discriminator.width_multiplier": (1.0, 2.0)}),
    "hires_128_longer": ("hires_128", {"duration_multiplier": (1.0, 2.0)}),
    "ttur": (
        "baseline",
        {"generator.learning_rate": (2e-4, 5e-4), "discriminator.learning_rate": (2e-4, 1e-5)},
    ),
}


@pytest.mark.parametrize("name", DOCUMENTED)
def test_each_run_differs_from_its_parent_as_documented_and_in_nothing_else(name):
    parent, diff = DOCUMENTED[name]
    for profile in config.profile_names():
        run = load(name, profile=profile)
        assert run.extends == parent
        assert differences(load(parent, profile=profile), run) == diff


@pytest.mark.parametrize("profile", config.profile_names())
def test_a_profile_changes_how_much_and_never_what(profile):
    changed = differences(load("tuned_lr", profile="full"), load("tuned_lr", profile=profile))
    assert set(changed) <= {"steps", "width_multiplier", "images", "snapshots"}
    assert not changed or profile != "full"


def test_a_profile_multiplies_with_what_an_experiment_asks():
    asked = ["duration_multiplier=2", "discriminator.width_multiplier=1.5"]
    plain, twice = load("baseline", profile="laptop"), load("baseline", profile="laptop", overrides=asked)
    assert twice.total_steps == 2 * plain.total_steps
    assert twice.discriminator_channels == 1.5 * plain.discriminator_channels
    assert twice.generator_channels == plain.generator_channels


def test_snapshots_are_evenly_spaced_and_end_with_the_run():
    run = load("baseline", profile="laptop", overrides=["steps=1000", "snapshots=4"])
    assert run.snapshot_steps == [250, 500, 750, 1000]
    assert load("baseline", profile="laptop", overrides=["steps=3", "snapshots=10"]).snapshot_steps == [1, 2, 3]


@pytest.mark.parametrize("spelling", ["2e-4", "2.0e-4", "0.0002", "2E-4", "+2e-4"])
def test_every_spelling_of_a_number_is_one(spelling):
    run = load("tuned_lr", profile="full", overrides=[f"discriminator.learning_rate={spelling}"])
    assert run.discriminator.learning_rate == 2e-4


def test_overrides_and_only_they_are_in_the_folders_name():
    plain = load("tuned_lr", profile="smoke")
    assert plain.slug == "tuned_lr"
    assert load("tuned_lr", profile="smoke", overrides=["image_size=64"]).slug == "tuned_lr", "changes nothing"
    assert load("tuned_lr", profile="smoke", seed=5, overrides=["threads=1"]).slug == "tuned_lr", "how, not what"
    one = load("tuned_lr", profile="smoke", overrides=["batch_size=64", "latent_dim=50"])
    other_order = load("tuned_lr", profile="smoke", overrides=["latent_dim=50", "batch_size=64"])
    another = load("tuned_lr", profile="smoke", overrides=["batch_size=64"])
    assert one.overrides == {"batch_size": 64, "latent_dim": 50}
    assert one.slug == other_order.slug == "tuned_lr+batch_size=64,latent_dim=50"
    assert another.slug == "tuned_lr+batch_size=64"


def test_a_pair_in_the_folders_name_and_changes_too_long_for_one():
    betas = load("tuned_lr", profile="smoke", overrides=["adam.betas=[0.4, 0.9]"])
    assert betas.slug == "tuned_lr+adam.betas=0.4,0.9"
    assert config.from_record(config.to_record(betas), "config.yaml").slug == betas.slug
    long = ["generator.learning_rate=1e-3", "discriminator.learning_rate=1e-3"]
    assert re.fullmatch(r"tuned_lr\+[0-9a-f]{8}", load("tuned_lr", profile="smoke", overrides=long).slug)


def test_the_record_brings_the_experiment_back(tmp_path):
    run = load("hires_128", profile="laptop", seed=3, overrides=["adam.betas=[0.4, 0.9]", "crop_px=100"])
    text = plain_yaml.dump({**config.to_record(run), "environment": {"device": "cpu"}})
    path = tmp_path / "config.yaml"
    path.write_text(text)
    assert config.from_record(plain_yaml.read(path), path) == run


def test_a_record_from_before_two_settings_has_their_defaults():
    run = load("baseline", profile="smoke")
    record = {k: v for k, v in config.to_record(run).items() if k not in ("deterministic", "batchnorm_over")}
    assert config.from_record(record, Path("config.yaml")) == run


def test_a_record_of_another_version_is_an_error_that_names_its_file():
    with pytest.raises(ConfigError, match=r"config\.yaml: name: missing or not valid in this version.*--fresh"):
        config.from_record({}, Path("config.yaml"))


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A copy of the lab's experiments, in their place."""
    copy = shutil.copytree(config.EXPERIMENTS, tmp_path / "experiments")
    monkeypatch.setattr(config, "EXPERIMENTS", copy)
    return copy


def test_two_files_of_one_name_are_refused(folder):
    (folder / "follow_up" / "tuned_lr.yaml").write_text("extends: baseline\n")
    with pytest.raises(ConfigError, match=r"'tuned_lr' could be any of .*tuned_lr.yaml, .*follow_up"):
        load("hires_128", profile="smoke")


MISTAKES = {
    "learnin_rate=1e-4": ["unknown key 'learnin_rate'", "did you mean generator.learning_rate"],
    "generator.learnig_rate=1e-4": ["unknown key 'generator.learnig_rate'", "did you mean generator.learning_rate"],
    "generator.learning_rate=0": ["generator.learning_rate: 0 ", "greater than 0"],
    "generator.learning_rate=-1e-4": ["greater than 0"],
    "generator.learning_rate=fast": ["'fast'", "number"],
    "generator.learning_rate=.nan": ["finite"],
    "generator=3": ["generator: should be a block of learning_rate, weight_decay, width_multiplier, not 3"],
    "weight_init=normal": ["weight_init: should be a block of kind, std, batchnorm_mean, not 'normal'"],
    "steps=1.5": ["steps: 1.5", "integer"],
    "steps=true": ["steps: True", "integer"],
    "steps=0": ["steps: 0", "greater than or equal to 1"],
    "batch_size=1": ["greater than or equal to 2"],
    "images=some": ["'all'", "integer"],
    "precision=fp64": ["'auto', 'bf16' or 'fp32'"],
    "adam.betas=[0.5]": ["adam.betas"],
    "adam.betas=[0.5, 1.5]": ["adam.betas", "less than 1"],
    "steps": ["key=value"],
    "=3": ["key=value"],
    "steps={": ["not YAML"],
    "steps={[1]: 2}": ["not YAML: a key should be a word"],
    "width_multiplier=1e308": ["less than or equal to 16"],
    "duration_multiplier=1e308": ["less than or equal to 1000"],
    "extends=baseline": ["not a setting; edit the experiment's file"],
    "profile=laptop": ["not a setting; PROFILE= (--profile) sets it"],
    "discriminator={1: 2}": ["discriminator.1: a setting's name is a word"],
    "image_size=100": ["image_size: 100 is not allowed; it should be 32, 64, 128 or 256"],
}


@pytest.mark.parametrize("override", MISTAKES)
def test_a_mistake_in_an_override_is_one_line_that_names_it(override):
    with pytest.raises(ConfigError) as caught:
        load("tuned_lr", profile="smoke", overrides=[override])
    message = str(caught.value)
    assert message.startswith(f"--set {override}")
    assert "\n" not in message
    for part in MISTAKES[override]:
        assert part in message


FILES = {
    "extends: baseline\nsteps: [1, 2": "line 2: not YAML",
    "extends: baseline\nsteps: 1\nsteps: 2\n": "line 3: not YAML: 'steps' is given twice",
    "extends: baseline\ngenerator:\n  learning_rate: 0\n": "generator.learning_rate: 0 ",
    "extends: baseline\nimage_sise: 64\n": "did you mean image_size",
    "extends: basline\n": "did you mean baseline",
    "extends: [baseline]\n": "extends",
    "extends: mine\n": "circle",
    "image_size: 64\n": "missing",
    "- a\n- list\n": "key: value",
    "name: other\nextends: baseline\n": "name",
}


def test_a_file_named_like_an_experiment_would_share_its_folder_and_is_refused(tmp_path):
    path = tmp_path / "tuned_lr.yaml"
    path.write_text("extends: tuned_lr\n")
    with pytest.raises(ConfigError, match=r"tuned_lr\.yaml: there is an experiment tuned_lr already; rename the file"):
        load(str(path), profile="smoke")
    path.unlink()
    with pytest.raises(ConfigError, match=r"tuned_lr\.yaml: no such file; the experiment tuned_lr is EXP=tuned_lr"):
        load(str(path), profile="smoke")


def test_a_file_named_like_the_folder_of_a_seed_is_refused(tmp_path):
    path = tmp_path / "seed-3.yaml"
    path.write_text("extends: tuned_lr\n")
    with pytest.raises(ConfigError, match=r"'seed-3' can't name a run's folder; .* and not seed-<n>"):
        load(str(path), profile="smoke")


@pytest.mark.parametrize("number", ["010", "1:30", "0x10", "1:30.5"])
def test_a_number_that_yaml_reads_in_another_way_than_people_is_refused(number):
    with pytest.raises(ConfigError, match=f"{number} is not a plain decimal number"):
        load("tuned_lr", profile="smoke", overrides=[f"batch_size={number}"])


@pytest.mark.parametrize("text", FILES)
def test_a_mistake_in_a_file_names_the_file(text, folder):
    (folder / "mine.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load("mine", profile="smoke")
    message = str(caught.value)
    assert "mine.yaml" in message
    assert FILES[text] in message
    assert "\n" not in message


@pytest.mark.parametrize("ending", ["yaml", "yml"])
def test_an_experiment_is_found_by_name_anywhere_and_by_the_path_of_its_file(ending, tmp_path, folder):
    deep = folder / "follow_up" / "more" / f"slow_d.{ending}"
    deep.parent.mkdir(parents=True)
    deep.write_text("extends: baseline\nquestion: Why?\ndiscriminator: {learning_rate: 1e-4}\n")
    assert load("slow_d", profile="smoke").discriminator.learning_rate == 1e-4
    elsewhere = tmp_path / "own.yaml"
    elsewhere.write_text("extends: slow_d\nbatch_size: 7\n")
    own = load(str(elsewhere), profile="smoke")
    assert (own.name, own.batch_size, own.extends) == ("own", 7, "slow_d")


def test_the_sizes_that_may_be_asked_for_are_those_of_the_networks():
    assert get_args(config.Experiment.model_fields["image_size"].annotation) == IMAGE_SIZES


def test_a_text_that_looks_like_a_number_comes_back_as_a_text():
    record = {"fingerprint": "1234567e89012345", "rate": 2e-4, "name": "12"}
    assert plain_yaml.parse(plain_yaml.dump(record), where="here") == record
