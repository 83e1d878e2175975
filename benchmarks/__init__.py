"""Measurements of btard; each module is a command line: ``python -m benchmarks.NAME --help``."""
