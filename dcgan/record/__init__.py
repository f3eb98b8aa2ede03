"""What a run leaves: its folder, checkpoints, losses, Weights & Biases."""
