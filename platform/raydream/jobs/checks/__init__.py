"""What each job refuses before Ray starts. Nothing here imports Ray."""
