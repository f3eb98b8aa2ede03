"""Files of weights made to harm, each by its name: one line says what is wrong, and nothing in them runs."""

import hashlib
import os
import pickle
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from support.hostile import command, tree, written

from dcgan import UserError
from dcgan.networks import Generator
from dcgan.record import checkpoint


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


STATE = Generator(32, 4, 8).state_dict()
FIRST = "layers.to_4x4.0.weight"


def sampled(path: Path, state=None) -> str:
    """What `sample` says to a file of weights, which it refuses; nothing is written."""
    if state is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.save(state, path)
    before = tree(path.parent)
    code, _, err = command("sample", str(path), "--seeds", "0")
    assert code == 2
    assert err.startswith(f"error: {path}: not ")
    assert tree(path.parent) == before
    return err


OTHERS = {
    "a foreign key": ({**STATE, "extra.weight": torch.zeros(1)}, "extra.weight is unexpected"),
    "a missing key": ({k: v for k, v in STATE.items() if "to_rgb.0.bias" not in k}, "layers.to_rgb.0.bias is missing"),
    "another shape": ({**STATE, "layers.to_rgb.0.bias": torch.zeros(4)}, "float32 of (4,); float32 of (3,) would fit"),
    "another type": ({**STATE, "layers.to_rgb.0.bias": torch.zeros(3).long()}, "is int64 of (3,); float32 of (3,)"),
    "no tensor": ({**STATE, "layers.to_rgb.0.bias": "x"}, "layers.to_rgb.0.bias is a str"),
    "a sparse tensor": ({**STATE, "layers.to_rgb.0.bias": torch.ones(3).to_sparse()}, "_rebuild_sparse_tensor"),
    "a tensor without numbers": ({**STATE, FIRST: STATE[FIRST].to("meta")}, "_rebuild_meta_tensor"),
    "a list": ([STATE], "not tensors by name"),
    "a number as a key": ({**STATE, 1: torch.zeros(1)}, "not tensors by name"),
    "a 60-layer network": ({**STATE, **{f"layers.to_{n}": torch.zeros(1) for n in range(60)}}, "64 layers"),
    "no latents": ({**STATE, FIRST: torch.zeros(0, 8, 4, 4)}, f"no {FIRST} of"),
    "terabytes that are one number": ({**STATE, FIRST: torch.zeros(1).expand(10**9, 8, 4, 4)}, "claims more numbers"),
    "a network of terabytes": ({**STATE, FIRST: torch.zeros(1, 10**5, 4, 4)}, "would fit the other weights"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_weights_that_are_not_a_generators_are_refused_with_what_differs(tmp_path, case):
    state, message = OTHERS[case]
    assert message in sampled(tmp_path / "generator.params", state)


class Touches:
    """Pickled, it is a call of os.system."""

    def __reduce__(self):
        return os.system, ("touch pwned",)


def test_the_pickle_that_the_next_tests_use_would_really_run(tmp_path):
    pickle.loads(pickle.dumps(Touches()))
    assert (tmp_path / "pwned").exists()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_bare_pickle_is_never_run(tmp_path, protocol):
    sampled(written(tmp_path / "generator.params", pickle.dumps(Touches(), protocol)))
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("state", [Touches(), {**STATE, "x": Touches()}, {**STATE, FIRST: Touches()}])
@pytest.mark.parametrize("as_zip", [True, False])
def test_a_pickle_among_weights_is_never_run(tmp_path, state, as_zip):
    path = tmp_path / "generator.params"
    torch.save(state, path, _use_new_zipfile_serialization=as_zip)
    sampled(path)
    content = path.read_bytes()
    checksum = hashlib.blake2b(content, digest_size=16).hexdigest()  # whoever means harm can compute it
    path.rename(tmp_path / f"step-000001-{checksum}.pt")
    with pytest.raises(UserError, match="not a checkpoint of this run"):
        checkpoint.load(tmp_path, {})
    assert not (tmp_path / "pwned").exists()


def test_weights_with_a_pickle_before_or_of_another_protocol_are_refused(tmp_path):
    path = tmp_path / "generator.params"
    torch.save(STATE, path)
    sampled(written(path, pickle.dumps({}, 4) + path.read_bytes()))
    torch.save(STATE, path, pickle_protocol=4)
    assert "is pickled by protocol 4" in sampled(path)


class Takes:
    """Pickled, it is a call that takes two gigabytes."""

    def __reduce__(self):
        return bytearray, (2 << 30,)


def test_a_kilobyte_that_asks_for_gigabytes_does_not_get_them(tmp_path):
    sampled(tmp_path / "generator.params", {**STATE, "x": Takes()})  # `command` looks at the memory


def test_weights_that_are_a_zip_bomb_are_not_unpacked(tmp_path):
    torch.save(STATE, tmp_path / "whole")
    with (
        zipfile.ZipFile(tmp_path / "whole") as whole,
        zipfile.ZipFile(tmp_path / "generator.params", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as bomb,
    ):
        for info in whole.infolist():
            bomb.writestr(info.filename, bytes(2**28) if info.filename.endswith("data/0") else whole.read(info))
    assert "would grow in memory" in sampled(tmp_path / "generator.params")
