"""The record of the device: what is chosen, what fits, and that every option changes something."""

import dataclasses
import re

import pytest
import torch
from support import ROOT, tiny_run

from dcgan import UserError, run
from dcgan.data import Batches, batches
from dcgan.device import environment, nvidia
from dcgan.device.device import Device, choose, use_threads
from dcgan.run import Request
from dcgan.tools.cpus import cpu_count
from dcgan.tools.memory import out_of_memory

CPU, CUDA, MPS = (Device.of(torch.device(kind)) for kind in ("cpu", "cuda", "mps"))
CELEBA = 202_599 * 64 * 64 * 3  # bytes
GB = 10**9

images = tiny_run.images


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
    assert CPU.uses_bf16("bf16")
    assert not CPU.uses_bf16("fp32")
    assert not MPS.uses_bf16("auto")
    for there in (True, False):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda there=there: there)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
        assert Device.of(torch.device("cpu")).uses_bf16("auto") == there


def test_the_best_device_there_is_is_chosen(monkeypatch):
    monkeypatch.setattr(nvidia, "problem", lambda: None)
    for cuda, mps, best in ((True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda cuda=cuda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda mps=mps: mps)
        assert choose("auto").type == best
        assert choose("cpu").type == "cpu"
    with pytest.raises(UserError, match=r"--device mps \(DEVICE=mps\): not on this machine; torch .* sees cpu"):
        choose("mps")


def test_a_chosen_gpu_computes_in_real_float32(monkeypatch):
    monkeypatch.setattr("dcgan.device.nvidia.problem", lambda: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    torch.backends.cuda.matmul.allow_tf32 = True
    choose("cuda")
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32


@pytest.mark.parametrize(
    ("said", "memory"),
    [
        ("CUDA out of memory. Tried to allocate 2.32 GiB", True),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", True),
        ("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED", True),
        ("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED", False),
    ],
)
def test_memory_that_runs_out_is_recognised_whoever_says_so(said, memory):
    assert out_of_memory(RuntimeError(said)) == memory


def test_a_card_that_others_have_filled_is_a_message_and_no_traceback(tmp_path, monkeypatch):
    def full(*_):
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(Device, "has_room", full)
    settings = ("images=80", "batch_size=8", "image_size=32", "threads=1")
    request = Request("baseline", "smoke", tmp_path / "runs", tmp_path / "cache", overrides=settings)
    with pytest.raises(UserError, match=r"^out of memory with batch_size=8 .* end other programs that use it"):
        run.run(request, CUDA)
    with pytest.raises(UserError, match=r"^out of memory with batch_size=8 at 32 px .*: try SET=\"batch_size=4\""):
        run.run(request, CPU)


@pytest.mark.parametrize(
    ("free", "nbytes", "resident"),
    [
        (5.5 * GB, CELEBA, False),  # a card of 6 GB
        (7.5 * GB, CELEBA, True),  # of 8 GB
        (23 * GB, 19 * GB, True),
        (23 * GB, 19 * GB + 1, False),
    ],
)
def test_on_cuda_4_gb_stay_free_beside_resident_images(monkeypatch, caplog, free, nbytes, resident):
    caplog.set_level("INFO", logger="dcgan")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (int(free), 24 * GB))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA L4")
    assert Device.of(torch.device("cuda")).has_room(nbytes) == resident
    said = (
        f"the images stay on the host: they take {nbytes / 1e9:.1f} GB, and there is room for {free / 1e9 - 4:.1f} GB "
        "on the NVIDIA L4 beside the networks"
    )
    assert caplog.messages == [said] * (not resident)


@pytest.mark.parametrize(
    ("recommended", "nbytes", "resident"),
    [(90 * GB, CELEBA, False), (90 * GB, 2**31, False), (90 * GB, 2**31 - 1, True), (5 * GB, 2 * GB, False)],
)
def test_on_mps_resident_images_leave_room_and_have_less_than_2_31_elements(monkeypatch, recommended, nbytes, resident):
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: recommended)
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: GB // 2)
    assert MPS.has_room(nbytes) == resident


def test_on_a_cpu_images_stay_where_they_are():
    assert not CPU.has_room(1)


def test_a_batch_has_the_devices_memory_format(images):
    for device in (CPU, dataclasses.replace(MPS, torch=torch.device("cpu"))):
        batch = Batches(images, batch_size=8, seed=0, device="cpu", memory_format=device.memory_format)(0)
        assert batch.is_contiguous(memory_format=device.memory_format)
        assert batch.equal(Batches(images, batch_size=8, seed=0, device="cpu")(0))


def test_images_that_find_no_room_on_the_device_stay_on_the_host_with_a_line(monkeypatch, caplog, images):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.32 GiB")

    monkeypatch.setattr(batches, "_copied", full)
    with caplog.at_level("INFO", logger="dcgan"):
        squeezed = Batches(images, batch_size=8, seed=0, device="cpu", on_device=True)
    assert not squeezed.on_device
    assert caplog.messages == ["not enough memory for all images on the cpu, so they stay on the host"]
    assert squeezed(7).equal(Batches(images, batch_size=8, seed=0, device="cpu")(7))


def test_memory_that_the_system_refuses_is_recognised():
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**60, dtype=torch.uint8)
    assert out_of_memory(raised.value)


def test_another_error_while_images_are_moved_is_no_lack_of_room(monkeypatch, images):
    def broken(*_):
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(batches, "_copied", broken)
    with pytest.raises(torch.AcceleratorError):
        Batches(images, batch_size=8, seed=0, device="cpu", on_device=True)


@pytest.mark.parametrize("resident", [True, False])
def test_the_advice_when_memory_runs_out_names_resident_images_before_the_batch(tmp_path, monkeypatch, resident):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.32 GiB")

    monkeypatch.setattr(Device, "has_room", lambda self, nbytes: resident)
    monkeypatch.setattr(run, "train", full)
    settings = ("images=80", "batch_size=8", "image_size=32", "threads=1")
    request = Request("baseline", "smoke", tmp_path / "runs", tmp_path / "cache", overrides=settings)
    with pytest.raises(UserError) as raised:
        run.run(request, CPU)
    message = str(raised.value)
    assert message.endswith('try SET="batch_size=4" (--set batch_size=4)')
    assert ("images take room on the device" in message) == resident


def test_the_record_has_what_moves_a_result():
    facts = environment.describe(CPU, bf16=True)
    assert set(environment.BITS) <= set(facts)
    assert facts["precision"] == "bf16"
    assert len(facts["git_commit"]) == 40
    assert len(facts["code"]) == 16


@pytest.mark.parametrize("kind", ["cuda", "mps"])
def test_the_record_of_a_gpu_has_its_memory_and_on_cuda_driver_and_capability(monkeypatch, kind):
    monkeypatch.setattr(nvidia, "driver", lambda: "570.86.15")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA A100-SXM4-40GB")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (30 * GB, 42_300_000_000))
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 5_700_000_000)
    record = environment.describe(Device.of(torch.device(kind)), bf16=False)
    if kind == "cuda":
        expected = {"driver": "570.86.15", "cuda": "13.0", "capability": "8.0", "memory_gb": 42.3}
    else:
        expected = {"memory_gb": 5.7}
    keys = ("driver", "cuda", "capability", "memory_gb")
    assert {key: record[key] for key in keys if key in record} == expected


def test_only_this_folder_asks_which_device_it_is():
    files = [path for part in ("dcgan", "analysis", "benchmarks") for path in (ROOT / part).rglob("*.py")]
    asking = {path.relative_to(ROOT).as_posix() for path in files if re.search(r"\.type [!=]= \"", path.read_text())}
    assert {name for name in asking if not name.startswith("dcgan/device/")} == set()
