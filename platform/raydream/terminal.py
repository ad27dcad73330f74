"""Makes untrusted text harmless for a terminal or a page."""


def printable(text: object, most: int | None = None) -> str:
    """Return text with each character that does not print escaped as in Python, such as `\\x1b` or `\\udcff`.

    These are control characters (line breaks too, so that one text stays one line), invisible and direction-changing
    ones, and halves of surrogate pairs, by which Python keeps undecodable bytes of a file name.

    Args:
        text: any object; its `str` is shown.
        most: most characters shown, the last of them an ellipsis if some are left out; None: all.
    """
    letters = str(text)[: None if most is None else most + 1]
    shown = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in letters)
    return shown if most is None or len(shown) <= most else f"{shown[: most - 1]}…"
