"""Scripts by which a shell completes raydream's commands and options."""

import argparse
from collections.abc import Sequence

from raydream.cli.running import run_tool
from raydream.cli.settings import OPTIONS, all_names
from raydream.commands import NAMES, imported

BASH = """_raydream() {{
    local words=
    if [ "$COMP_CWORD" = 1 ]; then
        words="{commands}"
    else
        case "${{COMP_WORDS[1]}}" in
{cases}
        esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "${{COMP_WORDS[COMP_CWORD]}}"))
}}
complete -o default -F _raydream raydream
"""
ZSH = "autoload -U +X bashcompinit && bashcompinit\n"
FISH = "complete -c raydream -n __fish_use_subcommand -f -a '{commands}'\n"


def completion(words: Sequence[str]) -> int:
    """Run `raydream completion` with these arguments; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="raydream completion",
        description="Print a script by which a shell completes commands and options.",
        epilog='bash, zsh: eval "$(raydream completion bash)"    fish: raydream completion fish | source',
        allow_abbrev=False,
    )
    parser.add_argument("shell", choices=["bash", "zsh", "fish"])
    return run_tool(parser, lambda given: print(script(given.shell), end=""), words)


def script(shell: str) -> str:
    """Return the script for bash, zsh or fish."""
    options = {name: _options(entry.config) for name, entry in NAMES.items() if entry.config}
    commands = " ".join(NAMES)
    if shell == "fish":
        lines = [
            f"complete -c raydream -n '__fish_seen_subcommand_from {name}' -l '{option}'\n"
            for name, known in options.items()
            for option in known
        ]
        return FISH.format(commands=commands) + "".join(lines)
    cases = "\n".join(
        f'            {name}) words="{" ".join(f"--{option}" for option in known)}" ;;'
        for name, known in options.items()
    )
    return (ZSH if shell == "zsh" else "") + BASH.format(commands=commands, cases=cases)


def _options(config: str) -> list[str]:
    return [*OPTIONS, *all_names(imported(config))]
