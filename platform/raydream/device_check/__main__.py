"""One step of the check, in this process: `python -m raydream.device_check MODULE:FUNCTION OPTIONS ANSWER`.

OPTIONS are the function's keyword arguments as JSON; ANSWER is the file to write {ok, error, figures} to.
`raydream check` starts these processes.
"""

import argparse
import importlib
import json
import traceback
from pathlib import Path
from typing import Any

from raydream.device_check.steps import StepError
from raydream.store.atomic import write_json


def main() -> None:
    """Run the step that the command line names, and write its answer, also when the step fails."""
    parser = argparse.ArgumentParser(prog="python -m raydream.device_check", description=__doc__, allow_abbrev=False)
    parser.add_argument("target", metavar="MODULE:FUNCTION")
    parser.add_argument("options", metavar="OPTIONS", type=json.loads)
    parser.add_argument("answer", metavar="ANSWER", type=Path)
    given = parser.parse_args()
    write_json(given.answer, _answer(given.target, given.options))


def _answer(target: str, options: dict[str, Any]) -> dict[str, Any]:
    try:
        module, _, name = target.partition(":")
        return {"ok": True, "error": None, "figures": getattr(importlib.import_module(module), name)(**options)}
    except StepError as error:
        return {"ok": False, "error": str(error), "figures": error.figures}
    except Exception as error:  # whatever a device, a driver or a compiler raises
        traceback.print_exc()  # into the output, whose end the runner adds
        return {"ok": False, "error": f"{type(error).__name__}: {error}", "figures": {}}


if __name__ == "__main__":
    main()
