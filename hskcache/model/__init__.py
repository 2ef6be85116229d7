"""The one place that reads models from folders and the hub, judges what came of it, and writes them for others."""
