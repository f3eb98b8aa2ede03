"""Facts about devices that need not be there."""

import dataclasses

import torch

from dcgan.device.device import Device


def facts(kind):
    """Return the record of a device of this kind, with the CPU's facts for the rest."""
    cpu = Device.of(torch.device("cpu"))
    return dataclasses.replace(cpu, torch=torch.device(kind), records_steps=kind == "cuda")
