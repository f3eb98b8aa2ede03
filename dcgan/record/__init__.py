"""The record of a run: its folder, checkpoints, losses, Weights & Biases."""
