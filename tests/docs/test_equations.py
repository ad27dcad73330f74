"""Equations of the docs, as browsers draw them: no LaTeX is left, words are words, and letters of script are such."""

import re
import sys

import pytest

from tests.calls import ROOT
from tests.docs.test_examples import PAGES, name

sys.path.append(str(ROOT / "docs" / "_ext"))
pytest.importorskip("latex2mathml")
from mathml import converted  # type: ignore[import-not-found]

FENCED = re.compile(r"```.*?```|`[^`]*`", re.DOTALL)
EQUATION = re.compile(r"\$\$(.+?)\$\$|(?<![\\$])\$([^$\n]+)\$", re.DOTALL)
EQUATIONS = [
    (page, (found[1] or found[2]).strip())
    for page in PAGES
    for found in EQUATION.finditer(FENCED.sub("", page.read_text(encoding="utf-8")))
]


@pytest.mark.parametrize(("page", "latex"), EQUATIONS, ids=[f"{name(page)}: {latex}" for page, latex in EQUATIONS])
def test_an_equation_has_no_latex_left_and_no_word_in_single_letters(page, latex):
    shown = converted(latex)
    assert "\\" not in shown
    assert not re.search(r"(<mi>[a-z]</mi>){4}", shown), "write \\text{...}"


def test_equations_are_found():
    assert len(EQUATIONS) > 40


def test_script_letters_are_those_of_unicode():
    assert "<mi>ℒ</mi>" in converted(r"\mathcal L") and "mathvariant" not in converted(r"\mathcal R")
