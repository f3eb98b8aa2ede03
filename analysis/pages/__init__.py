"""Output for people: figures, tables and pages, made from a finished comparison."""
