"""Trained, frozen networks: loading, checking, training and finding them again."""
