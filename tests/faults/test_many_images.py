"""A hundred thousand images in one folder."""

import os
import resource
import subprocess
import sys
import time

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
    command += [word for setting in settings for word in ("--set", setting)]
    command += ["--runs", tmp_path / "runs", "--cache", tmp_path / "cache"]
    took = []
    for more in ([], ["--fresh"]):
        start = time.perf_counter()
        done = subprocess.run([*command, *more], cwd=ROOT, capture_output=True, text=True)
        took.append(time.perf_counter() - start)
        assert done.returncode == 0, done.stderr
        assert f"on {COUNT:,} images of images" in done.stderr
        assert ("packed 100000 images" in done.stderr) == (not more), "what is packed is not packed again"
    most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"{took[0]:.0f} s, again {took[1]:.0f} s, at most {most:.0f} MB")
    assert most < 2000
