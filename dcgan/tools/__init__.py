"""Tools that any part may use: whole files, plain YAML, signals, the clock."""
