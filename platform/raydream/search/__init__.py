"""Searches: what is tried, how it is judged, and what is kept of it; no torch, no Ray."""
