"""One run, from the request to its last status: what `make run`, a study's task and a sweep call."""

import errno
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dcgan import UserError, config
from dcgan.config import Experiment
from dcgan.data import Batches, PackedImages, Source, open_source, pack
from dcgan.device import environment
from dcgan.device.device import Device, use_determinism, use_threads
from dcgan.device.ranks import ALONE, Ranks
from dcgan.record.folder import ENDED, RunFolder, State
from dcgan.record.wandb_client import new_run_id
from dcgan.tools import plain_yaml
from dcgan.tools.files import save
from dcgan.tools.memory import out_of_memory
from dcgan.trainer import train

log = logging.getLogger(__name__)

INPUT_WAIT = 0.05  # share of the time from which waiting for input is worth a warning


@dataclass(frozen=True)
class Request:
    """A request for one run, in plain values that another process or machine can execute."""

    experiment: str  # a name under experiments/, or the path of a YAML file
    profile: str
    runs: Path
    cache: Path
    overrides: tuple[str, ...] = ()  # "dotted.key=value"
    seed: int | None = None  # None: the experiment's
    data: str | None = None  # None: the embedded drawn faces
    fresh: bool = False  # delete what an earlier run left

    def resolved(self) -> Experiment:
        """Return the experiment that is asked for. Raises ConfigError, see `config.load`."""
        return config.load(self.experiment, profile=self.profile, overrides=self.overrides, seed=self.seed)

    def source(self) -> Source:
        """Open the images. Raises DataError where there are none."""
        return open_source(self.data, cache=self.cache)

    def folder(self, experiment: Experiment, source: Source) -> RunFolder:
        """Return the run's folder, which need not exist yet."""
        return RunFolder.locate(
            self.runs, data=source.name, fingerprint=source.fingerprint, profile=experiment.profile,
            slug=experiment.slug, seed=experiment.seed,
        )  # fmt: skip

    def pack(self, experiment: Experiment, source: Source) -> PackedImages:
        """Decode the images that the experiment trains on, or find them in the cache."""
        return pack(
            source, size=experiment.image_size, crop_px=experiment.crop_px, images=experiment.images, cache=self.cache
        )


@dataclass(frozen=True)
class Outcome:
    """The outcome of a run, and its folder."""

    state: State
    folder: RunFolder
    trained: bool  # False: the run had ended before


def run(request: Request, device: Device, *, ranks: Ranks = ALONE) -> Outcome:
    """Train the run that is asked for, or resume it; return how it ended.

    Raises UserError for a request that can't be carried out: bad settings, too few images, a folder that holds another
    run, too little memory or disk.
    """
    experiment = request.resolved()
    with ranks.first_goes_first():  # the others find what it has packed
        source = request.source()
        folder = request.folder(experiment, source)
        if not request.fresh and (earlier := _earlier_record(folder, experiment)):
            ended = folder.read_status().get("state")
            if ended in ENDED:
                if changed := _changed_code(earlier):
                    log.warning("this run was trained with other code (changed since: %s)", changed)
                return Outcome(ended, folder, trained=False)
        images = request.pack(experiment, source)
        with _explained_shortage(experiment, folder, device):  # the first calls to the device
            batches = Batches(
                images.images,
                batch_size=experiment.batch_size,
                seed=experiment.seed,
                device=device.torch,
                share=(ranks.rank, ranks.count),
                on_device=device.has_room(images.images.nbytes),
                pin_memory=device.pins_memory,
                memory_format=device.memory_format,
            )
            bf16 = device.uses_bf16(experiment.precision)
            use_threads(experiment.threads, processes=ranks.local_count)
            use_determinism(experiment.deterministic, device)
            here = environment.describe(device, bf16=bf16, processes=ranks.count)
    with _explained_shortage(experiment, folder, device, batches), folder.locked() if ranks.first else nullcontext():
        record: dict[str, Any] = {}
        with ranks.first_goes_first():
            if ranks.first:
                record = _record(request, folder, experiment, images, here)
        _announce(experiment, source, images, here, folder)
        state = train(experiment, batches, folder, bf16=bf16, record=record, ranks=ranks)
    return Outcome(state, folder, trained=True)


def note_failure(request: Request) -> None:
    """Mark a run as failed if all its processes ended before one of them could do so."""
    with suppress(UserError):  # reported already: there are no images, or others train the run
        folder = request.folder(request.resolved(), request.source())
        status = folder.read_status()
        if status.get("state") == "running":
            with folder.locked():
                folder.write_status(**{**status, "state": "failed", "error": "a process of the run has ended"})


def _announce(
    experiment: Experiment, source: Source, images: PackedImages, here: Mapping[str, Any], folder: RunFolder
) -> None:
    processes = f"{here['processes']} x " if here["processes"] > 1 else ""
    log.info(
        f"{experiment.slug}, seed {experiment.seed}: {experiment.total_steps:,} steps on {images.count:,} images of "
        f"{source.description}"
    )
    where = f"{processes}{here['device']} ({here['device_name']}, threads: {here['threads']}, {here['precision']})"
    log.info(f"on {where}, into {folder.path}")


def summary(outcome: Outcome) -> str:
    """Return how the run ended, how fast it was and where the time went, in lines for a person."""
    folder, state = outcome.folder, outcome.state
    if not outcome.trained:
        return f"already {state}: {folder.path}\n--fresh (FRESH=1) trains it again"
    status = folder.read_status()
    total = sum(status["seconds"].values()) or 1.0
    shares = ", ".join(f"{part} {100 * spent / total:.1f} %" for part, spent in status["seconds"].items())
    lines = [
        f"{state} after step {status['step']:,} of {status['steps']:,}, {status['images_per_s']} images/s ({shares})",
        f"one step takes {status['step_ms']:.4g} ms to compute",
    ]
    if "floor_share" in status:
        lines.append(
            f"the arithmetic alone would take {100 * status['floor_share']:.0f} % of all that time: "
            f"{status['gflop_per_image']:.3g} GFLOP per image, at the {status['matmul_gflop_per_s']:,.0f} GFLOP/s "
            "that this device reaches in matrix products"
        )
    if status["data_wait_fraction"] > INPUT_WAIT:
        lines.append(
            f"warning: {100 * status['data_wait_fraction']:.0f} % of the time was spent waiting for input, and a "
            "faster device would wait longer: keep the cache (DCGAN_CACHE) on a local disk, with memory to spare for it"
        )
    if state == "finished":
        lines.append(f"look at {folder.sample(status['step'])} and {folder.losses}")
    elif state == "diverged":
        good = status.get("last_good_snapshot")
        lines.append(f"a loss was no longer finite at step {status['step']:,}: see {folder.losses}")
        lines.append(f"the last good snapshot is {folder.snapshot(good)}" if good else "no snapshot was kept before it")
    else:
        lines.append("the same command resumes from there")
    return "\n".join(lines)


# --- the record: what the run was started with ---


def _record(
    request: Request, folder: RunFolder, experiment: Experiment, images: PackedImages, here: dict[str, Any]
) -> dict[str, Any]:
    """Return the record of the run that is resumed, or write the one of a new run.

    Raises UserError when the training code is not the one that the run was started with.
    """
    record = None if request.fresh else _earlier_record(folder, experiment)
    if record is None:
        folder.remove()
        return _new_record(folder, experiment, images, here)
    before = record["environment"]
    if changed := _changed_code(record):
        commit = None if before.get("git_changed") else before.get("git_commit")
        raise UserError(
            f"{folder.path}: started with other training code (changed since: {changed}); train it again with --fresh "
            "(FRESH=1)" + (f", or check out the code it was started with: `git checkout {commit}`" if commit else "")
        )
    changes = [
        f"{key} {before.get(key)} -> {here[key]}" for key in environment.BITS if before.get(key, here[key]) != here[key]
    ]
    if changes:
        log.warning("resuming in another environment (%s): the last bits will differ", ", ".join(changes))
    return record


def _earlier_record(folder: RunFolder, experiment: Experiment) -> dict[str, Any] | None:
    """Return what the run was started with, None for a new run.

    Raises UserError when the folder holds a run with other settings.
    """
    if not folder.config.exists():
        return None
    try:
        record = plain_yaml.read(folder.config)
    except UserError as error:
        raise UserError(f"{error}; --fresh (FRESH=1) trains the run again") from error
    changes = config.differences(config.from_record(record, folder.config), experiment)
    kinds = {"environment": dict, "code_files": dict, "wandb_id": str}
    if damaged := [key for key, kind in kinds.items() if not isinstance(record.get(key), kind)]:
        raise UserError(
            f"{folder.config}: {' and '.join(damaged)} missing or damaged; --fresh (FRESH=1) trains the run again"
        )
    if changes:
        listed = ", ".join(f"{key} {old} -> {new}" for key, (old, new) in changes.items())
        raise UserError(
            f"{folder.path}: started with other settings ({listed}); "
            "undo the change to resume, or train it again with --fresh (FRESH=1)"
        )
    return record


def _changed_code(record: Mapping[str, Any]) -> str:
    """Return the files of training code that have changed since the record was written, at most five by name."""
    before, now = record["code_files"], environment.code_files()
    changed = [name for name in sorted(before.keys() | now.keys(), key=str) if before.get(name) != now.get(name)]
    return ", ".join(changed[:5]) + (f" and {len(changed) - 5} more" if len(changed) > 5 else "")


def _new_record(
    folder: RunFolder, experiment: Experiment, images: PackedImages, here: dict[str, Any]
) -> dict[str, Any]:
    """Record the run's settings, data and environment in its folder, and return them."""
    record = {
        **config.to_record(experiment),
        "data": {
            "name": images.name,
            "source": images.source,
            "fingerprint": images.fingerprint,
            "count": images.count,
            "unreadable": images.unreadable,
        },
        "environment": here,
        "code_files": environment.code_files(),
        "wandb_id": new_run_id(),
    }
    save(folder.config, plain_yaml.dump(record), lasting=True)
    return record


# --- when memory or disk runs out ---


@contextmanager
def _explained_shortage(
    experiment: Experiment, folder: RunFolder, device: Device, batches: Batches | None = None
) -> Iterator[None]:
    """Turn a lack of memory or disk into a UserError that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(
            f"{folder.path}: {error.strerror}; make room, and the same command, without --fresh "
            "(FRESH=1), resumes from the last checkpoint"
        ) from error
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        half = experiment.batch_size // 2
        remedy = f'try SET="batch_size={half}" (--set batch_size={half})' if half > 1 else "try narrower networks"
        images_on_device = batches.on_device if batches else device.keeps_images
        if images_on_device:
            remedy = (
                "the images take room on the device, too; end other programs that use it and run the same command "
                f"again, which keeps the images on the host where room is short, or {remedy}"
            )
        raise UserError(
            f"out of memory with batch_size={experiment.batch_size} at {experiment.image_size} px and "
            f"width_multiplier={experiment.width_multiplier:g}: {remedy}"
        ) from error
