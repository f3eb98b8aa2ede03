"""Files of weights: `generator.params` and the snapshots. Any other file is refused before it can do harm.

torch's own loader of weights still allows calls like `bytearray(n)`, which can allocate any amount of memory, and
unpacks a compressed archive. So each file is inspected first: it must be an uncompressed zip of plain tensors, as
`save` writes.
"""

import io
import pickletools
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dcgan import UserError
from dcgan.networks import IMAGE_SIZES, SMALLEST_MAP, Generator
from dcgan.tools import files
from dcgan.tools.memory import out_of_memory

#: The Python names that a pickle of plain tensors refers to.
GLOBALS = {
    "collections OrderedDict",
    "torch FloatStorage",
    "torch HalfStorage",
    "torch LongStorage",
    "torch._utils _rebuild_tensor_v2",
}
#: Opcodes of a pickle that create objects without naming them in a GLOBAL.
CREATING = {"INST", "OBJ", "NEWOBJ"}


def save(path: Path, network: nn.Module) -> None:
    write_state(path, network.state_dict())


def write_state(path: Path, state: Mapping[str, Tensor]) -> None:
    """Write a state dict: on the CPU and in plain memory order, so that equal weights make equal files."""
    files.save(path, to_bytes({key: value.cpu().contiguous() for key, value in state.items()}), lasting=True)


def copied(states: Mapping[str, Any]) -> Callable[[], Mapping[str, Any]]:
    """Copy state dicts, at any depth, so that the originals may change; return a function that hands over the copy.

    A CUDA device copies them in its own memory, which takes no time. The function, called in another thread, then
    brings the copy to the host beside the steps of the training. Elsewhere, and where the device's memory is full, the
    copy is made on the host at once. (On MPS a second thread must not use the device: pytorch#197805.)
    """
    if any(tensor.is_cuda for tensor in _tensors(states)):
        try:
            copies, made = _mapped(states, lambda tensor: tensor.clone()), torch.cuda.Event()
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
        else:
            made.record()
            return partial(_fetched, copies, made)
    copies = _mapped(states, lambda tensor: tensor.clone() if tensor.is_cpu else tensor.cpu())
    return lambda: copies


def _fetched(copies: Mapping[str, Any], made: torch.cuda.Event) -> Mapping[str, Any]:
    """Bring copies to the host in a stream of its own, once they are made."""
    stream = torch.cuda.Stream(next(_tensors(copies)).device)
    stream.wait_event(made)
    with torch.cuda.stream(stream):
        return _mapped(copies, Tensor.cpu)


def _mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Change each tensor in nested dicts and lists."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {key: _mapped(item, change) for key, item in value.items()}
    return [_mapped(item, change) for item in value] if isinstance(value, list) else value


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors(item)


def load(path: Path) -> dict[str, Tensor]:
    """Read the state dict that `save` wrote, onto the CPU. Never unpickles. Raises UserError for any other file."""
    try:
        if objection := _objection(path):
            raise UserError(f"{path}: not safe to load as weights: it {objection}")
        with warnings.catch_warnings(action="ignore"):  # torch may warn of a strange file before it refuses it
            return torch.load(path, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{path}: can't be read: {error.strerror or error}") from error
    except Exception as error:  # of many kinds; torch's own text advises to unpickle the file all the same
        raise UserError(f"{path}: not a file of weights only, or damaged ({type(error).__name__})") from error


def load_generator(path: Path) -> Generator:
    """Read a generator, in float32; the weights give its shape. A published one is stored in float16.

    Raises UserError for a file that `save` did not write or that holds another network.
    """
    state = load(path)
    try:
        generator = _empty_generator(state)
        _check_fits(state, generator.state_dict())
    except ValueError as error:
        raise UserError(f"{path}: not the weights of one of our generators: {error}") from error
    generator.to_empty(device="cpu").load_state_dict(state)
    return generator


def to_bytes(content: Any) -> memoryview:
    """Return the bytes of a file that `torch.load` reads.

    They are made in memory: torch stores a path's name in a file that it writes there, so equal contents would differ,
    and it reports a full disk as an internal error.
    """
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getbuffer()


def _empty_generator(state: dict[str, Tensor]) -> Generator:
    """The generator with the shapes of a state dict, on the meta device: it takes no memory yet."""
    if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
        raise ValueError("not tensors by name")
    first = state.get("layers.to_4x4.0.weight")
    if not isinstance(first, Tensor) or first.dim() != 4 or not first.numel():
        raise ValueError("no layers.to_4x4.0.weight of (latent_dim, channels, 4, 4)")
    latent_dim, channels = first.shape[:2]
    depth = len({key.split(".")[1] for key in state if key.startswith("layers.")})
    image_size = SMALLEST_MAP * 2 ** (depth - 1)
    if image_size not in IMAGE_SIZES:  # with a clearer message than the generator's own
        raise ValueError(f"{depth} layers, which no image size has")
    with torch.device("meta"):
        return Generator(image_size, latent_dim, channels)


def _check_fits(state: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Raise ValueError unless the state dict has exactly the expected tensors and the numbers that they claim."""
    for key in sorted(expected.keys() ^ state.keys()):
        raise ValueError(f"{key} is {'missing' if key in expected else 'unexpected'}")
    for key, tensor in expected.items():
        given, wanted = _described(state[key]), _described(tensor)
        if given not in (wanted, wanted.replace("float32", "float16")):
            raise ValueError(f"{key} is {given}; {wanted} would fit the other weights")
        if state[key].untyped_storage().nbytes() < tensor.numel() * state[key].element_size():
            raise ValueError(f"{key} claims more numbers than it has")


def _described(value: object) -> str:
    """Describe what must agree for a tensor to take the place of another: 'float32 of (64, 3, 5, 5)'."""
    if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_quantized:
        return f"a {type(value).__name__} of another kind"
    return f"{str(value.dtype).removeprefix('torch.')} of {tuple(value.shape)}"


def _objection(path: Path) -> str | None:
    """Return what is wrong with a file: it holds more than tensors, or would be larger in memory than on the disk."""
    with path.open("rb") as file:
        if file.read(4) != b"PK\3\4":  # zipfile looks only at the end; without this, torch unpickles in an old way
            return "is not a zip as torch.save writes it"
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if sum(member.file_size for member in members) > path.stat().st_size:
            return "would grow in memory"
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            return "is compressed, as torch never writes it"
        pickles = [archive.read(member) for member in members if member.filename.lower().endswith(".pkl")]
    for opcode, argument, _ in chain.from_iterable(map(pickletools.genops, pickles)):
        if opcode.name in CREATING or ("GLOBAL" in opcode.name and argument not in GLOBALS):
            return f"refers to {argument}"
        if opcode.name == "PROTO" and argument != 2:  # torch warns at length, and only then fails
            return f"is pickled by protocol {argument}"
    return None
