"""The jobs, one file a command. Each says what is its own; what they share is in `skeleton.py`."""
