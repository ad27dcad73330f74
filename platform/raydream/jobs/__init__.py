"""The jobs, one file per command: what each checks, makes, summarizes and shows."""

import raydream.runtime  # noqa: F401  (Ray reads its settings when it is imported, which each job does first of all)
