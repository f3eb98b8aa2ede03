"""The record of what can move a result."""

import torch

from dcgan.device import environment
from dcgan.device.device import Device

CPU = Device.of(torch.device("cpu"))


def test_the_training_code_is_what_can_move_a_weight_and_nothing_else():
    files = environment.code_files()
    assert {"dcgan/adversarial.py", "dcgan/trainer.py", "dcgan/data/batches.py", "dcgan/device/ranks.py"} <= set(files)
    assert not {"dcgan/study/live_table.py", "dcgan/record/wandb_log.py", "dcgan/__main__.py"} & set(files)
    assert set(environment.TRAINING_CODE) <= {name.removeprefix("dcgan/") for name in files} | {"data"}


def test_the_record_has_what_moves_a_result():
    facts = environment.describe(CPU, bf16=True)
    assert set(environment.BITS) <= set(facts)
    assert facts["precision"] == "bf16"
    assert len(facts["git_commit"]) == 40
    assert len(facts["code"]) == 16
