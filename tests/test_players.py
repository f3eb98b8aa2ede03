"""Adam: torch's own to the last bit, and a start that does not wait for torch's compiler."""

import subprocess
import sys

import pytest
import torch
from support import ROOT

from dcgan.players import Adam


@pytest.mark.parametrize("weight_decay", [0.0, 1e-2])
def test_it_is_torchs_adam_to_the_last_bit_also_after_a_state_was_loaded(weight_decay):
    found = []
    for kind in (Adam, torch.optim.Adam):
        torch.manual_seed(0)
        network = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.Linear(4, 1))
        inputs = torch.randn(3, 5)

        def made(network=network, kind=kind):
            return kind(network.parameters(), lr=1e-2, betas=(0.5, 0.999), weight_decay=weight_decay, fused=True)

        optimizer = made()
        for step in range(6):
            if step == 3:
                saved, optimizer = optimizer.state_dict(), made()
                optimizer.load_state_dict(saved)
            optimizer.zero_grad()
            network(inputs).square().sum().backward()
            optimizer.step()
        found.append([*network.parameters(), *(value for s in optimizer.state.values() for value in s.values())])
    assert all(map(torch.equal, *found))


@pytest.mark.thorough
def test_until_the_first_steps_are_done_torchs_compiler_is_not_imported():
    code = (
        "import sys, torch\n"
        "from dcgan import config, players\n"
        "from dcgan.adversarial import adversarial_step\n"
        "from dcgan.device.device import Device, use_determinism\n"
        "experiment = config.load('tuned_lr', profile='smoke', overrides=['image_size=32'])\n"
        "pair = players.build(experiment, torch.device('cpu'))\n"
        "use_determinism(False, Device.of(torch.device('cuda')))\n"
        "for _ in range(2):\n"
        "    adversarial_step(pair, real=torch.zeros(4, 3, 32, 32), latents=torch.zeros(4, 100), bf16=True)\n"
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0, "it takes seconds"
