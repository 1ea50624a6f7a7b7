"""Measuring: benchmarks, sweeps, ablations, tuning, precision, profiles, memory, baselines."""
