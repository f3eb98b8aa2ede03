"""What a run runs on: every option changes something."""

import pytest
import torch

from dcgan.device import environment

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _threads_as_before():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_threads_are_set_as_asked_and_all_of_them_by_default():
    assert environment.use_threads(1) == torch.get_num_threads() == 1
    assert environment.use_threads("auto") == environment.cpu_count()


def test_precision_is_taken_at_its_word_and_auto_means_what_the_hardware_has(monkeypatch):
    assert environment.use_precision("bf16", CPU)
    assert not environment.use_precision("fp32", CPU)
    for there in (True, False):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda there=there: there)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
        assert environment.use_precision("auto", CPU) == there


def test_the_best_device_there_is_is_chosen(monkeypatch):
    for cuda, mps, best in ((True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda cuda=cuda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda mps=mps: mps)
        assert environment.choose_device("auto").type == best
        assert environment.choose_device("cpu").type == "cpu"


def test_the_record_has_what_moves_a_result():
    facts = environment.describe(CPU, bf16=True)
    assert set(environment.BITS) <= set(facts)
    assert facts["precision"] == "bf16"
    assert len(facts["git_commit"]) == 40
    assert len(facts["code"]) == 16
