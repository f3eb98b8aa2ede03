"""Where a run is computed: the device, its graph, several of them, and their time."""
