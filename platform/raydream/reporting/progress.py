"""Progress: a live display in a terminal, one plain line per round elsewhere."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from raydream.runs.summaries import Measured
from raydream.terminal import printable

LINE_S = 10.0
"""seconds without a line after which one is printed where there is no terminal"""


def printer(console: Console) -> Callable[[str], None]:
    """Return a function that prints lines verbatim: without coloring, wrapping, markup or escapes."""
    show = partial(console.print, highlight=False, soft_wrap=True, markup=False)
    return lambda text: show("\n".join(map(printable, text.split("\n"))))


class Pace:
    """The remaining time of some work, estimated from progress since this session's first piece of it.

    So neither the work of earlier sessions nor the start-up time of processes counts.

    Args:
        of: total amount of work.
    """

    def __init__(self, of: float) -> None:
        self._of = of
        self._first: tuple[float, float] | None = None

    def left_s(self, done: float, now: float | None = None) -> float | None:
        """Return the remaining seconds; None while unknown; arguments as `per_s`."""
        per_s = self.per_s(done, now)
        if done >= self._of:
            return 0.0
        return None if per_s is None else (self._of - done) / per_s

    def per_s(self, done: float, now: float | None = None) -> float | None:
        """Return the work done in a second; None while unknown.

        Args:
            done: work done, earlier sessions included; where it falls, as some was lost, the estimate restarts.
            now: time in seconds; default: the clock.
        """
        now = time.monotonic() if now is None else now
        if self._first is None or done < self._first[1]:
            self._first = (now, done) if done > 0 else None
        if self._first is None or done == self._first[1] or now == self._first[0]:
            return None
        since, before = self._first
        return (done - before) / (now - since)


def time_text(seconds: float | None) -> str:
    """Format a duration in its largest unit and the one below; a question mark where it is unknown."""
    if seconds is None:
        return "?"
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    if seconds < 60:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min" if hours < 24 else f"{hours // 24} d {hours % 24} h"


def device_text(who: str, gpus: float) -> str:
    """Format where processes compute, such as `generators on GPUs`.

    Args:
        gpus: the share of a GPU that each reserves.
    """
    return f"{who} on {'GPUs' if gpus else 'CPUs'}"


def end_text(left_s: float | None, now: float | None = None) -> str:
    """Format the remaining time, with the time of day at which the work ends where that is a minute away or more.

    Args:
        now: seconds since the epoch; default: the clock.
    """
    if left_s is None or left_s < 60:
        return time_text(left_s)
    end = time.localtime((time.time() if now is None else now) + left_s)
    day = time.strftime("%a " if left_s >= 24 * 3600 else "", end)
    return f"{time_text(left_s)}, until {day}{time.strftime('%H:%M', end)}"


@dataclass
class DisplayState:
    """The state that the display shows.

    Attributes:
        stage: the current stage, or the awaited event.
        round, rounds: rounds that the student has ended, of all.
        step, steps: distillation steps, of all.
        images, all_images: images made, of all.
        images_per_s: speed since the first batch began.
        generators: generators making a batch now, of all.
        making: share of updates done of each batch in progress, by batch id.
        accuracy: the student's accuracy by data set, in [0, 1].
        loss, agreement: the student's, of the steps last reported; the agreement with the teacher is in [0, 1].
        devices: where generators and student compute, in words.
        seconds: since the run began.
        left_s: remaining seconds of making or of learning, whichever is longer; None: unknown.
    """

    rounds: int
    steps: int
    all_images: int
    all_generators: int
    stage: str = "starting"
    round: int = 0
    step: int = 0
    images: int = 0
    images_per_s: float = 0.0
    generators: int = 0
    making: dict[str, float] = field(default_factory=dict)
    accuracy: dict[str, float] = field(default_factory=dict)
    loss: float | None = None
    agreement: float | None = None
    devices: str = ""
    seconds: float = 0.0
    left_s: float | None = None

    @property
    def student(self) -> str:
        """Return the student's figures so far, in words."""
        learned = [] if self.loss is None else [f"loss {self.loss:.3f}"]
        learned += [] if self.agreement is None else [f"agrees with the teacher on {self.agreement:.1%}"]
        measured = [f"{name} {share:.1%}" for name, share in self.accuracy.items()]
        return "  ".join([*learned, *(measured or ["not measured yet"])])

    def line(self) -> str:
        """Format the state in one line."""
        devices = f"{self.devices}  " if self.devices else ""
        return (
            f"[{self.seconds:5.0f} s] round {self.round}/{self.rounds}  step {self.step}/{self.steps}  "
            f"images {self.images}/{self.all_images} ({self.images_per_s:.1f}/s)  student: {self.student}  "
            f"{devices}left {end_text(self.left_s)}  {self.stage}"
        )


class Pulse:
    """Says when a line is due where there is no terminal: whenever `LINE_S` seconds have passed without one.

    Args:
        clock: gives seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._last = clock, clock()

    def line(self) -> None:
        """Note that a line has been printed."""
        self._last = self._clock()

    def due(self) -> bool:
        """Return whether a line is due, and count it as printed."""
        if self._clock() - self._last < LINE_S:
            return False
        self.line()
        return True


@contextlib.contextmanager
def waiting(what: str, console: Console) -> Iterator[None]:
    """Outside a terminal, print every `LINE_S` seconds what a `with` block waits for, and since when.

    Args:
        what: is waited for, such as "Ray to start".
    """
    ended, began = threading.Event(), time.monotonic()

    def print_lines() -> None:
        while not ended.wait(LINE_S):
            printer(console)(f"[{time.monotonic() - began:5.0f} s] waiting for {what}")

    thread = None if console.is_terminal else threading.Thread(target=print_lines, daemon=True)
    if thread:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        if thread:
            thread.join()


class Display:
    """Shows a `DisplayState` as it changes; a context manager.

    Args:
        clock: see `Pulse`.
    """

    def __init__(
        self, state: DisplayState, console: Console | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.state, self._pulse = state, Pulse(clock)
        self._console = console or Console()
        self._live = Live(console=self._console, refresh_per_second=4) if self._console.is_terminal else None
        self._paces = Pace(state.steps), Pace(state.all_images)

    def __enter__(self) -> "Display":
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def update(self, **changes: Any) -> None:
        """Change the state, and show it."""
        for name, value in changes.items():
            setattr(self.state, name, value)
        steps, images = self._paces
        known = [left for left in (steps.left_s(self.state.step), images.left_s(self.state.images)) if left is not None]
        self.state.left_s = max(known, default=None)
        if self._live:
            self._live.update(self._table())
        elif self._pulse.due():
            self.say(self.state.line())

    def round_ended(self) -> None:
        """Outside a terminal, print a line for the round."""
        if not self._live:
            self._pulse.line()
            self.say(self.state.line())

    def say(self, text: str) -> None:
        """Print a line that stays."""
        printer(self._console)(text)

    def _table(self) -> Table:
        state = self.state
        table = Table.grid(padding=(0, 2))
        rows = {
            "stage": f"{state.stage}  ({state.seconds:.0f} s, left: {end_text(state.left_s)})",
            "rounds": f"{_bar(state.round, state.rounds)} {state.round} of {state.rounds}",
            "steps": f"{_bar(state.step, state.steps)} {state.step} of {state.steps}",
            "images": f"{_bar(state.images, state.all_images)} {state.images} of {state.all_images} in the buffer, "
            f"{state.images_per_s:.1f}/s, {state.generators} of {state.all_generators} generators busy",
            "in progress": "  ".join(f"{batch} {share:.0%}" for batch, share in sorted(state.making.items())),
            "student": state.student,
            "devices": state.devices,
        }
        for name, text in rows.items():
            table.add_row(f"[bold]{name}[/bold]", text)
        return table


class Counter:
    """Shows the progress of one count, with the remaining time; a context manager.

    Args:
        what: the things counted.
        done, of: current and final number.
        clock: see `Pulse`.
        where: the device, as `device_text` formats it, which is shown with the speed; empty: neither is shown.
    """

    def __init__(
        self,
        what: str,
        done: float,
        of: int,
        console: Console,
        clock: Callable[[], float] = time.monotonic,
        where: str = "",
    ) -> None:
        self._console, self._what, self._of, self._where = console, what, of, where
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:.0f} of {task.total:.0f}{task.fields[speed]}"),
            TimeElapsedColumn(),
            TextColumn("left:"),
            TextColumn("{task.fields[left]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(what, total=of, left="?", speed=self._speed(None))
        self._bar.update(self._task, completed=done)
        self._printed, self._began, self._pace, self._pulse = done, time.monotonic(), Pace(of), Pulse(clock)

    def __enter__(self) -> "Counter":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def update(self, done: float) -> None:
        """Show the number; outside a terminal, print a line for each tenth, and after `LINE_S` seconds without one."""
        left, speed = end_text(self._pace.left_s(done)), self._speed(self._pace.per_s(done))
        self._bar.update(self._task, completed=done, left=left, speed=speed)
        if self._console.is_terminal:
            return
        tenth = done > self._printed and done - self._printed >= self._of / 10
        if tenth or self._pulse.due():
            self._printed = done
            self._pulse.line()
            elapsed_s = time.monotonic() - self._began
            self.say(f"[{elapsed_s:5.0f} s] {done:.0f} of {self._of} {self._what}{speed}, left: {left}")

    def say(self, text: str) -> None:
        """Print a line that stays."""
        printer(self._console)(text)

    def _speed(self, per_s: float | None) -> str:
        if not self._where:
            return ""
        return f", {self._where}" if per_s is None else f" ({per_s:.1f}/s), {self._where}"


def _bar(done: int, of: int, width: int = 24) -> str:
    full = round(width * done / of) if of else width
    return "█" * full + "░" * (width - full)


def accuracy_rows(summary: Measured) -> dict[str, str]:
    """Return the accuracy rows of a run's table; none without real data to measure on."""
    if summary.student_accuracy is None:
        return {}
    on = f"on {summary.test_images} real test images ({summary.data})"
    return {
        "teacher": f"{summary.teacher_accuracy:.1%} {on}",
        "student, last": f"{summary.student_accuracy:.1%} {on}",
        "student, best": f"{summary.student_accuracy_best:.1%} at step {summary.student_accuracy_best_step}, chosen on "
        "validation",
    }


def result_table(rows: dict[str, str]) -> Table:
    """Build the table at a run's end; long text wraps to the next line, so that no path is cut short."""
    table = Table(show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    for name, text in rows.items():
        table.add_row(name, Text(printable(text)))
    return table
