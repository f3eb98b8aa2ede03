"""Experiment files: YAML with `extends`, a profile and overrides -> one frozen, validated `Experiment`.

Later layers win: the files of the experiment's ancestors from the root down, its own file, the profile, then `--seed`
and `--set`. Every value that reaches a run has passed through here, and the record in the run folder is this object
written out.
"""

import difflib
import hashlib
import json
import re
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from dcgan.tools import plain_yaml
from dcgan.tools.files import user_path
from dcgan.tools.plain_yaml import ConfigError

EXPERIMENTS = Path(__file__).resolve().parent.parent / "experiments"

#: Names of experiments; they become folder names, and '..' would escape `runs`.
NAME = r"(?!seed-\d+$)\w[\w .,()=-]{0,99}"

#: Channels at the 4x4 end with every multiplier at 1 (the paper's figure 1).
FULL_CHANNELS = 1024


class Settings(BaseModel):
    """A block of an experiment: exact types, no unknown keys, immutable."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class WeightInitSettings(Settings):
    kind: Literal["pytorch", "normal"]
    std: Annotated[float, Field(gt=0)]
    batchnorm_mean: float


class NetworkSettings(Settings):
    learning_rate: Annotated[float, Field(gt=0)]
    weight_decay: Annotated[float, Field(ge=0)]
    width_multiplier: Annotated[float, Field(gt=0, le=16)]


Beta = Annotated[float, Field(ge=0, lt=1)]


def _pair(value: Any) -> tuple:
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise ValueError("a pair of numbers, like [0.5, 0.999]")
    return tuple(value)


class AdamSettings(Settings):
    betas: Annotated[tuple[Beta, Beta], BeforeValidator(_pair)]


class Experiment(Settings):
    """One run, fully resolved. `experiments/baseline.yaml` has the unit and the origin of each value."""

    name: str
    extends: str | None = None
    question: str
    profile: str
    overrides: dict[str, Any]  # what --set changed of the recipe, by dotted key

    # The upper bounds are far above any real value; they catch a typo before it exhausts memory.
    image_size: Literal[32, 64, 128, 256]  # `networks.IMAGE_SIZES`
    batch_size: Annotated[int, Field(ge=2, le=100_000)]  # BatchNorm has no variance over one image
    latent_dim: Annotated[int, Field(ge=1, le=100_000)]
    steps: Annotated[int, Field(ge=1, le=10**9)]
    duration_multiplier: Annotated[float, Field(gt=0, le=1000)]
    width_multiplier: Annotated[float, Field(gt=0, le=16)]
    images: Literal["all"] | Annotated[int, Field(ge=1, le=10**8)]
    precision: Literal["auto", "bf16", "fp32"]
    threads: Literal["auto"] | Annotated[int, Field(ge=1, le=1024)]
    deterministic: bool = False  # this and the next have defaults because older records lack them
    batchnorm_over: Literal["batch", "share"] = "batch"
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    snapshots: Annotated[int, Field(ge=1, le=10_000)]
    crop_px: Annotated[int, Field(ge=1, le=100_000)] | None
    weight_init: WeightInitSettings
    generator: NetworkSettings
    discriminator: NetworkSettings
    adam: AdamSettings

    @property
    def total_steps(self) -> int:
        """Steps of the whole run: the profile's steps times the experiment's multiplier."""
        return max(1, round(self.steps * self.duration_multiplier))

    @property
    def generator_channels(self) -> int:
        return self._channels(self.generator)

    @property
    def discriminator_channels(self) -> int:
        return self._channels(self.discriminator)

    def _channels(self, network: NetworkSettings) -> int:
        """Return a network's channels at the 4x4 end."""
        return max(1, round(FULL_CHANNELS * self.width_multiplier * network.width_multiplier))

    @property
    def snapshot_steps(self) -> list[int]:
        """The steps after which a snapshot is kept, evenly spaced up to the run's last step."""
        return sorted({max(1, self.total_steps * i // self.snapshots) for i in range(1, self.snapshots + 1)})

    @property
    def slug(self) -> str:
        """The experiment's folder name, different for every recipe: `tuned_lr`, `tuned_lr+batch_size=64`.

        Where the changes are too long for a name, they are replaced by a hash: `tuned_lr+1a2b3c4d`.
        """
        if not self.overrides:
            return self.name
        canonical = json.dumps(self.overrides, sort_keys=True)
        changes = re.sub(r'[{}"\[\] ]', "", canonical).replace(":", "=")
        if len(changes) > LONGEST_CHANGES:
            changes = hashlib.sha256(canonical.encode()).hexdigest()[:8]
        return f"{self.name}+{changes}"


LONGEST_CHANGES = 48  # characters of a folder's name that say what --set changed

#: Settings that are not part of the recipe: they don't count as overrides and don't change the folder's name.
HOW = ("seed", "threads", "deterministic")

#: Keys that identify an experiment; all others are settings, which `--set` and diffs are about.
IDENTITY = ("name", "extends", "question", "profile", "overrides")

#: Those that an experiment's file can't set, and where each comes from.
SET_OTHERWISE = {
    "name": "it is the file's own name",
    "profile": "PROFILE= (--profile) sets it",
    "overrides": "it records what SET= (--set) changed",
}

#: The settings that are blocks of settings.
BLOCKS: dict[str, type[Settings]] = {
    name: field.annotation
    for name, field in Experiment.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, Settings)
}

Layer = tuple[str, dict[str, Any]]  # (where it comes from, for messages; its values)


def load(name: str, *, profile: str, overrides: Sequence[str] = (), seed: int | None = None) -> Experiment:
    """Resolve the experiment `name` (or the path of a YAML file) under `profile`.

    overrides: "dotted.key=value" strings, values read as YAML.
    Raises ConfigError, naming file, key, value and what is allowed.
    """
    name, layers = _file_layers(name)
    own = layers[-1][1]
    identity = {
        "name": name,
        "extends": own.get("extends"),
        "question": own.get("question", ""),  # not inherited
        "profile": profile,
        "overrides": {},
    }
    if profile not in profile_names():  # the file's existence is not enough: '../baseline' has one
        raise ConfigError(f"no profile {profile!r}; there are {', '.join(profile_names())}")
    _validate(layers, identity)  # finds a mistake that the profile would hide

    path = EXPERIMENTS / "profiles" / f"{profile}.yaml"
    layers.append((_shown(path), plain_yaml.read(path, where=_shown(path))))
    profiled = _validate(layers, identity)

    if seed is not None:
        layers.append(("--seed", {"seed": seed}))
    layers += [(f"--set {override}", _parse_override(override)) for override in overrides]
    resolved = _validate(layers, identity)

    overridden = {key: new for key, (_, new) in differences(profiled, resolved).items() if key not in HOW}
    return resolved.model_copy(update={"overrides": overridden})


def from_record(record: Mapping[str, Any], where: Path) -> Experiment:
    """Return the experiment recorded in a run folder's `config.yaml`, the file `where`.

    Raises ConfigError if another version of the lab wrote it and it does not fit.
    """
    known = {key: value for key, value in record.items() if key in Experiment.model_fields}
    try:
        return Experiment.model_validate(known)
    except ValidationError as error:
        key = _key_of(error.errors()[0]["loc"])
        raise ConfigError(
            f"{where}: {key}: missing or not valid in this version of the lab; --fresh (FRESH=1) trains the run again"
        ) from error


def to_record(experiment: Experiment) -> dict[str, Any]:
    """Return the experiment as plain values that `from_record` reads back."""
    return experiment.model_dump(mode="json")


def settings(experiment: Experiment) -> dict[str, Any]:
    """Return the experiment's settings by dotted key: {"image_size": 64, ..., "generator.learning_rate": 2e-4}."""
    return _flatten(experiment.model_dump(mode="json", exclude=set(IDENTITY)))


def differences(old: Experiment, new: Experiment) -> dict[str, tuple[Any, Any]]:
    """Return the settings in which two experiments differ: {"discriminator.learning_rate": (2e-4, 1e-4)}."""
    before, after = settings(old), settings(new)
    return {key: (before[key], after[key]) for key in before if before[key] != after[key]}


def experiment_names() -> list[str]:
    """List the lab's experiments, the documented ones first, then the follow-ups."""
    return [path.stem for path in _experiment_files()]


def profile_names() -> list[str]:
    return sorted(path.stem for path in (EXPERIMENTS / "profiles").glob("*.yaml"))


# --- files and overrides ---


def _file_layers(name: str) -> tuple[str, list[Layer]]:
    """Read the experiment's file and its ancestors', the root first; return the experiment's name, too."""
    path = user_path(name) if name.endswith((".yaml", ".yml")) else _find(name)
    for known in _experiment_files():
        if known.stem == path.stem and known.resolve() != path.resolve():
            if not path.exists():
                raise ConfigError(f"{_shown(path)}: no such file; the experiment {path.stem} is EXP={path.stem}")
            raise ConfigError(f"{_shown(path)}: there is an experiment {path.stem} already; rename the file")
    layers: list[Layer] = []
    names: list[str] = []
    while True:
        where, content = _shown(path), plain_yaml.read(path, where=_shown(path))
        for key, how in SET_OTHERWISE.items():
            if key in content:
                raise ConfigError(f"{where}: {key}: can't be set in an experiment's file; {how}")
        layers.insert(0, (where, content))
        names.append(path.stem)
        parent = content.get("extends")
        if parent is None:
            break
        if not isinstance(parent, str):
            raise ConfigError(f"{where}: extends: {parent!r} is not the name of an experiment")
        path = _find(parent, where=f"{where}: extends: ")
        if parent in names:
            raise ConfigError(f"{_shown(path)}: extends: goes in a circle: {' -> '.join([*names, parent])}")
    if not re.fullmatch(NAME, names[0]):
        raise ConfigError(
            f"{layers[-1][0]}: {names[0]!r} can't name a run's folder; rename the file: at most 100 letters, digits, "
            "spaces and _ - . , ( ) =, starting with a letter or a digit, and not seed-<n>"
        )
    return names[0], layers


def _find(name: str, *, where: str = "") -> Path:
    files = _experiment_files()
    matches = [path for path in files if path.stem == name]
    if not matches:
        known = [path.stem for path in files]
        raise ConfigError(f"{where}no experiment {name!r}{_suggestion(name, known)}; there are {', '.join(known)}")
    if len(matches) > 1:
        raise ConfigError(f"{name!r} could be any of {', '.join(map(_shown, matches))}; rename all but one")
    return matches[0]


def _experiment_files() -> list[Path]:
    sweep = EXPERIMENTS / "sweep.yaml"  # W&B's, not an experiment
    files = [path for path in EXPERIMENTS.rglob("*.y*ml") if path.parent.name != "profiles" and path != sweep]
    return sorted(files, key=lambda path: (len(path.parts), path.name))


def _parse_override(override: str) -> dict[str, Any]:
    """Turn "generator.learning_rate=1e-4" into {"generator": {"learning_rate": 1e-4}}."""
    key, equals, value = override.partition("=")
    key = key.strip()
    if not key or not equals:
        raise ConfigError(f'--set {override}: write key=value, for example --set batch_size=64 (SET="batch_size=64")')
    if (name := key.split(".")[0]) in IDENTITY:
        how = SET_OTHERWISE.get(name, "edit the experiment's file instead")
        raise ConfigError(f"--set {override}: {key} is not a setting; {how}")
    nested = plain_yaml.parse(value, where=f"--set {override}")
    for part in reversed(key.split(".")):
        nested = {part: nested}
    return nested


# --- validation, and messages about it ---


def _validate(layers: Sequence[Layer], identity: Mapping[str, Any]) -> Experiment:
    merged: dict[str, Any] = {}
    for _, content in layers:
        _merge(merged, content)
    try:
        return Experiment.model_validate({**merged, **identity})
    except ValidationError as error:
        raise ConfigError(_explain(error, layers)) from error


def _explain(error: ValidationError, layers: Sequence[Layer]) -> str:
    """Put the first of pydantic's complaints in one line: where, key, value, what is allowed."""
    problems = error.errors()
    first = problems[0]
    key = _key_of(first["loc"])
    if first["type"] == "extra_forbidden":
        block = BLOCKS.get(key.split(".")[0], Experiment)
        allowed = [field for field in block.model_fields if field not in IDENTITY]
        return (
            f"{_origin(key, layers)}: unknown key {key!r}{_suggestion(key, _setting_keys())}; "
            f"allowed here: {', '.join(allowed)}"
        )
    if first["type"] == "missing":
        return f"{layers[0][0]}: {key}: missing; add it, or `extends: baseline`, which has every setting"
    if first["type"] == "invalid_key":
        return f"{_origin(key, layers)}: {key}: a setting's name is a word"
    if first["type"] == "model_type":
        inner = ", ".join(BLOCKS[key].model_fields)
        return f"{_origin(key, layers)}: {key}: should be a block of {inner}, not {reprlib.repr(first['input'])}"
    # A union ("all" or a number) has a complaint for each branch: report all of them.
    allowed = [problem["msg"] for problem in problems if _key_of(problem["loc"]) == key]
    allowed = [re.sub(r"^(Input should be|Value error,) ", "", message) for message in dict.fromkeys(allowed)]
    value = reprlib.repr(first["input"])
    return f"{_origin(key, layers)}: {key}: {value} is not allowed; it should be {' or '.join(allowed)}"


def _key_of(location: tuple[str | int, ...]) -> str:
    """Turn pydantic's location into our dotted key; the rest is union branches and list indices."""
    return ".".join(map(str, location[: 2 if location[0] in BLOCKS else 1]))


def _setting_keys() -> list[str]:
    keys = []
    for name in Experiment.model_fields:
        if name in BLOCKS:
            keys += [f"{name}.{inner}" for inner in BLOCKS[name].model_fields]
        elif name not in IDENTITY:
            keys.append(name)
    return keys


def _origin(key: str, layers: Sequence[Layer]) -> str:
    """Return where a dotted key was set last."""
    for where, content in reversed(layers):
        node: Any = content
        for part in key.split("."):
            if not isinstance(node, Mapping) or part not in node:
                break
            node = node[part]
        else:
            return where
    return layers[-1][0]


def _merge(base: dict[str, Any], change: Mapping[str, Any]) -> None:
    for key, value in change.items():
        if isinstance(value, Mapping) and isinstance(base.get(key), dict):
            _merge(base[key], value)
        else:
            base[key] = dict(value) if isinstance(value, Mapping) else value


def _flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _shown(path: Path) -> str:
    return str(path.relative_to(EXPERIMENTS.parent)) if path.is_relative_to(EXPERIMENTS.parent) else str(path)


def _suggestion(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f" (did you mean {close[0]}?)" if close else ""
