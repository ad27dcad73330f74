"""The errors that raydream raises on purpose, each one sentence that a user can act on."""


class RaydreamError(Exception):
    """Base of every error raised on purpose; a job reports it without a stack trace (exit status 1)."""


LONGEST = 500
"""number of characters of a value that a sentence repeats"""


class InputError(RaydreamError, ValueError):
    """Raised for a value of the user's that cannot be used (exit status 2).

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
    """Raised for a mistake in a command line or a configuration file, with a complete sentence.

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
    """Raised if training or inversion reaches NaN or infinity."""


class SynthesisError(DivergenceError):
    """Raised if an inversion diverged at every restart."""


class ShardError(RaydreamError):
    """Raised for a shard of images that cannot be read: truncated, corrupted, or of an unknown format version."""


class DocumentError(RaydreamError, ValueError):
    """Raised for JSON or YAML that cannot be used: damaged, too large, or nested too deeply."""


class DiskFullError(RaydreamError, OSError):
    """Raised if there is no space for a write; what was written before is kept."""


class StallError(RaydreamError, TimeoutError):
    """Raised if a wait times out; the message names what is missing."""


def first_line(error: BaseException) -> str:
    """Return an error's message in one line, or its type if it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
