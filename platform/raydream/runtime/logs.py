"""The log of each process of a run; every line names the run, the process's role and its index.

Ray keeps them by process (`ray logs`, the dashboard, or the session's folder on each node); what a user needs to know
is in the run's journal instead.
"""

import logging
import sys

import ray


def name_logs(role: str, index: int | None = None) -> None:
    """Make this Ray process log to its standard error as `run role index: message`.

    Args:
        index: of the process among those of its role; None if it is the only one.
    """
    if not ray.is_initialized():
        return  # the buffer of a simulation
    who = " ".join(map(str, [ray.get_runtime_context().namespace, role, *([] if index is None else [index])]))
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(f"%(asctime)s %(levelname)s {who}: %(message)s"))
    log = logging.getLogger("raydream")
    log.handlers, log.propagate = [handler], False
    log.setLevel(logging.INFO)
