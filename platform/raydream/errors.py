"""The errors that raydream raises on purpose, each one sentence a user can act on."""


class RaydreamError(Exception):
    """Base of every error raised on purpose; a job reports it without a stack trace (exit status 1)."""


LONGEST = 500
"""characters of a value that a sentence repeats"""


class InputError(RaydreamError, ValueError):
    """A value that a user gave and that cannot be used (exit status 2).

    Args:
        field: dotted name of the option, as it is typed on the command line.
        value: what was given.
        allowed: the allowed range, in words.
        remedy: what to do about it.
    """

    def __init__(self, field: str, value: object, allowed: str, remedy: str) -> None:
        shown = repr(value)
        shown = shown if len(shown) <= LONGEST else f"{shown[:LONGEST]}..."
        end = "" if remedy.endswith("?") else "."
        super().__init__(f"{field} = {shown}: must be {allowed}; {remedy.rstrip('.')}{end}")
        self.field, self.value, self.allowed, self.remedy = field, value, allowed, remedy

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        # The default would rebuild the exception from the finished sentence, and fail in the process that unpickles it.
        return type(self), (self.field, self.value, self.allowed, self.remedy)


class MistakeError(InputError):
    """A mistake in a command line or a configuration file, in a sentence of its own.

    Args:
        field: the option or the setting.
        sentence: what is wrong, where, and what to do.
    """

    def __init__(self, field: str, sentence: str) -> None:
        RaydreamError.__init__(self, sentence)
        self.field, self.value, self.allowed, self.remedy = field, None, "", sentence

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return type(self), (self.field, self.remedy)


class DivergenceError(RaydreamError):
    """Training or inversion that ran off to NaN or infinity."""


class SynthesisError(DivergenceError):
    """An inversion that kept diverging however often it was started anew."""


class ShardError(RaydreamError):
    """A shard of images that cannot be read: truncated, corrupted, or of an unknown format version."""


class DocumentError(RaydreamError, ValueError):
    """JSON or YAML that cannot be used: damaged, too large, or nested too deeply."""


class DiskFullError(RaydreamError, OSError):
    """A write for which there is no space; what was written before is kept."""


class StallError(RaydreamError, TimeoutError):
    """A wait that ran out of time; the message names who or what is missing."""


def first_line(error: BaseException) -> str:
    """What an error says, in one line; its kind where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
