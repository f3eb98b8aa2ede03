"""Experiment files: YAML with `extends`, a profile and overrides -> one frozen, validated `Experiment`.

Layers, the later one wins: the ancestors' files from the root down, the experiment's own file, the
profile, then `--seed` and `--set`. Every value that reaches a run has passed through here, and the
record in the run folder is this object written out.
"""

import difflib
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from dcgan.tools import plain_yaml
from dcgan.tools.plain_yaml import ConfigError

EXPERIMENTS = Path(__file__).resolve().parent.parent / "experiments"

#: What an experiment's file may be called, as its runs' folder is called so too: '...yaml' would lead out of it.
NAME = r"\w[\w .,()=-]{0,99}"

#: Channels at the 4x4 end with every multiplier at 1 (the paper's figure 1).
FULL_CHANNELS = 1024


class Settings(BaseModel):
    """What every block of an experiment has in common: exact types, no unknown keys, no later change."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class WeightInit(Settings):
    kind: Literal["pytorch", "normal"]
    std: Annotated[float, Field(gt=0)]
    batchnorm_mean: float


class Network(Settings):
    learning_rate: Annotated[float, Field(gt=0)]
    weight_decay: Annotated[float, Field(ge=0)]
    width_multiplier: Annotated[float, Field(gt=0, le=16)]


Beta = Annotated[float, Field(ge=0, lt=1)]


def _pair(value: Any) -> tuple:
    """YAML knows lists, not pairs."""
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise ValueError("a pair of numbers, like [0.5, 0.999]")
    return tuple(value)


class Adam(Settings):
    betas: Annotated[tuple[Beta, Beta], BeforeValidator(_pair)]


class Experiment(Settings):
    """One run, fully resolved. Units and origins of the values: `experiments/baseline.yaml`."""

    name: str
    extends: str | None = None
    question: str
    profile: str
    profile_changes: dict[str, Any]  # what the profile changed, by dotted key
    overrides: dict[str, Any]  # what --set changed of the recipe, by dotted key

    # The upper bounds are far beyond any use: a slip of the finger is told here, and not by a full memory.
    image_size: int
    batch_size: Annotated[int, Field(ge=2, le=100_000)]  # BatchNorm has no variance over one image
    latent_dim: Annotated[int, Field(ge=1, le=100_000)]
    steps: Annotated[int, Field(ge=1, le=10**9)]
    duration_multiplier: Annotated[float, Field(gt=0, le=1000)]
    width_multiplier: Annotated[float, Field(gt=0, le=16)]
    images: Literal["all"] | Annotated[int, Field(ge=1, le=10**8)]
    precision: Literal["auto", "bf16", "fp32"]
    threads: Literal["auto"] | Annotated[int, Field(ge=1, le=1024)]
    deterministic: bool = False  # this and the next have defaults, as there are records from before them
    batchnorm_over: Literal["batch", "share"] = "batch"
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    snapshots: Annotated[int, Field(ge=1, le=10_000)]
    crop_px: Annotated[int, Field(ge=1, le=100_000)] | None
    weight_init: WeightInit
    generator: Network
    discriminator: Network
    adam: Adam

    @property
    def total_steps(self) -> int:
        """Steps of the whole run: what the profile affords times what the experiment asks."""
        return max(1, round(self.steps * self.duration_multiplier))

    @property
    def generator_channels(self) -> int:
        """The generator's channels at the 4x4 end."""
        return self._channels(self.generator)

    @property
    def discriminator_channels(self) -> int:
        """The discriminator's channels at the 4x4 end."""
        return self._channels(self.discriminator)

    def _channels(self, network: Network) -> int:
        return max(1, round(FULL_CHANNELS * self.width_multiplier * network.width_multiplier))

    @property
    def snapshot_steps(self) -> list[int]:
        """The steps after which a snapshot is kept, evenly spaced; the last one is the run's last."""
        return sorted({max(1, self.total_steps * i // self.snapshots) for i in range(1, self.snapshots + 1)})

    @property
    def slug(self) -> str:
        """The experiment's folder name; two recipes never share one: `tuned_lr`, `tuned_lr+1a2b3c4d`."""
        if not self.overrides:
            return self.name
        canonical = json.dumps(self.overrides, sort_keys=True)
        return f"{self.name}+{hashlib.sha256(canonical.encode()).hexdigest()[:8]}"


#: Settings that are not part of the recipe: they neither name the run's folder nor count as overrides.
HOW = ("seed", "threads", "deterministic")

#: Keys that say what an experiment is; all others are settings, which --set and diffs speak of.
IDENTITY = ("name", "extends", "question", "profile", "profile_changes", "overrides")


def settings(experiment: Experiment) -> dict[str, Any]:
    """The experiment's settings by dotted key: {"image_size": 64, ..., "generator.learning_rate": 2e-4}."""
    return _flatten(experiment.model_dump(mode="json", exclude=set(IDENTITY)))


def differences(old: Experiment, new: Experiment) -> dict[str, tuple[Any, Any]]:
    """The settings in which two experiments differ: {"discriminator.learning_rate": (2e-4, 1e-4)}."""
    before, after = settings(old), settings(new)
    return {key: (before[key], after[key]) for key in before if before[key] != after[key]}


def experiment_names(folder: Path = EXPERIMENTS) -> list[str]:
    """Every experiment under `folder` by name, the documented ones first, then the follow-ups."""
    return [path.stem for path in _experiment_files(folder)]


def load(
    name: str,
    *,
    profile: str,
    overrides: Sequence[str] = (),
    seed: int | None = None,
    folder: Path = EXPERIMENTS,
    checks: Mapping[str, Callable[[Any], Any]] | None = None,
) -> Experiment:
    """Resolve the experiment `name` (or the path of a YAML file) under `profile`.

    overrides: "dotted.key=value" strings, values read as YAML.
    checks: by key, functions that raise ValueError for a value that no type can rule out.

    Raises ConfigError, naming file, key, value and what is allowed.
    """
    layers = _file_layers(name, folder)
    own = layers[-1][1]
    identity = {
        "name": own.pop("name"),
        "extends": own.get("extends"),
        "question": own.get("question", ""),  # an ancestor's question is not this one's
        "profile": profile,
        "profile_changes": {},
        "overrides": {},
    }
    profile_path = folder / "profiles" / f"{profile}.yaml"
    if profile not in profile_names(folder):  # and not whether the file is there: '../baseline' would be
        raise ConfigError(f"no profile {profile!r}; there is {', '.join(profile_names(folder))}")

    asked = _validate(layers, identity)
    layers.append((_shown(profile_path), plain_yaml.read(profile_path, where=_shown(profile_path))))
    afforded = _validate(layers, identity)
    if seed is not None:
        layers.append(("--seed", {"seed": seed}))
    layers += [(f"--set {override}", _parse_override(override)) for override in overrides]
    resolved = _validate(layers, identity)
    _run_checks(resolved, layers, checks or {})

    changes = {key: new for key, (_, new) in differences(asked, afforded).items()}
    overridden = {key: new for key, (_, new) in differences(afforded, resolved).items() if key not in HOW}
    return resolved.model_copy(update={"profile_changes": changes, "overrides": overridden})


def from_record(record: Mapping[str, Any], where: Path) -> Experiment:
    """The experiment that a run folder's `config.yaml`, the file `where`, recorded.

    Raises ConfigError if it was written by another version and does not fit.
    """
    known = {key: value for key, value in record.items() if key in Experiment.model_fields}
    try:
        return Experiment.model_validate(known)
    except ValidationError as error:
        key, _ = _key_of(error.errors()[0]["loc"])
        raise ConfigError(
            f"{where}: {key}: missing or not of this version of the lab; --fresh (FRESH=1) trains the run anew"
        ) from error


def to_record(experiment: Experiment) -> dict[str, Any]:
    """The experiment as plain values that `from_record` reads back."""
    return experiment.model_dump(mode="json")


def _parse_override(override: str) -> dict[str, Any]:
    key, equals, value = override.partition("=")
    key = key.strip()
    if not key or not equals:
        raise ConfigError(f"--set {override}: write key=value, for example --set batch_size=64")
    if key.split(".")[0] in IDENTITY:
        raise ConfigError(f"--set {override}: {key} is not a setting; edit the experiment's file instead")
    nested: Any = plain_yaml.parse(value, where=f"--set {override}")
    for part in reversed(key.split(".")):
        nested = {part: nested}
    return nested


Layer = tuple[str, dict[str, Any]]  # where it comes from, for messages; what it says


def _file_layers(name: str, folder: Path) -> list[Layer]:
    """The experiment's file and its ancestors', the root first, each without its `extends` but the last."""
    files = _experiment_files(folder)
    path = Path(name) if name.endswith((".yaml", ".yml")) else None
    layers: list[Layer] = []
    seen: list[str] = []
    wanted: str | None = name if path is None else path.stem
    while wanted is not None:
        if seen or path is None:
            path = next((file for file in files if file.stem == wanted), None)
            if (others := [_shown(file) for file in files if file.stem == wanted])[1:]:
                raise ConfigError(f"{wanted!r} could be any of {', '.join(others)}; rename all but one")
        if path is None or not path.is_file():
            asked = f"{layers[0][0]}: extends: " if layers else ""
            known = [file.stem for file in files]
            raise ConfigError(
                f"{asked}no experiment {wanted!r}{_suggestion(wanted, known)}; there is {', '.join(known)}"
            )
        if wanted in seen:
            raise ConfigError(f"{_shown(path)}: extends: goes in a circle: {' -> '.join([*seen, wanted])}")
        seen.append(wanted)
        content = plain_yaml.read(path, where=_shown(path))
        for key in ("name", "profile", "profile_changes", "overrides"):
            if key in content:
                raise ConfigError(f"{_shown(path)}: {key}: not for a file; the command line says it")
        parent = content.get("extends")
        if parent is not None and not isinstance(parent, str):
            raise ConfigError(f"{_shown(path)}: extends: {parent!r} is not the name of an experiment")
        layers.insert(0, (_shown(path), content))
        wanted = parent
    if not re.fullmatch(NAME, seen[0]):
        raise ConfigError(
            f"{layers[-1][0]}: {seen[0]!r} can't name a run's folder; rename the file: at most 100 letters, digits, "
            "spaces and _ - . , ( ) = that begin with a letter or a digit"
        )
    layers[-1][1]["name"] = seen[0]
    return layers


def _validate(layers: Sequence[Layer], identity: Mapping[str, Any]) -> Experiment:
    merged: dict[str, Any] = {}
    for _, content in layers:
        _merge(merged, content)
    try:
        return Experiment.model_validate(merged | identity)
    except ValidationError as error:
        raise ConfigError(_explain(error, layers)) from error


def _explain(error: ValidationError, layers: Sequence[Layer]) -> str:
    """The first of pydantic's complaints as one line: where, key, value, what is allowed."""
    problems = error.errors()
    first = problems[0]
    key, block = _key_of(first["loc"])
    if first["type"] == "extra_forbidden":
        allowed = [field for field in block.model_fields if block is not Experiment or field not in IDENTITY]
        return (
            f"{_origin(key, layers)}: unknown key {key!r}{_suggestion(key, _setting_keys())}; "
            f"allowed here: {', '.join(allowed)}"
        )
    if first["type"] == "missing":
        return f"{layers[0][0]}: {key}: missing; add it, or `extends: baseline`, which has every setting"
    # A union ("all" or a number) complains once a branch: tell all of them.
    allowed = [problem["msg"] for problem in problems if _key_of(problem["loc"])[0] == key]
    allowed = [re.sub(r"^(Input should be|Value error,) ", "", message) for message in dict.fromkeys(allowed)]
    return f"{_origin(key, layers)}: {key}: {_told(first['input'])} is not allowed; it should be {' or '.join(allowed)}"


def _told(value: Any) -> str:
    """A value in a message."""
    try:
        return repr(value)
    except (RecursionError, ValueError):  # nested a thousand times by --set a.a.a..., an integer of thousands of digits
        return f"this {type(value).__name__}"


def _key_of(location: tuple[str | int, ...]) -> tuple[str, type[Settings]]:
    """Pydantic's location as our dotted key, and the block that the key stands in."""
    block: type[Settings] = Experiment
    path: list[str] = []
    for part in location:
        path.append(str(part))
        field = block.model_fields.get(str(part))
        inner = field.annotation if field else None
        if not (isinstance(inner, type) and issubclass(inner, Settings)) or part is location[-1]:
            break  # what follows is pydantic's name for a branch of a union, or a list index
        block = inner
    return ".".join(path), block


def _setting_keys(block: type[Settings] = Experiment) -> list[str]:
    """Every dotted key that may be set."""
    keys = []
    for name, field in block.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Settings):
            keys += [f"{name}.{inner}" for inner in _setting_keys(field.annotation)]
        elif name not in IDENTITY:
            keys.append(name)
    return keys


def _origin(key: str, layers: Sequence[Layer]) -> str:
    """Where a dotted key was set last."""
    for where, content in reversed(layers):
        node: Any = content
        for part in key.split("."):
            if not isinstance(node, Mapping) or part not in node:
                break
            node = node[part]
        else:
            return where
    return layers[-1][0]


def _run_checks(experiment: Experiment, layers: Sequence[Layer], checks: Mapping[str, Callable[[Any], Any]]) -> None:
    values = settings(experiment)
    for key, check in checks.items():
        try:
            check(values[key])
        except ValueError as error:
            raise ConfigError(f"{_origin(key, layers)}: {key}: {error}") from error


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


def _experiment_files(folder: Path) -> list[Path]:
    sweep = folder / "sweep.yaml"  # W&B's, and no experiment
    files = [path for path in folder.rglob("*.yaml") if path.parent.name != "profiles" and path != sweep]
    return sorted(files, key=lambda path: (len(path.parts), path.name))


def profile_names(folder: Path = EXPERIMENTS) -> list[str]:
    """The profiles there are."""
    return sorted(path.stem for path in (folder / "profiles").glob("*.yaml"))


def _shown(path: Path) -> str:
    return str(path.relative_to(EXPERIMENTS.parent)) if path.is_relative_to(EXPERIMENTS.parent) else str(path)


def _suggestion(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f" (did you mean {close[0]}?)" if close else ""
