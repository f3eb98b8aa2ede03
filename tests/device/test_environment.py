"""The record of the device: what is chosen, and that every option changes something."""

import pytest
import torch

from dcgan.device import environment
from dcgan.device.device import Device, choose, use_precision, use_threads
from dcgan.tools.cpus import cpu_count

CPU = Device.of(torch.device("cpu"))


@pytest.fixture(autouse=True)
def _threads_as_before():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_threads_are_set_as_asked_and_all_of_them_by_default(monkeypatch):
    assert use_threads(1) == torch.get_num_threads() == 1
    for wish in ("3", "3,1"):
        monkeypatch.setenv("OMP_NUM_THREADS", wish)
        assert use_threads("auto", processes=2) == 3
    for nothing in ("", "0", "all"):
        monkeypatch.setenv("OMP_NUM_THREADS", nothing)
        assert use_threads("auto") == cpu_count()


def test_precision_is_taken_at_its_word_and_auto_means_what_the_hardware_has(monkeypatch):
    assert use_precision("bf16", CPU)
    assert not use_precision("fp32", CPU)
    for there in (True, False):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda there=there: there)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
        assert use_precision("auto", Device.of(torch.device("cpu"))) == there


def test_the_best_device_there_is_is_chosen(monkeypatch):
    monkeypatch.setattr(Device, "of", lambda device: device)
    for cuda, mps, best in ((True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda cuda=cuda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda mps=mps: mps)
        assert choose("auto").type == best
        assert choose("cpu").type == "cpu"


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
