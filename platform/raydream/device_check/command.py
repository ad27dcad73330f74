"""The command line of the check, by argparse alone: the machine may lack the packages of other command lines."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from raydream.device_check.runner import run_steps
from raydream.device_check.steps import STEPS, CheckStep
from raydream.device_check.summary import failed, summary
from raydream.errors import InputError
from raydream.interruption import Interruption

EXIT_FAILURE, EXIT_BAD_INPUT, EXIT_INTERRUPTED = 1, 2, 130
DEVICES = ("auto", "cpu", "cuda", "mps")
MINUTES = 8.0


def check(description: str | None, arguments: Sequence[str] | None = None) -> int:
    """Read the command line, run the steps and print a summary.

    Args:
        description: for `--help`.
        arguments: command-line arguments; default: those of the process.

    Returns:
        exit status: 0 no step failed, 1 one did, 2 bad input, 130 interrupted.

    Raises:
        SystemExit: after `--help` (status 0), or an unknown option (status 2).
    """
    given = _parser(description).parse_args(arguments)
    try:
        steps, limit_s = _checked(given), 60 * given.minutes
        with Interruption():
            results = run_steps(steps, given.device, given.out, limit_s, lambda line: print(line, flush=True))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        print(f"interrupted: {given.out} has the steps that ended", file=sys.stderr)
        return EXIT_INTERRUPTED
    except OSError as error:
        print(f"failed: {error}", file=sys.stderr)
        return EXIT_FAILURE
    print(f"\n{summary(results, given.out)}")
    return EXIT_FAILURE if failed(results) else 0


def _parser(description: str | None) -> argparse.ArgumentParser:
    steps = "\n".join(f"  {step.name:24} {step.does}" for step in STEPS)
    parser = argparse.ArgumentParser(
        description=description,
        epilog=f"steps:\n{steps}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    out = "where to write {step: {ok, error, seconds, figures}}, again after each step (default: check.json)"
    parser.add_argument("--out", metavar="FILE", type=Path, default=Path("check.json"), help=out)
    device = "what to compute on: auto (CUDA where there is a GPU), cpu, cuda or mps (default: auto)"
    parser.add_argument("--device", default="auto", help=device)
    only = "run these steps alone, separated by commas; the first step always runs"
    parser.add_argument("--only", metavar="STEPS", default="", help=only)
    minutes = f"limit for all steps together; the steps' own deadlines grow with it (default: {MINUTES:g})"
    parser.add_argument("--minutes", type=float, default=MINUTES, help=minutes)
    return parser


def _checked(given: argparse.Namespace) -> list[CheckStep]:
    """Return the steps that the command line selects; raises InputError for unusable values."""
    if given.device not in DEVICES:
        raise InputError("--device", given.device, f"one of {', '.join(DEVICES)}", "choose one")
    if not 0 < given.minutes < float("inf"):
        raise InputError("--minutes", given.minutes, "> 0 and finite", "the check takes up to 8 on a GPU")
    if given.out.is_dir() or not given.out.absolute().parent.is_dir():
        raise InputError("--out", str(given.out), "a file in a folder that exists", "make the folder, or name another")
    names, known = [name for name in given.only.split(",") if name], [step.name for step in STEPS]
    for name in names:
        if name not in known:
            raise InputError("--only", name, f"some of {', '.join(known)}", "--help says what each does")
    if given.device != "auto":
        from raydream.compute import use_device  # here, as it loads torch

        use_device(given.device, 1, 1)
    patient = [replace(step, deadline_s=step.deadline_s * given.minutes / MINUTES) for step in STEPS]
    first, *others = patient
    return [first, *(step for step in others if not names or step.name in names)]
