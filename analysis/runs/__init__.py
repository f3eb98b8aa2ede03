"""What was recorded, as tables: from run folders or from W&B."""
