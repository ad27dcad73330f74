"""Searches: their spaces, samplers, metrics and records; without torch and Ray."""
