"""Adam as torch has it, without the half of a program's start that it spends on importing torch's compiler."""

import torch
from torch.optim import Optimizer


def _plain(method):
    """The method within the wrapper that keeps torch.compile out of it; where there is none, the method."""
    return getattr(method, "__wrapped__", method)


class Adam(torch.optim.Adam):
    """`torch.optim.Adam` to the last bit, not for use inside torch.compile.

    torch wraps these methods, and the wrappers import `torch._dynamo`, three seconds, for programs that never compile.
    What `step`'s wrapper does besides is to switch gradients off.
    """

    step = torch.no_grad()(_plain(torch.optim.Adam.step))
    add_param_group = _plain(Optimizer.add_param_group)
    zero_grad = _plain(Optimizer.zero_grad)
    state_dict = _plain(Optimizer.state_dict)
    load_state_dict = _plain(Optimizer.load_state_dict)
