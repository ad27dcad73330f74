"""The coefficients of a run that follow from its teacher: they are numbers before anything else sees the settings."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from rich.console import Console

from raydream.jobs.teacher import found_or_trained, with_kept_teacher
from raydream.reporting.progress import printer, waiting
from raydream.runs.run_folder import RunFolder
from raydream.runtime.session import device_of_driver
from raydream.synthesis.balance import with_balance, with_numbers
from raydream.teachers.loading import load_teacher

Config = TypeVar("Config")
Say = Callable[[str], None]


def with_coefficients(
    config: Config,
    check: Callable[[Config, RunFolder | None, Say], Any],
    resumed: RunFolder | None,
    console: Console,
) -> tuple[Config, str]:
    """Return a job's settings with a number for each coefficient that is `auto`, and a sentence for the journal.

    Args:
        check: the job's own; it is called before a teacher is trained, so that bad input is refused at once.
        resumed: the folder of a run that is resumed.
        console: the user's terminal.

    Returns:
        the settings; the sentence is empty where no coefficient is `auto`.

    Raises:
        InputError: see `Job.check`.
    """
    asked: Any = config
    synthesis: Any = getattr(asked, "synthesis", None)
    names = () if synthesis is None else synthesis.coefficients.automatic
    if not names:
        return config, ""
    with waiting("networks and data to be checked", console):
        check(replace(asked, synthesis=with_numbers(synthesis, {})), resumed, lambda text: None)
    with waiting("the coefficients, and the teacher that they are chosen for", console):
        described = with_kept_teacher(asked.teacher, resumed)
        loaded = None if described.checkpoint is None else load_teacher(described)
        gpus = [each.gpus for each in (asked, *vars(asked).values()) if hasattr(each, "gpus")]
        recipe = asked.teacher, asked.training, asked.data
        teacher = found_or_trained(loaded, recipe, printer(console), device_of_driver(asked.device, gpus))
        chosen = with_balance(teacher, synthesis, asked.seed)
    numbers = ", ".join(f"{name} {getattr(chosen.coefficients, name):g}" for name in names)
    return replace(asked, synthesis=chosen), f"coefficients chosen by the lengths of the gradients at noise: {numbers}"
