"""The buffer between making images and learning from them: pure parts, tested without Ray."""
