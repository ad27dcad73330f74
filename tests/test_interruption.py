import contextlib
import io
import itertools
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import pytest
import torch

from raydream import interruption
from raydream.cli import Command, run_job
from raydream.config import DistillConfig
from raydream.errors import InputError, RaydreamError
from raydream.jobs.job import Job, carry_out
from raydream.runs import run_folder
from raydream.runs.run_folder import RunFolder
from raydream.runs.summaries import DistillSummary
from raydream.runs.summary import read
from tests.calls import TINY
from tests.summaries import example

STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


@pytest.fixture(autouse=True)
def usual_handlers() -> Iterator[None]:
    """What Ray has installed in this process, for whatever test ran before, is out of the way."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in interruption.ENDING}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def status_of(run_dir: Path, job: Callable[[Command[DistillConfig]], object], begin: bool = True) -> tuple[int, str]:
    """Exit status and error text of a job that has begun its run folder, or does so itself."""

    def begun(command: Command[DistillConfig]) -> None:
        if begin:
            command.folder("distill")
        job(command)

    error = io.StringIO()
    with contextlib.redirect_stderr(error), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["job.py", "--config", str(TINY), "--run-dir", str(run_dir)])
        patch.setattr(sys, "path", list(sys.path))
        status = run_job(DistillConfig, "a job", begun)
    return status, error.getvalue()


@pytest.mark.parametrize("number", STATUS, ids=lambda number: number.name)
def test_a_signal_ends_a_run_with_its_status_and_the_command_to_resume(number: signal.Signals, tmp_path: Path) -> None:
    after = []
    status, said = status_of(tmp_path / "run", lambda command: (signal.raise_signal(number), after.append("more")))
    assert status == STATUS[number] and not after
    assert said.startswith("interrupted") and "what was committed is kept" in said
    assert said.endswith(f"job.py --resume {tmp_path / 'run'}\n") and said.count("\n") == 2
    assert (number.name in said) == (number != signal.SIGINT), "Ctrl-C needs no name"
    assert all(signal.getsignal(each) is signal.SIG_DFL for each in interruption.ENDING)


@pytest.mark.parametrize("number", STATUS, ids=lambda number: number.name)
def test_a_second_signal_on_the_way_out_changes_nothing(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interruption, "ONCE_S", 0.0)

    def job(command: Command[DistillConfig]) -> None:
        try:
            signal.raise_signal(number)
        finally:
            signal.raise_signal(number)

    status, said = status_of(tmp_path / "run", job)
    assert status == STATUS[number] and said.startswith("interrupted") and "--resume" in said and said.count("\n") == 2


@pytest.mark.parametrize("number", STATUS, ids=lambda number: number.name)
def test_a_second_signal_while_the_end_is_said_is_no_traceback(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a store that takes its time to answer whether the run is begun."""
    monkeypatch.setattr(interruption, "ONCE_S", 0.0)
    monkeypatch.setattr(run_folder, "is_begun", lambda path: signal.raise_signal(number))
    status, said = status_of(tmp_path / "run", lambda command: signal.raise_signal(number))
    assert status == STATUS[number] and said.startswith("interrupted") and said.count("\n") == 1


@pytest.mark.parametrize("number", STATUS, ids=lambda number: number.name)
def test_a_signal_while_the_report_is_written_ends_a_run_that_is_done(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[RunFolder] = []

    def report(folder: RunFolder, config: DistillConfig, summary: DistillSummary) -> None:
        reported.append(folder)
        if len(reported) == 1:
            signal.raise_signal(number)

    summary = read(DistillSummary, example("distill"))
    job = Job("distill", lambda config, *_: (config, None), lambda *_: summary, lambda _: {}, report, figures=None)
    status, said = status_of(tmp_path / "run", lambda command: carry_out(job, command), begin=False)
    assert status == STATUS[number] and said.startswith("interrupted") and (tmp_path / "run/summary.json").exists()
    assert said.endswith(f"job.py --resume {tmp_path / 'run'}\n")
    monkeypatch.setattr(sys, "path", list(sys.path))
    arguments = ["--resume", str(tmp_path / "run")]
    assert run_job(DistillConfig, "a job", lambda command: carry_out(job, command), arguments=arguments) == 0
    assert len(reported) == 2, "its report is written again"


@pytest.mark.parametrize("number", interruption.ENDING, ids=lambda number: number.name)
@pytest.mark.parametrize(
    "error",
    [
        RaydreamError("a process was lost"),
        InputError("a", 1, "b", "c"),
        OSError(5, "the terminal is closed"),
        ValueError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_a_signal_leads_to_is_that_signals_end(
    number: signal.Signals, error: Exception, tmp_path: Path
) -> None:
    """As where Ray's processes get the signal, too, or a terminal can be written to no more."""

    def job(command: Command[DistillConfig]) -> None:
        try:
            signal.raise_signal(number)
        finally:
            raise error

    status, said = status_of(tmp_path / "run", job)
    assert status == STATUS[number] and said.startswith(f"interrupted by {number.name}") and "--resume" in said


def test_without_a_signal_an_unforeseen_error_is_no_interruption(tmp_path: Path) -> None:
    def job(command: Command[DistillConfig]) -> None:
        raise ValueError("a mistake in the code")

    with pytest.raises(ValueError, match="a mistake"):
        status_of(tmp_path / "run", job)


def test_signals_of_one_moment_interrupt_once_and_a_later_one_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """`timeout` signals its child and then its group; a closed terminal: the shell and the kernel both signal."""
    now, reached = [time.monotonic()], []
    monkeypatch.setattr(interruption, "monotonic", lambda: now[0])
    with interruption.Interruption() as interrupted:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGTERM)
        reached.append("the way out")
        now[0] += interruption.ONCE_S + 0.1
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    assert reached and interrupted.signal is signal.SIGHUP


def test_a_signal_that_is_ignored_stays_ignored(tmp_path: Path) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # by nohup
    status, said = status_of(tmp_path / "run", lambda command: signal.raise_signal(signal.SIGHUP))
    assert (status, said) == (0, "")
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_the_status_stands_where_nothing_can_be_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(5, "Input/output error")

    def job(command: Command[DistillConfig]) -> None:
        monkeypatch.setattr(sys, "stderr", Closed())
        signal.raise_signal(signal.SIGHUP)

    status, _ = status_of(tmp_path / "run", job)
    assert status == 129


@pytest.mark.parametrize("number", STATUS, ids=lambda number: number.name)
def test_a_held_signal_waits_for_the_end(number: signal.Signals) -> None:
    reached = []
    with interruption.Interruption() as interrupted:
        before = signal.getsignal(number)
        with pytest.raises(KeyboardInterrupt), interruption.signals_held():
            signal.raise_signal(number)
            reached.append("the end")
        assert signal.getsignal(number) is before
    assert reached and interrupted.signal is (None if number == signal.SIGINT else number)


def test_a_signal_at_any_line_of_holding_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interruption, "ONCE_S", 0.0)
    lines = itertools.count()
    last = 0

    def trace(frame: FrameType, event: str, argument: object) -> Callable[..., object] | None:
        nonlocal last
        if frame.f_code.co_filename != interruption.__file__:
            return None
        if event == "line" and (last := next(lines)) == at:
            signal.raise_signal(signal.SIGTERM)
        return trace

    with interruption.Interruption():
        for at in itertools.count():
            lines, raised = itertools.count(), False
            sys.settrace(trace)
            try:
                with interruption.signals_held():
                    pass
            except KeyboardInterrupt:
                raised = True
            finally:
                sys.settrace(None)
            if last < at:
                break
            assert raised, f"at line {at}"
    assert at > 12


def test_a_signal_that_nothing_handles_is_not_held() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruption.signals_held():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_nothing_is_held_beside_the_main_thread() -> None:
    entered = []

    def other() -> None:
        with interruption.signals_held():
            entered.append(True)

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert entered


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
    ids=type,
)
def test_a_driver_without_memory_fails_in_a_sentence(error: Exception, tmp_path: Path) -> None:
    def job(command: Command[DistillConfig]) -> None:
        raise error

    status, said = status_of(tmp_path / "run", job)
    assert status == 1 and said.startswith("failed: out of memory (") and "--resume" in said
