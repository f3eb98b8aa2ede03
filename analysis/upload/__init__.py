"""Uploads to W&B once runs are scored: the scores on their runs, the comparison."""
