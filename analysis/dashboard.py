"""`make dashboard`: W&B where runs are online, else a live page in the browser, or W&B's viewer in the terminal."""

import os
import re
import shutil
import subprocess
import sys
import threading
import webbrowser
from collections.abc import Sequence
from pathlib import Path

from analysis.pages.html import has_screen
from analysis.runs.state import no_runs, run_folders
from dcgan import UserError
from dcgan.record.folder import RunFolder


def show(runs: Path, reports: Path, *, terminal: bool | None) -> int:
    """Show the runs until the user quits; return the exit code.

    terminal: whether to show the local runs in the terminal, or on the live page; None: W&B where runs are online,
    else the terminal where there is no screen.

    Raises UserError when there is nothing to show in the terminal.
    """
    pages = sorted(reports.glob("**/index.html"))
    print("\n".join(f"comparison: {page}" for page in pages) or "no comparison yet: make compare")
    folders = [RunFolder(path) for path in run_folders(runs, [])]
    # Only web addresses: a browser would open others too, and take one that begins with a dash for an option.
    addresses = (str(folder.read_status().get("wandb_url")) for folder in folders)
    urls = [url for url in addresses if re.fullmatch(r"https?://[!-~]{1,500}", url)]
    if terminal is None and urls and os.environ.get("WANDB_MODE", "online") == "online":
        return _online(urls[-1].partition("/runs/")[0], runs, reports)
    if terminal is None:
        terminal = not has_screen()
    return _leet(folders, runs) if terminal else _live(runs)


def _online(project: str, runs: Path, reports: Path) -> int:
    """Save the workspace and the report in W&B, and open them where there is a screen."""
    from analysis.runs.folders import read_folders
    from analysis.upload import workspace

    print(f"W&B project: {project}")
    page, lines = workspace.save(read_folders(runs)[0], reports)
    print("\n".join(lines))
    if has_screen():
        webbrowser.open(page or project)
    return 0


def _live(runs: Path) -> int:
    """Serve the live page until Ctrl-C."""
    from analysis.pages.live_server import LiveServer

    with LiveServer(runs) as server:
        serving = threading.Thread(target=server.serve_forever, daemon=True)
        serving.start()
        try:
            print(f"live page: {server.url} (Ctrl-C closes it)", flush=True)
            if has_screen():
                webbrowser.open(server.url)  # some browsers return only when they are closed
            serving.join()
        except KeyboardInterrupt:
            print("\ndashboard closed; the runs are not affected")
            server.shutdown()
    return 0


def _leet(folders: Sequence[RunFolder], runs: Path) -> int:
    """Show all local runs in W&B's terminal viewer. The viewer needs them in one folder, so we make a folder of links.

    The viewer shows a folder's name as the run's name. It expects the part after the time as the id in the log's name.
    """
    if not folders:
        raise no_runs(runs)
    logs = [(log, folder) for folder in folders for log in folder.path.glob("wandb/*run-*/*.wandb")]
    logs = [(log, folder) for log, folder in logs if not (log.parent / "scores.json").exists()]  # scores are no run
    if not logs:
        raise UserError(
            f"no W&B log under {runs}: its runs were made with WANDB_MODE=disabled; "
            "TERMINAL=0 (--no-terminal) shows them in a browser"
        )
    links = runs / ".wandb"
    shutil.rmtree(links, ignore_errors=True)
    for log, folder in logs:
        seed, experiment = folder.path.resolve().name, folder.path.resolve().parent.name
        name = f"{experiment}_{seed}".replace("-", "_")
        started = re.search(r"\d{8}_\d{6}", log.parent.name)
        place = links / f"run-{started[0] if started else '00000000_000000'}-{name}"
        place.mkdir(parents=True, exist_ok=True)
        for part in log.parent.iterdir():
            link = place / (f"run-{name}.wandb" if part == log else part.name)
            if not link.is_symlink():  # two sessions that began in the same second
                link.symlink_to(part.resolve(), target_is_directory=part.is_dir())
    command = [sys.executable, "-m", "wandb", "leet", str(links)]
    if not sys.stdout.isatty():
        print(f"no W&B page, because the runs were logged offline; type in a terminal: {' '.join(command)}")
        return 0
    return subprocess.run(command, check=False).returncode
