"""The command line that all commands share: files in YAML, `--a.b VALUE`, `--help`, and errors of one sentence.

A configuration's types and docstrings define the options, so nothing is said twice. Neither torch nor Ray is imported
here, so that a mistake is reported at once.
"""

from raydream.cli.running import Command, parse, run_command, run_job, run_tool

__all__ = ["Command", "parse", "run_command", "run_job", "run_tool"]
