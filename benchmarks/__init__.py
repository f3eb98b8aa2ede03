"""Speed and memory, ours beside what a user would run instead, as ratios from one run. Never a timed test."""
