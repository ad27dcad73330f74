"""Rewrite the figures of all pages: `python -m docs.figures` in the root of the repository."""

import sys

from docs.figures.pages import PAGES, PageError, filled, name


def main() -> int:
    """Rewrite what has changed; returns the exit status."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        try:
            new = filled(text)
        except PageError as error:
            print(f"error: {name(page)}: {error}", file=sys.stderr)
            return 1
        if new != text:
            page.write_text(new, encoding="utf-8")
            print(f"{name(page)}: figures rewritten")
    return 0


if __name__ == "__main__":
    sys.exit(main())
