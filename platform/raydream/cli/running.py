"""Commands that are runs: from a command line to a checked configuration, and from the outcome to an exit status."""

import argparse
import contextlib
import os
import shlex
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from raydream.cli.help import help_page
from raydream.cli.settings import Asked, Setting, defaults_of, leaves, located, placed, read_command_line
from raydream.commands import CommandEntry, imported, show
from raydream.config.conversion import as_dict, validate
from raydream.config.network_names import check_networks
from raydream.config.synthesis import AUTO
from raydream.errors import InputError, RaydreamError, first_line
from raydream.extras import require
from raydream.interruption import Interruption
from raydream.memory import is_out_of_memory
from raydream.runs import references as runs
from raydream.runs import run_folder
from raydream.store.yaml_files import yaml_text
from raydream.terminal import printable

Config = TypeVar("Config")

EXIT_FAILURE, EXIT_BAD_INPUT, EXIT_INTERRUPTED = 1, 2, 130
EXIT_SIGNALED = 128
"""exit status of a signal, plus its number"""
KEPT = "what was committed is kept"


@dataclass
class Command(Generic[Config]):
    """A user's parsed command line.

    Attributes:
        config: resolved and checked field by field.
        run_dir: path or URL of the folder of the new or resumed run.
        resumed: the folder of a run that is resumed.
        track: names of the trackers, beside TensorBoard, that the curves of this session are sent to.
        by_default: whether `run_dir` was not chosen by the user; another one replaces it if another job takes it first.
    """

    config: Config
    run_dir: str
    resumed: run_folder.RunFolder | None
    by_default: bool = False
    track: tuple[str, ...] = ()

    def folder(self, job: str) -> run_folder.RunFolder:
        """Return the folder of the run, which is begun here if it is new.

        Args:
            job: the job that begins it.
        """
        if self.resumed:
            return self.resumed
        settings = as_dict(self.config)
        while True:
            try:
                return run_folder.begin(self.run_dir, settings, job)
            except run_folder.TakenError:
                if not self.by_default:
                    raise
                self.run_dir = run_folder.default_path(settings["experiment"])


Defaults = Callable[[Mapping[str, Any]], dict[str, Any]]
"""maps the nested settings that a user gives to the defaults beneath them"""


def parse(
    kind: type[Config],
    command: str,
    arguments: Sequence[str] | None = None,
    defaults: Defaults = lambda given: {},
) -> Command[Config]:
    """Read the command line of a job.

    Args:
        kind: the job's configuration class; has a field `experiment`.
        command: name in the table of commands, for error messages; empty: none.
        arguments: default: those of the process.
        defaults: of the settings, if they depend on the user's settings.

    Raises:
        InputError: an unknown option, a value out of range, or a run folder that does not fit.
        SystemExit: after `--print-config` (status 0).
    """
    asked = read_command_line(kind, command, sys.argv[1:] if arguments is None else arguments)
    resumed = None if asked.resume is None else _run_in(asked.resume)
    settings = _settings(kind, asked, {} if resumed is None or asked.has_file else resumed[1], defaults)
    if asked.print_config:
        print(yaml_text(settings), end="")
        raise SystemExit(0)
    try:
        if resumed is None:
            return _new(kind, asked, runs.resolve(settings))
        return _resumed(kind, asked, runs.resolve(settings), *resumed)
    except InputError as error:
        raise located(error, asked.settings) from error


def _settings(kind: type, asked: Asked, stored: Mapping[str, Any], defaults: Defaults) -> dict[str, Any]:
    """Return all settings, nested: the user's, above those of a resumed run, above the defaults."""
    given = [*(Setting(*leaf) for leaf in leaves(kind, stored)), *asked.settings]
    said: dict[str, Any] = {}
    for setting in given:
        said = placed(said, setting.path, setting.value)
    settings = defaults_of(kind)
    for setting in [*(Setting(*leaf) for leaf in leaves(kind, defaults(said))), *given]:
        settings = placed(settings, setting.path, setting.value)
    return settings


def _new(kind: type[Config], asked: Asked, settings: dict[str, Any]) -> Command[Config]:
    config = validate(kind, settings)
    where = asked.run_dir or run_folder.default_path(getattr(config, "experiment"))  # noqa: B009
    if _is_submitted() and not ("://" in where or Path(where).is_absolute()):
        remedy = "the folder that a submitted job runs in goes with the cluster: name one on shared storage"
        raise InputError("--run-dir", where, "an absolute path that all nodes reach, or a URL", remedy)
    run_folder.check_new(where)
    check_networks(config)
    return Command(config, where, None, by_default=not asked.run_dir, track=asked.track)


def _resumed(
    kind: type[Config], asked: Asked, settings: dict[str, Any], folder: run_folder.RunFolder, stored: dict[str, Any]
) -> Command[Config]:
    config = validate(kind, stored)
    if asked.run_dir is not None:
        raise InputError("--run-dir", asked.run_dir, "left out beside --resume", "a run is resumed in its own folder")
    begun_with = as_dict(config)
    given = _with_numbers(as_dict(validate(kind, settings)), begun_with)
    difference = run_folder.first_difference(begun_with, given)
    if difference:
        field, there, here = difference
        remedy = "a resumed run keeps its settings: leave the option out, or begin a new run"
        raise InputError(field, here, f"{there!r}, as in {folder.shown('config.yaml')}", remedy)
    return Command(config, str(asked.resume), folder, track=asked.track)


def _with_numbers(given: dict[str, Any], begun_with: dict[str, Any]) -> dict[str, Any]:
    """Return settings in which a coefficient that is `auto` is the number that was chosen when the run was begun."""
    if (synthesis := given.get("synthesis")) is None:
        return given
    chosen = begun_with["synthesis"]["coefficients"]
    coefficients = {name: chosen[name] if value == AUTO else value for name, value in synthesis["coefficients"].items()}
    return {**given, "synthesis": {**synthesis, "coefficients": coefficients}}


def run_command(entry: CommandEntry, words: Sequence[str]) -> int:
    """Run a command that has a configuration; returns the exit status, see `run_job`."""
    kind = imported(entry.config)
    try:
        if (topic := _topic(words)) is not None:
            show(help_page(entry, kind, topic))
            return 0
        if not words and not entry.given:
            _say(help_page(entry, kind))
            return EXIT_BAD_INPUT
        require(entry.extra, f"raydream {entry.name}")
    except InputError as error:
        _say(f"error: {error}")
        return EXIT_BAD_INPUT
    given = imported(entry.defaults) if entry.defaults else lambda said: {}
    return run_job(kind, entry.name, lambda command: imported(entry.target)(command), given, [*entry.given, *words])


def _topic(words: Sequence[str]) -> str | None:
    """Return the topic of `--help`, empty for the short page; None if help is not requested."""
    for at, word in enumerate(words):
        if word in ("--help", "-h"):
            after = words[at + 1 : at + 2]
            return after[0] if after and not after[0].startswith("-") else ""
        if word.startswith("--help="):
            return word.removeprefix("--help=")
    return None


def run_job(
    kind: type[Config],
    name: str,
    job: Callable[[Command[Config]], Any],
    defaults: Defaults = lambda given: {},
    arguments: Sequence[str] | None = None,
) -> int:
    """Read the command line, run the job, and report its outcome as an exit status and one sentence.

    Args:
        kind, defaults, arguments: as in `parse`.
        name: of the command.
        job: called with the command. It imports heavy packages itself, so that bad input is reported first.

    Returns:
        0 done, 1 failure, 2 bad input, 130 interrupted by Ctrl-C, 143 by SIGTERM, 129 by SIGHUP.
    """
    # A user's own network is imported from where the job is started. That comes last: no file that happens to lie
    # there, say html.py, takes the place of a module that Python or a package brings.
    sys.path.append(str(Path.cwd()))
    command: Command[Config] | None = None
    with Interruption() as interruption:
        try:
            command = parse(kind, name, arguments, defaults)
            job(command)
            return 0
        except (KeyboardInterrupt, Exception) as error:
            status, said = _ending(error, interruption.signal)
        with contextlib.suppress(KeyboardInterrupt):  # a further one, while a store is slow to answer
            _say(said)
            if status != EXIT_BAD_INPUT and command is not None and run_folder.is_begun(command.run_dir):
                _say(f"to resume: {shlex.join([*_started_as(name), '--resume', command.run_dir])}")
        return status


def run_tool(
    parser: argparse.ArgumentParser, tool: Callable[[argparse.Namespace], None], words: Sequence[str] | None = None
) -> int:
    """Run a command that is not a run and has neither a configuration nor Ray.

    Args:
        tool: called with the arguments; it imports heavy packages itself.
        words: of the command line, without which the help is printed; default: those of the process.

    Returns:
        0 done, 1 failure, 2 bad input or no words, 130 interrupted by Ctrl-C.

    Raises:
        SystemExit: after `--help` (status 0), or an unknown option (status 2).
    """
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # a reader that has seen enough, such as head, ends it in silence
    words = sys.argv[1:] if words is None else words
    if not words:
        _say(parser.format_help().rstrip())
        return EXIT_BAD_INPUT
    try:
        tool(parser.parse_args(words))
        return 0
    except InputError as error:
        _say(f"error: {error}")
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        _say("interrupted")
        return EXIT_INTERRUPTED
    except (RaydreamError, OSError) as error:
        _say(f"failed: {error}")
        return EXIT_FAILURE


def _ending(error: BaseException, signaled: signal.Signals | None) -> tuple[int, str]:
    """Return the exit status and sentence for the error that ended a job; re-raises a mistake in the code.

    Any error after a signal counts as the signal's: Ray's processes may have received it, too, or a terminal is closed.
    """
    if signaled is not None:
        return EXIT_SIGNALED + signaled, f"interrupted by {signaled.name}: {KEPT}"
    if isinstance(error, KeyboardInterrupt):
        return EXIT_INTERRUPTED, f"interrupted: {KEPT}"
    if isinstance(error, InputError):
        return EXIT_BAD_INPUT, f"error: {error}"
    if isinstance(error, RaydreamError | OSError):
        return EXIT_FAILURE, f"failed: {error}"
    if is_out_of_memory(error):
        remedy = "free memory, or lower the number of images or the batch size"
        return EXIT_FAILURE, f"failed: out of memory ({first_line(error)}): {remedy}"
    raise error


def _run_in(where: str) -> tuple[run_folder.RunFolder, dict[str, Any]]:
    """Return the run to resume, and the configuration it was begun with; raises InputError if it cannot be resumed."""
    folder, stored = run_folder.resume(where)
    run_folder.check_engine(folder)
    return folder, stored


def _started_as(name: str) -> list[str]:
    """Return the words by which the user started this command: `raydream NAME`, or Python with a script."""
    started = Path(sys.argv[0])
    if started.name == "__main__.py":
        return [sys.executable, "-m", "raydream", name]
    return ["raydream", name] if started.stem == "raydream" else [sys.executable, sys.argv[0]]


def _is_submitted() -> bool:
    """Return whether this is the entry point of a job that was submitted to a Ray cluster."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def _say(text: str) -> None:
    with contextlib.suppress(OSError):  # of a terminal that is closed
        print(*map(printable, text.split("\n")), sep="\n", file=sys.stderr, flush=True)
