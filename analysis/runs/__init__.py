"""The records of runs as tables: from run folders or from W&B."""
