"""Speed and memory compared with what a user would run instead, as ratios from one run. Never a timed test."""
