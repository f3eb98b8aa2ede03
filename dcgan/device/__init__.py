"""The computing side of a run: the device, its graph, several of them, and their time."""
