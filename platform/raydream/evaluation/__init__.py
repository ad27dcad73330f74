"""Measuring networks."""
