"""Benchmarks of nbtools, as ratios: ``python -m benchmarks`` (or ``make bench``)."""
