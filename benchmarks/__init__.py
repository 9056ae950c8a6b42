"""Benchmark suites and what was measured."""

if __name__ != "peftselect.benchmarks":
    raise ImportError("import peftselect.benchmarks, not benchmarks: this folder ships inside the package")
