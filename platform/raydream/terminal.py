"""What is shown in a terminal or on a page: text that other people may have written, made harmless."""


def printable(text: object, most: int | None = None) -> str:
    """Text in which each character that does not print is escaped as Python writes it, such as `\\x1b` or `\\udcff`.

    These are control characters (line breaks too, so that one text stays one line), invisible and direction-changing
    ones, and halves of surrogate pairs, by which Python keeps the bytes of a file name that are no letters.

    Args:
        text: of any kind; its `str` is shown.
        most: characters shown at most, the last of them an ellipsis where some are left out; None: all.
    """
    letters = str(text)[: None if most is None else most + 1]
    shown = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in letters)
    return shown if most is None or len(shown) <= most else f"{shown[: most - 1]}…"
