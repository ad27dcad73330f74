"""Pruning: whole channels are taken out of a network, the least important first (section 4.3, eq. 10)."""

from raydream.pruning.loading import load_pruned

__all__ = ["load_pruned"]
