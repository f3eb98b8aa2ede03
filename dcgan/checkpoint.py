"""The whole state of a run in one file, written aside and renamed.

Randomness needs no place here: every draw is a function of (seed, owner, step), see `trainer.stream`, so
the step number is the state of all generators and of the position in the data.
"""

from pathlib import Path
from typing import Any

import torch

from dcgan import UserError
from dcgan.adversarial import Players
from dcgan.runlog import replacing

PARTS = ("generator", "discriminator", "generator_optimizer", "discriminator_optimizer")


def save(path: Path, players: Players, *, step: int, seconds: dict[str, float]) -> None:
    """Write both networks, both optimisers, the step and the time spent so far."""
    parts = {part: getattr(players, part).state_dict() for part in PARTS}
    save_tensors(path, {"step": step, "seconds": seconds, **parts})


def load(path: Path, players: Players) -> tuple[int, dict[str, float]]:
    """Fill `players` from a checkpoint; return (step, seconds).

    Raises UserError for a file that is not a checkpoint of these networks.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        for part in PARTS:
            getattr(players, part).load_state_dict(state[part])
        return state["step"], state["seconds"]
    except Exception as error:  # torch.load and load_state_dict raise many kinds for a broken or foreign file
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise UserError(f"{path}: not a checkpoint of this run ({reason}); --fresh (FRESH=1) trains anew") from error


def save_tensors(path: Path, content: Any) -> None:
    """`torch.save`, written aside and renamed."""
    with replacing(path) as aside:
        torch.save(content, aside)


def save_weights(path: Path, network: torch.nn.Module) -> None:
    """A network's state dict on the CPU in plain memory order, so that equal weights make equal files."""
    save_tensors(path, {key: value.cpu().contiguous() for key, value in network.state_dict().items()})
