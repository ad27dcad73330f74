"""Pruning: whole channels are taken out of a network, the least important first (section 4.3, eq. 10)."""
