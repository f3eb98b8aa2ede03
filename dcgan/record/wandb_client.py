"""The lab's use of the wandb library: silent, without a prompt, for a limited time, its files in the run's folder."""

import atexit
import contextlib
import os
import re
import secrets
import shlex
import string
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dcgan import first_line
from dcgan.config import EXPERIMENTS, Experiment
from dcgan.tools.within import within

PROJECT = "dcgan-ablation-lab"
INIT_TIMEOUT_S = 15.0  # wandb's own 90 s is a long wait on a machine without a network
FINISH_TIMEOUT_S = 30.0  # by default wandb waits for ever
TAG_LENGTH = 64  # W&B's limit


def new_run_id() -> str:
    """Make an id like W&B's own, 8 characters of a-z and 0-9, without importing wandb."""
    if "WANDB_SWEEP_ID" in os.environ and (run_id := os.environ.get("WANDB_RUN_ID")):
        return run_id  # by `wandb agent`; in a sweep wandb accepts no other
    return "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(8))


def project() -> str:
    return os.environ.get("WANDB_PROJECT") or PROJECT


def identity(experiment: Experiment, record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of `wandb.init` by which a run is found.

    The job type is the recipe, which only its seeds share. The group is the study, or the recipe of a single run.

    record: the content of the run's `config.yaml`. Its checksums of single files would each be a column in W&B; that
        of all the code stays.
    """
    families = [path.parent.name for path in EXPERIMENTS.glob(f"*/{experiment.name}.y*ml")]
    data = record.get("data") or {}
    tags = [data.get("name"), experiment.profile, f"{experiment.image_size} px", *families]
    return {
        "id": record["wandb_id"],
        "name": f"{experiment.slug}-{experiment.seed}",
        "group": os.environ.get("WANDB_RUN_GROUP") or experiment.slug,
        "job_type": experiment.slug,
        "notes": experiment.question,
        "tags": list(dict.fromkeys(str(tag)[:TAG_LENGTH] for tag in tags if tag and tag != "profiles")),
        "config": {key: value for key, value in record.items() if key != "code_files"},
    }


def settings(wandb: Any, **options: Any) -> Any:
    return wandb.Settings(
        silent=True,
        console="off",
        save_code=False,
        disable_code=True,
        disable_git=True,
        symlink=False,  # `wandb sync` would count latest-run as a second run
        reinit="create_new",
        init_timeout=INIT_TIMEOUT_S,
        finish_timeout=FINISH_TIMEOUT_S,
        finish_timeout_raises=True,
        **options,
    )


def own_places(folder: Path) -> dict[str, str]:
    """Return the variables, where unset, that keep wandb's files in the run's folder and its crash reports local."""
    cache = str(folder / "wandb" / "cache")
    defaults = {
        "WANDB_CACHE_DIR": cache,  # or each start writes a log under ~/.cache
        "WANDB_DATA_DIR": cache,  # or artifacts are staged under ~/.local
        "WANDB_ERROR_REPORTING": "false",  # or wandb's crashes are sent to its makers
    }
    return {name: value for name, value in defaults.items() if name not in os.environ}


def be_quiet(wandb: Any, listener: Any = None) -> None:
    """Silence wandb even before a run exists; a silent wandb never asks for a key, not even on a terminal.

    listener: gets what wandb would print.
    """
    silent = wandb.Settings(silent=True)
    wandb.setup(silent)
    wandb.termsetup(silent, listener)


def wants_online(wandb: Any) -> tuple[bool, str]:
    """Return whether runs go online, and why or why not."""
    mode = os.environ.get("WANDB_MODE")
    if mode and mode != "online":
        return False, f"WANDB_MODE={mode}"
    # Looks where wandb looks (environment, netrc, its settings files), with no prompt and no server.
    try:
        if wandb.login(prompt=False, verify=False):
            return True, "WANDB_MODE=online" if mode else "there is an API key"
    except Exception as error:  # a malformed key; the message names the rule, not the key
        return False, first_line(error)
    return False, "no API key"


def pieces(folder: Path, kind: str, run_id: str) -> set[Path]:
    """Find what wandb left in a run's folder: KIND-DATE-ID, with -1, -2 ... for several within a second."""
    name = re.compile(rf"{kind}-\d+_\d+-{re.escape(run_id)}(-whole)?(-\d+)?")
    return {path for path in (folder / "wandb").glob(f"{kind}-*") if name.fullmatch(path.name)}


def whole(run_id: str) -> str:
    """Return the id under which a run that was online and then offline is uploaded as a whole.

    An upload appends to W&B's rows of the same id.
    """
    return f"{run_id}-whole"


def log_generator(wandb: Any, run: Any, config: Mapping[str, Any], generator: Path, *, state: str) -> None:
    """Log the run's generator as an artifact of type model, whose metadata name its data, its code and its state."""
    data, environment = config.get("data") or {}, config.get("environment") or {}
    origin = {"data_fingerprint": data.get("fingerprint"), "git_commit": environment.get("git_commit")}
    artifact = wandb.Artifact(f"generator-{run.id}", type="model", metadata={**origin, "state": state})
    artifact.add_file(str(generator), policy="immutable", skip_cache=True)  # immutable: wandb reads it in place
    run.log_artifact(artifact)


def sync_command(*places: Path | str) -> str:
    """Return what to type in this folder to upload offline pieces: wandb is rarely on the PATH."""
    program = Path(sys.executable).with_name("wandb")
    words = [from_here(program) if program.exists() else "wandb", "sync"]
    return " ".join([shlex.join(words), *(p if isinstance(p, str) else shlex.quote(from_here(p)) for p in places)])


def from_here(path: Path) -> str:
    """Return the path as it is typed in this folder."""
    with contextlib.suppress(ValueError):
        path = path.relative_to(Path.cwd())
    return str(path)


def teardown(wandb: Any, seconds: float | None = None) -> None:
    """End wandb's helper process; wait for that at most `seconds` (None: until it ends)."""
    with contextlib.suppress(Exception, SystemExit):  # a killed wandb-core raises both
        wandb.teardown() if seconds is None else within(seconds, wandb.teardown)


def teardown_at_exit(wandb: Any, seconds: float) -> None:
    """End wandb's helper process when the program ends, and wait for that at most `seconds`.

    The thread that waits is started now, as Python starts none at exit.
    """
    exit_event = threading.Event()

    def work() -> None:
        exit_event.wait()
        teardown(wandb)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()

    def leave() -> None:
        exit_event.set()
        thread.join(seconds)

    atexit.register(leave)


@contextlib.contextmanager
def variables_set(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for a while."""
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables:
            os.environ.pop(name, None)
