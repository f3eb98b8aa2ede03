"""What tests share: made runs, hostile files, a killer, a terminal, a stand-in for W&B's server."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
