"""Steps that cost nothing, for tests of what runs them."""

import os
import subprocess
import sys
import time
from pathlib import Path

from raydream.device_check.steps import Figures, StepError


def facts(device: str) -> Figures:
    return {"has": {"cuda": False, "ray": True}, "device": device}


def options(device: str, **given: object) -> Figures:
    return {"device": device, **given}


def environment(device: str) -> Figures:
    names = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")
    return {name: os.environ[name] for name in names} | {"existed": [Path(os.environ[name]).exists() for name in names]}


def raises(device: str) -> Figures:
    raise ValueError(f"no such thing on {device}")


def finds(device: str) -> Figures:
    raise StepError("two digests differ", {"digests": [1, 2]})


def dies(device: str) -> Figures:
    print("the last words", flush=True)
    os._exit(7)


def sleeps(device: str, pids: str) -> Figures:
    """Never ends, and neither does a child that does not hear an interrupt."""
    ignoring = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(600)"
    child = subprocess.Popen([sys.executable, "-c", ignoring])
    Path(pids).write_text(f"{os.getpid()} {child.pid}")
    time.sleep(600)
    return {}


def leaves_a_child(device: str, pids: str) -> Figures:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path(pids).write_text(str(child.pid))
    return {"left": True}
