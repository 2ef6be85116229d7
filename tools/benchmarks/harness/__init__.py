"""All that benchmarks share: options, turns, tables and targets; made-up models, rows and caches; ways to the data."""
