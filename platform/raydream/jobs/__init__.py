"""The jobs, one file a command: what each checks, makes, sums up and shows."""

import raydream.runtime  # noqa: F401  (Ray reads its settings when it is imported, which each job does first of all)
