"""Runs side by side: which can be compared, and what the numbers say."""
