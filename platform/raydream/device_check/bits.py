"""Equal bits: a batch made twice in one process and twice in another, as lockstep and the reuse of images require."""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from raydream.compute import compute_deterministically, use_device
from raydream.device_check.steps import Figures, StepError
from raydream.device_check.subjects import find_subject
from raydream.errors import first_line
from raydream.synthesis import SYNTHESIZERS, Request

UPDATES = 20
Digests = dict[str, list[str]]
"""digests of the images of each case, one per repetition; or only the error"""


def equal_bits(device: str, deterministic: bool) -> Figures:
    """Make the same batches in two processes at once, twice in each, and compare all four copies.

    Each process has a separate compile cache, so that choices by timing are made again.

    Args:
        deterministic: whether the processes compute as in lockstep; if not, different bits are no failure.

    Raises:
        StepError: bits differ although they should not.
    """
    one, other = _in_two_processes(device, deterministic)
    figures: Figures = {case: compared(one[case], other[case]) for case in one}
    broken = [f"{case}: {each['error']}" for case, each in figures.items() if "error" in each]
    if broken:
        raise StepError("; ".join(broken), figures)
    differ = [case for case, equal in figures.items() if not all(equal.values())]
    if differ and deterministic:
        raise StepError(f"although all deterministic switches are set, bits differ: {', '.join(differ)}", figures)
    return figures


def compared(one: list[str], other: list[str]) -> Figures:
    """Compare the batches of two processes for one case."""
    for digests in (one, other):
        if len(digests) != 2:
            return {"error": digests[0]}
    in_a_process = one[0] == one[1] and other[0] == other[1]
    return {"in_a_process": in_a_process, "across_processes": {*one} == {*other} and in_a_process}


def digests(device: str, deterministic: bool) -> Digests:
    """Make each case's batch twice in this process."""
    where = use_device(device, 1, 1)
    if deterministic:
        compute_deterministically(where)
    # Uncompiled, the backward pass of max pooling has no deterministic form on CUDA; compiled, it has.
    cases = [("resnet20", "off"), ("resnet20", "on"), ("pooling", "on")]
    if where.type != "cuda":
        cases = [("resnet20", "off"), ("pooling", "off")]  # a CPU's compiled code has nothing to choose by timing
    return {f"{name}, compile {compiled}": _made_twice(name, device, compiled) for name, compiled in cases}


def _made_twice(name: str, device: str, compiled: str) -> list[str]:
    subject = replace(find_subject(name, device), updates=UPDATES)
    config = subject.synthesis(compile=compiled)
    synthesizer = SYNTHESIZERS[config.method](subject.teacher, config)
    found = []
    for _ in range(2):
        try:
            made = synthesizer.synthesize(Request(subject.targets(), seed=0))
        except RuntimeError as error:  # torch's, for an operation that has no deterministic form
            return [f"{type(error).__name__}: {first_line(error)}"]
        if made.notes:
            return [f"it did not run as asked: {'; '.join(made.notes)}"]
        found.append(hashlib.blake2b(made.images.cpu().numpy().tobytes(), digest_size=8).hexdigest())
    return found


def _in_two_processes(device: str, deterministic: bool) -> list[Digests]:
    """Make the digests in two processes; raises StepError where one fails."""
    options = json.dumps({"device": device, "deterministic": deterministic})
    with tempfile.TemporaryDirectory() as folder:
        answers = [Path(folder) / f"answer_{index}.json" for index in range(2)]
        processes = [
            subprocess.Popen(
                [sys.executable, "-m", __package__, f"{__name__}:digests", options, str(answer)],
                env={**os.environ, **_own_caches(answer)},
            )
            for answer in answers
        ]
        statuses = [process.wait() for process in processes]
        if any(statuses):
            raise StepError(f"the processes ended with status {statuses}", {})
        results = [json.loads(answer.read_text(encoding="utf-8")) for answer in answers]
    for each in results:
        if not each["ok"]:
            raise StepError(each["error"], {})
    return [each["figures"] for each in results]


def _own_caches(answer: Path) -> dict[str, str]:
    names = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")
    return {name: str(answer.with_suffix(f".{name.lower()}")) for name in names}
