"""What can happen to a file: bits flip, parts go missing, are doubled, or are overwritten by others."""

from hypothesis import strategies

PLACES = strategies.floats(0, 1, exclude_max=True)
"""of a file, as a share of its length"""

MUTATIONS = strategies.one_of(
    strategies.tuples(strategies.just("flip"), PLACES, strategies.integers(1, 255)),
    strategies.tuples(strategies.just("cut"), PLACES, strategies.just(0)),
    strategies.tuples(strategies.just("drop"), PLACES, strategies.integers(1, 64)),
    strategies.tuples(strategies.just("double"), PLACES, strategies.integers(1, 64)),
    strategies.tuples(strategies.just("zero"), PLACES, strategies.integers(1, 512)),
    strategies.tuples(strategies.just("write"), PLACES, strategies.binary(min_size=1, max_size=16)),
)


def mutated(content: bytes, mutations: list[tuple]) -> bytes:
    """A file's bytes after a few accidents in turn."""
    for kind, place, what in mutations:
        at = int(place * len(content))
        if kind == "flip" and content:
            content = content[:at] + bytes([content[at] ^ what]) + content[at + 1 :]
        elif kind == "cut":
            content = content[:at]
        elif kind == "drop":
            content = content[:at] + content[at + what :]
        elif kind == "double":
            content = content[:at] + content[at : at + what] + content[at:]
        elif kind == "zero":
            content = content[:at] + bytes(min(what, len(content) - at)) + content[at + what :]
        elif kind == "write":
            content = content[:at] + what + content[at + len(what) :]
    return content
