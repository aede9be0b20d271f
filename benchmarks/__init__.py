"""Measurements. ``python -m benchmarks`` prints one table; nothing here asserts."""
