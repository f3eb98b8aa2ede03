"""Many runs: planned here, run by Ray, shown in a table."""
