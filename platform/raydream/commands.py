"""All commands of raydream in one table, and `raydream COMMAND ...` itself.

Only Python's own library is imported here. A command's code is imported when it runs, so `raydream --help` takes a
tenth of a second, and a mistake in the command line is found before torch is loaded.
"""

import difflib
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from raydream import __version__


@dataclass(frozen=True)
class CommandEntry:
    """A row of the table of commands.

    Attributes:
        name: what the user types after `raydream`.
        does: what the command does, in one sentence.
        target: its function, as `module:function`.
        config: the class that describes its settings, as `module:class`. The function then takes a
            `raydream.cli.Command`. Empty: the function reads the words of the command line itself and returns the exit
            status.
        aliases: former names, which still work.
        given: words that come before those of the user.
        extra: the optional dependencies that it needs, as `pip install 'raydream[EXTRA]'` names them; empty: none.
        defaults: a function, as `module:function`, from the user's settings to those that apply beneath them.
        examples: command lines for its help, without the word `raydream`.
    """

    name: str
    does: str
    target: str
    config: str = ""
    aliases: tuple[str, ...] = ()
    given: tuple[str, ...] = ()
    extra: str = ""
    defaults: str = ""
    examples: tuple[str, ...] = ()

    def run(self, words: Sequence[str]) -> int:
        """Run the command with these arguments; returns the exit status."""
        status: int = imported("raydream.cli:run_command")(self, words) if self.config else imported(self.target)(words)
        return status


COMMANDS = (
    CommandEntry(
        "demo",
        "Distill a student of handwritten digits from no real image, in minutes on two CPU cores.",
        "raydream.jobs.distill:distill",
        "raydream.config:DistillConfig",
        given=("--config", "digits"),
        examples=("demo", "demo --run-dir runs/first --seed 1"),
    ),
    CommandEntry(
        "doctor",
        "Diagnose a trained network: layers, statistics, normalization, a short inversion; and suggest settings.",
        "raydream.jobs.doctor:doctor",
        "raydream.config:DoctorConfig",
        examples=("doctor --config mine.yaml --real photos", "doctor --config mine.yaml --apply suggested.yaml"),
    ),
    CommandEntry(
        "synthesize",
        "Invert a trained network into a Parquet data set of images, with parallel generators on Ray.",
        "raydream.jobs.synthesize:synthesize",
        "raydream.config:SynthesizeConfig",
        defaults="raydream.config.synthesis:default_coefficients",
        examples=(
            "synthesize --config mine.yaml --images 1024",
            "synthesize --config imagenet_resnet50 --config preset:imagenet_multi_resolution",
        ),
    ),
    CommandEntry(
        "distill",
        "Invert a trained network into images and distill a student from them, in rounds, on Ray.",
        "raydream.jobs.distill:distill",
        "raydream.config:DistillConfig",
        defaults="raydream.config.synthesis:default_coefficients",
        examples=(
            "distill --config digits",
            "distill --config mine.yaml --config preset:cifar10_students --student.network cifar_resnet20",
        ),
    ),
    CommandEntry(
        "transfer",
        "Train a student from scratch on a finished set of images, toward the teacher that they are of, on Ray.",
        "raydream.jobs.transfer:transfer",
        "raydream.config:TransferConfig",
        defaults="raydream.config.synthesis:default_coefficients_if_made",
        examples=("transfer --config digits_transfer", "transfer --images runs/images/first --student.network digits"),
    ),
    CommandEntry(
        "prune",
        "Make a trained network smaller by whole channels, with nothing but a finished set of images, on Ray.",
        "raydream.jobs.prune:prune",
        "raydream.config:PruneConfig",
        defaults="raydream.config.synthesis:default_coefficients_if_made",
        extra="prune",
        examples=("prune --config digits_prune", "prune --images runs/images/first --pruning.ratio 0.3"),
    ),
    CommandEntry(
        "quantize",
        "Make a trained network int8 or smaller, with nothing but a finished set of images, on Ray.",
        "raydream.jobs.quantize:quantize",
        "raydream.config:QuantizeConfig",
        defaults="raydream.config.synthesis:default_coefficients_if_made",
        extra="quantize",
        examples=(
            "quantize --config digits_quantize",
            "quantize --images runs/images/first --quantization.weights 4 --quantization.activations 8",
        ),
    ),
    CommandEntry(
        "extend",
        "Teach a trained network new classes while images inverted from it stand for the old ones, on Ray.",
        "raydream.jobs.extend:extend",
        "raydream.config:ContinualConfig",
        defaults="raydream.config.continual:default_coefficients_if_inverted",
        aliases=("continual",),
        examples=("extend --config digits_continual", "extend --config mine.yaml --methods [deep_inversion,lwf_mc]"),
    ),
    CommandEntry(
        "evaluate",
        "Let other networks classify the images of a run: do they see the targets, too? (Table 2 of the paper)",
        "raydream.jobs.evaluate:evaluate",
        "raydream.config:EvaluateConfig",
        examples=("evaluate --images runs/images/first --verifiers cifar_resnet56=weights.th,run:runs/digits/first",),
    ),
    CommandEntry(
        "train",
        "Train a teacher on real data; `raydream distill` with the same teacher, training and data finds it again.",
        "raydream.jobs.train:train",
        "raydream.config:TeacherJobConfig",
        aliases=("train_teacher",),
        examples=("train --config digits_teacher", "train --config digits_teacher --training.epochs 60"),
    ),
    CommandEntry(
        "search",
        "Search the settings of an experiment with Ray Tune, for those with which its student learns best.",
        "raydream.jobs.search:search",
        "raydream.config:SearchConfig",
        extra="search",
        examples=(
            "search --config digits_poor_start --space coefficients",
            "search --config mine.yaml --space mine_space.yaml --trials 64 --searcher random",
        ),
    ),
    CommandEntry(
        "ablate",
        "Switch the terms of an experiment's objective on and off, in all combinations, over several seeds.",
        "raydream.jobs.ablate:ablate",
        "raydream.config:AblateConfig",
        examples=("ablate --config digits --seeds 3",),
    ),
    CommandEntry(
        "reproduce",
        "Make a table of the paper: all runs that it needs, in parallel on Ray, and the table beside the paper's.",
        "raydream.jobs.reproduce:reproduce",
        "raydream.config:ReproduceConfig",
        defaults="raydream.reproduction.scales:defaults_for",
        examples=("reproduce --table 1", "reproduce --table 6 --scale paper --estimate true"),
    ),
    CommandEntry(
        "report",
        "Compare runs: their differences, curves, pictures and final figures, in one self-contained HTML page.",
        "raydream.jobs.report:report",
    ),
    CommandEntry(
        "runs",
        "List the runs in a folder, show one, and delete those that are unfinished or old.",
        "raydream.jobs.runs:runs",
    ),
    CommandEntry(
        "check",
        "Check a machine, one with a GPU above all: does raydream compute there, how fast, and the same bits twice?",
        "raydream.jobs.check:check",
    ),
    CommandEntry(
        "configs",
        "List, show and copy the configurations, presets and search spaces that come with raydream.",
        "raydream.jobs.configs:configs",
    ),
    CommandEntry(
        "completion",
        "Print a script by which bash, zsh or fish completes commands and options.",
        "raydream.cli.completion:completion",
    ),
)
NAMES = {name: entry for entry in COMMANDS for name in (entry.name, *entry.aliases)}
"""commands by their current and former names"""


def main(words: Sequence[str] | None = None, command: str | None = None) -> int:
    """Run `raydream` with a command line; returns the exit status.

    Args:
        words: after `raydream`, or after the script of one command; None: those of the process.
        command: the command if its script is run; None: the first word names it.
    """
    # Threads that wait for each other spin otherwise: alone they are a twentieth faster, and beside other work two of
    # them up to 60 times slower than one. torch's OpenMP reads this when it is loaded; Ray's processes inherit it.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    given = list(sys.argv[1:] if words is None else words)
    if command is None:
        if not given:
            print(overview(), file=sys.stderr)
            return 2
        command, *given = given
        if command in ("--help", "-h", "help"):
            show(overview())
            return 0
        if command == "--version":
            print(f"raydream {__version__}")
            return 0
    if command not in NAMES:
        close = [] if command.startswith("-") else difflib.get_close_matches(command, NAMES, 1)
        remedy = f"Did you mean raydream {close[0]}?" if close else "`raydream --help` lists all commands."
        print(f"error: unknown command {command!r}. {remedy}", file=sys.stderr)
        return 2
    return NAMES[command].run(given)


def overview() -> str:
    """Return the text of `raydream --help`."""
    width = max(len(entry.name) for entry in COMMANDS)
    return "\n".join(
        [
            "usage: raydream COMMAND [OPTIONS]",
            "",
            "Turn a trained CNN into a data set, and that data set into other networks, with no real image.",
            "",
            "commands:",
            *(f"  {entry.name:{width}}  {entry.does}" for entry in COMMANDS),
            "",
            "examples:",
            "  raydream demo                          the whole way, in minutes on two CPU cores",
            "  raydream configs ls                    what --config NAME can name",
            "  raydream distill --config digits --seed 3",
            "  raydream distill --help                its options; --help SECTION and --help all say more",
            "  raydream --version",
        ]
    )


def show(text: str) -> None:
    """Print text for a reader that may close the pipe early, such as head."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # which then ends this process without a word
    print(text)


def imported(target: str) -> Any:
    """Import and return the function or class that `module:name` names."""
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)
