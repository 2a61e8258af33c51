"""Measurements: Sixfold beside its peers in one run, on this machine. ``python -m bench -h``."""
