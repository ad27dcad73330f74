"""Hosts on one machine, joined by a switch: each has a network, process ids, /tmp/ray and /dev/shm of its own.

They are Linux namespaces without names, which live as long as the first process in each does. That process ends with
its standard input, at the latest when whoever made it dies; the kernel then ends whatever runs on that host and takes
its link away. So nothing is left behind however a test ends, and tests can go on side by side. All other folders are
the machine's: to the hosts they are a disk that they share.
"""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

FIRST = "ip link set lo up && echo up && read"
"""waits for the end of its input; in bash, which reaps whoever has lost its parent, as the first process must"""
OWN_FOLDERS = "mkdir -p /tmp/ray && mount -t tmpfs own /tmp/ray && mount -t tmpfs own /dev/shm"


class NoHostsError(Exception):
    """This machine, or this user, cannot have such hosts; says why."""


class Network:
    """Hosts by name, and the switch that joins them; see `network`.

    Attributes:
        addresses: by host, at which all others reach it.
    """

    def __init__(self, names: tuple[str, ...], ended: contextlib.ExitStack) -> None:
        self._ended = ended
        self._hosts: dict[str, int] = {}
        self.addresses: dict[str, str] = {}
        self._switch = self._first_process(FIRST, "--net").pid
        _on(self._switch, "ip link add bridge up type bridge")
        for name in names:
            self._add(name)

    def run(self, host: str, *command: str | Path, **options) -> subprocess.Popen[str]:
        """Start a command on a host, in the current folder and in a process group of its own.

        Args:
            options: of `subprocess.Popen`.
        """
        there = ["nsenter", f"--target={self._hosts[host]}", "--net", "--mount", "--pid", f"--wd={Path.cwd()}"]
        process = subprocess.Popen([*there, *map(str, command)], text=True, start_new_session=True, **options)
        self._ended.callback(_kill, process)
        return process

    def cut(self, host: str) -> None:
        """Pull a host's cable out of the switch: what is sent is lost, and nobody is told."""
        _on(self._switch, f"ip link set dev {host} down")

    def join(self, host: str) -> None:
        """Plug it in again."""
        _on(self._switch, f"ip link set dev {host} up")

    def _add(self, name: str) -> None:
        unshared = ["--net", "--mount", "--pid", "--mount-proc", "--fork", "--kill-child"]
        outside = self._first_process(f"{OWN_FOLDERS} && {FIRST}", *unshared).pid
        first = int(Path(f"/proc/{outside}/task/{outside}/children").read_text())
        self._hosts[name], self.addresses[name] = first, f"10.77.0.{len(self._hosts) + 1}"
        _on(self._switch, f"ip link add name {name} type veth peer name eth0 netns {first}")
        _on(self._switch, f"ip link set dev {name} master bridge up")
        _on(first, f"ip address add {self.addresses[name]}/24 dev eth0")
        _on(first, "ip link set dev eth0 up")

    def _first_process(self, script: str, *unshared: str) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        process = self._ended.enter_context(  # which closes its input, and waits for it
            subprocess.Popen(
                ["unshare", *unshared, "bash", "-c", script],
                stdin=pipe, stdout=pipe, stderr=pipe, text=True, start_new_session=True,
            )
        )  # fmt: skip
        if process.stdout.readline() != "up\n":
            raise NoHostsError(process.stderr.read().strip())
        return process


@contextlib.contextmanager
def network(*names: str) -> Iterator[Network]:
    """Hosts for the length of a `with` block; whatever runs on them ends with it.

    Args:
        names: of the hosts, up to 15 letters each.

    Raises:
        NoHostsError: see there.
    """
    with contextlib.ExitStack() as ended:
        try:
            hosts = Network(names, ended)
        except (OSError, subprocess.CalledProcessError) as error:
            raise NoHostsError(f"{error} {getattr(error, 'stderr', '')}") from error
        yield hosts


def _on(first: int, command: str) -> None:
    inside = ["nsenter", f"--target={first}", "--net", *command.split()]
    subprocess.run(inside, check=True, capture_output=True, text=True)


def _kill(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
