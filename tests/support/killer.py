"""Run a command of the lab and kill it, again and again, until it has been killed often enough and has ended.

    python killer.py KILLS SEED PLACE PACKAGE [ARGUMENT ...]   # {} in an argument is the folder of a life

Each life has a folder of its own below PLACE, life-0 being that of the undisturbed one. It is killed with SIGKILL
either at a random time or at a random one of the moments at which it opens, renames or removes a file, so that kills
fall into packing, steps, checkpoints, samples and scores. A life that reaches its end is followed by the next one.
Prints a line of JSON: the kills by kind, and the lives.

Forks from one process that has imported all there is to import, which makes a kill cost seconds less.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

WRITING = {"open", "os.rename", "os.remove", "os.mkdir"}


def main(kills: int, seed: int, place: Path, package: str, arguments: list[str]) -> None:
    perform = __import__(f"{package}.__main__", fromlist=["main"]).main
    from dcgan import trainer  # what a run would import
    from dcgan.record import recorder

    trainer.READ_SECONDS = recorder.CHECKPOINT_SECONDS = 0.0
    rng = random.Random(seed)

    def live(life: int, event: int | None, after: float | None) -> bool:
        """Whether it came to its end."""
        folder = place / f"life-{life}"
        if not folder.exists():
            template = place / "template"
            shutil.copytree(template, folder) if template.exists() else folder.mkdir()
        child = os.fork()
        if child == 0:
            watch(folder, event)
            with (place / "said").open("a") as said:
                os.dup2(said.fileno(), 1)
                os.dup2(said.fileno(), 2)
                code = perform([argument.replace("{}", str(folder)) for argument in arguments])
            (folder / "events").write_text(str(seen))
            os._exit(code)
        if after is not None:
            time.sleep(after)
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status) and os.WEXITSTATUS(status):
            sys.exit((place / "said").read_text())
        return os.WIFEXITED(status)

    def watch(folder: Path, event: int | None) -> None:
        global seen
        seen = 0

        def hook(name: str, details: tuple) -> None:
            global seen
            if name in WRITING and str(details[0]).startswith(str(folder)) and details[1] != "r":
                seen += 1
                if seen == event:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)

    start = time.perf_counter()
    live(0, None, None)
    whole, events = time.perf_counter() - start, int((place / "life-0" / "events").read_text())
    done, life = {"by time": 0, "by file": 0}, 1
    while sum(done.values()) < kills:
        kind = rng.choice(list(done))
        ended = (
            live(life, None, rng.uniform(0, whole))
            if kind == "by time"
            else live(life, min(rng.randint(1, events), rng.randint(1, events)), None)
        )
        if ended:
            life += 1
        else:
            done[kind] += 1
    live(life, None, None)
    print(json.dumps({**done, "lives": life, "events": events, "seconds": round(whole, 1)}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4], sys.argv[5:])
