"""What tests share: made runs, hostile files, a killer, a terminal, a stand-in for W&B's server."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
#: Settings with which a step takes milliseconds.
TINY = ("image_size=32", "batch_size=8", "width_multiplier=0.0079", "images=40", "precision=fp32")
