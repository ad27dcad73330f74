"""The buffer between generators and student: pure parts, tested without Ray."""
