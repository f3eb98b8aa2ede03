"""A hundred thousand images in one folder."""

import os
import subprocess
import sys

import pytest
from PIL import Image
from support import ROOT

from dcgan.data import faces

COUNT = 100_000


@pytest.mark.long
@pytest.mark.slow
def test_a_hundred_thousand_images_in_one_folder_are_packed_and_found_again(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for number, picture in enumerate(faces.draw(range(100), 48)):
        Image.fromarray(picture).save(tmp_path / f"{number}.jpg", quality=90)
    for number in range(COUNT):
        os.link(tmp_path / f"{number % 100}.jpg", folder / f"{number:06d}.jpg")
    settings = ["image_size=32", "batch_size=16", "steps=2", "snapshots=1", "width_multiplier=0.0079", "images=all"]
    command = [sys.executable, "-m", "dcgan", "run", "baseline", "--profile", "smoke", "--data", folder]
    command += ["--set", *settings, "--runs", tmp_path / "runs", "--cache", tmp_path / "cache"]
    for more in ([], ["--fresh"]):
        with (tmp_path / "said").open("w") as said:
            process = subprocess.Popen([*command, *more], cwd=ROOT, stdout=said, stderr=said)
            _, status, used = os.wait4(process.pid, 0)  # of this process only, not of all that a test has started
        printed = (tmp_path / "said").read_text()
        assert status == 0, printed
        assert f"on {COUNT:,} images of images" in printed
        assert ("packed 100000 images" in printed) == (not more), "what is packed is not packed again"
        assert used.ru_maxrss / 1024 < 2000
