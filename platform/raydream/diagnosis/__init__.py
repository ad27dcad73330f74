"""The diagnosis of a trained network before it is inverted: its layers, its statistics, its normalization, a probe.

Plain functions of a network or of its statistics, without Ray; `diagnose` puts them together, `jobs/doctor.py` reports.
"""
