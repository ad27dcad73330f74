"""The checks of each job before Ray starts. Nothing here imports Ray."""
