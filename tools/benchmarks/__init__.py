"""Benchmarks, a module each; ``tools/bench`` lists them and runs one by its name. README.md has their results."""
