"""Class-incremental learning without the old classes' images (section 4.5), and the ways to compare it with."""
