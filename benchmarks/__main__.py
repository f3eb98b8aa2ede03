"""`make bench`, or `python -m benchmarks WHAT ...`: measure, print one line each, and add it to the results."""

import argparse
import importlib
import sys
from collections.abc import Sequence

from benchmarks import results
from dcgan import UserError
from dcgan.options import Parser, perform, positive
from dcgan.tools.files import user_path

#: By name: the module, and a line for the help.
BENCHMARKS = {
    "train": ("train", "a whole run compared with the write-up's loop, CPU"),
    "input": ("train", "the sampler compared with DataLoader and PIL"),
    "writeup": ("writeup", "why a faster GPU was no faster: loading and arithmetic at 64 and 128 px"),
    "pack": ("packing", "packing images compared with ImageFolder and PIL, one core"),
    "memory": ("packing", "memory and cost per image with up to 200,000 images; minutes, and 12 GB of disk"),
    "score": ("score", "scoring compared with torch-fidelity from a folder of PNGs"),
    "beside": ("beside", "a step while other programs are busy, for each way of sharing the CPU"),
    "start": ("start", "the time from the command to the first step"),
    "study": ("study", "the time that Ray adds to many runs"),
    "steps": ("gpu", "a step at full width, recorded and eager, at 64 and 128 px; needs CUDA"),
    "epoch64": ("gpu", "an epoch of CelebA's size at 64 px, full width; needs CUDA"),
    "epoch128": ("gpu", "the same at 128 px; needs CUDA"),
    "examples": ("gpu", "pytorch/examples' layers in our engine compared with its loop; needs CUDA"),
    "busy": ("gpu", "how busy the device is during training; needs CUDA"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the named benchmarks, or all; return the exit code, see `perform`."""
    return perform(_parser(), arguments)


def _bench(options: argparse.Namespace) -> int:
    import torch  # here, not above: `perform` prepares the process for it

    if unknown := [name for name in options.what if name not in BENCHMARKS]:
        raise UserError(f"no benchmark {unknown[0]!r}; WHAT can be {', '.join(BENCHMARKS)}")
    if options.out.suffix != ".csv":
        raise UserError(f"--out {options.out}: the table is a .csv file, and RESULTS.md goes into the same folder")
    results.read(options.out)  # before anything is measured
    runnable = [name for name, (module, _) in BENCHMARKS.items() if module != "gpu" or torch.cuda.is_available()]
    for name in options.what or runnable:
        measure = getattr(importlib.import_module(f"benchmarks.{BENCHMARKS[name][0]}"), f"bench_{name}")
        try:
            result = measure(options.rounds)
        except UserError as error:
            if options.what:
                raise
            print(f"{name}: skipped: {error}", flush=True)
            continue
        print(result.line, flush=True)
        command = f"make bench WHAT={name} ROUNDS={options.rounds}"
        results.add(result, rounds=result.rounds or options.rounds, command=command, path=options.out)
    print(f"table: {options.out}")
    return 0


def _parser() -> argparse.ArgumentParser:
    names = "\n".join(f"  {name:<8} {line}" for name, (_, line) in BENCHMARKS.items())
    parser = Parser(
        prog="python -m benchmarks",
        description="Measure speed and memory, compared with what you would run instead.",
        epilog=f"WHAT is one of:\n{names}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "what", nargs="*", metavar="WHAT", help="the benchmarks to run (default: all that this machine can run)"
    )
    parser.add_argument(
        "--rounds",
        type=positive(int),
        default=3,
        metavar="N",
        help="how often to measure each side, in turns (default: %(default)s)",
    )
    table = "table to add the results to; RESULTS.md goes into the same folder (default: %(default)s)"
    parser.add_argument("--out", type=user_path, default=results.PATH, metavar="FILE", help=table)
    parser.set_defaults(command=_bench)
    return parser


if __name__ == "__main__":
    sys.exit(main())
