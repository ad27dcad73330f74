import pytest

from raydream.terminal import printable

SHOWN = [
    ("runs/grüße 中 ✓", "runs/grüße 中 ✓"),
    ("\x1b[2J", r"\x1b[2J"),
    ("a\nb\r\tc\x7f", r"a\nb\r\tc\x7f"),
    ("\x9b31m\udcff", r"\x9b31m\udcff"),
    ("\u202eabc\u200b", r"\u202eabc\u200b"),
    (r"C:\x", r"C:\x"),
    (None, "None"),
]


@pytest.mark.parametrize(("text", "shown"), SHOWN)
def test_what_does_not_print_is_escaped(text, shown):
    assert printable(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"), [("abcd", "abcd"), ("abcde", "abc…"), ("\x1bbcd", "\\x1…"), ("\x1b", "\\x1b")]
)
def test_long_text_is_cut(text, shown):
    assert printable(text, 4) == shown


def test_a_long_text_is_not_looked_at_to_its_end():
    assert printable("x" * 10**8, 3) == "xx…"
