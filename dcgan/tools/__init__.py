"""What any part may use: whole files, plain YAML."""
