"""The geometry of charts: where points, ticks, bands and bars lie, and what the page's script is given."""

import json
import math

import pytest

from raydream.reporting.charts import (
    ORDERED,
    SIZE,
    Axis,
    Bars,
    Chart,
    Lane,
    Line,
    MatrixCell,
    Panel,
    Scale,
    Timeline,
    banded,
    best_rows,
    category,
    number,
    ordered,
)

SHARES = Axis("accuracy", share=True)


STEPS, LOSS = Axis("step"), Axis("loss")


def panel(*lines: Line, x: Axis = STEPS, y: Axis = LOSS, **more: object) -> Panel:
    return Panel("loss", x, y, lines, **more)  # type: ignore[arg-type]


def test_a_point_lies_where_its_scales_say_with_high_values_above():
    drawn = panel(Line("a", [(0.0, 0.0), (10.0, 5.0)]), x=Axis("x", ends=(0.0, 10.0)), y=Axis("y", ends=(0.0, 10.0)))
    assert drawn.drawn[0].path == f"M0 {SIZE}L{SIZE} {SIZE // 2}"
    assert drawn.drawn[0].dots == f"M0 {SIZE}h0M{SIZE} {SIZE // 2}h0"


def test_what_is_not_finite_leaves_a_gap_and_is_null_for_the_script():
    made = panel(Line("a", [(0.0, 1.0), (1.0, math.nan), (2.0, math.inf), (3.0, 2.0), (4.0, 3.0)]))
    assert [made.drawn[0].path.count(sign) for sign in "ML"] == [2, 1]
    data = Chart("", [made]).data["panels"][0]["lines"][0]
    assert data["x"] == [0, 1, 2, 3, 4] and data["y"] == [1, None, None, 2, 3]
    json.dumps(data, allow_nan=False)


FEW, MANY = [(float(x), 1.0) for x in range(2)], [(float(x), 1.0) for x in range(100)]
DOTS = [
    (Line("a", FEW), True, True),
    (Line("a", MANY), True, False),
    (Line("a", FEW, marked=False), True, False),
    (Line("a", MANY, dots=True), False, True),
    (Line("a", FEW[:1], marked=False), True, True),
]


@pytest.mark.parametrize(("line", "has_path", "has_dots"), DOTS)
def test_a_line_has_dots_where_they_can_be_told_apart(line, has_path, has_dots):
    (drawn,) = panel(line).drawn
    assert (bool(drawn.path), bool(drawn.dots)) == (has_path, has_dots)


def test_steps_hold_until_the_next_point():
    ends = {"x": Axis("x", ends=(0.0, 1.0)), "y": Axis("y", ends=(0.0, 1.0))}
    assert panel(Line("a", [(0.0, 0.0), (1.0, 1.0)], steps=True), **ends).drawn[0].path == "M0 1000H1000V0"


TICKS = [
    (Axis("x"), [0.0, 100.0], ["0", "20", "40", "60", "80", "100"]),
    (Axis("x"), [0.0, 2.5e6], ["0", "500,000", "1e+06", "1.5e+06", "2e+06", "2.5e+06"]),
    (Axis("x", zero=True), [3.0, 4.0], ["0", "1", "2", "3", "4"]),
    (Axis("x", log=True), [1.0, 1000.0], ["1", "10", "100", "1,000"]),
    (Axis("x", log=True), [1.0, 30.0], ["1", "2", "5", "10", "20"]),
    (Axis("x", log=True), [0.0, 2.0], ["0", "0.5", "1", "1.5", "2"]),
    (SHARES, [0.1, 0.9], ["0 %", "20 %", "40 %", "60 %", "80 %", "100 %"]),
    (SHARES, [0.95, 0.99], ["95 %", "96 %", "97 %", "98 %", "99 %", "100 %"]),
    (Axis("x", names=("a", "b")), [], ["a", "b"]),
]


@pytest.mark.parametrize(("axis", "values", "texts"), TICKS)
def test_ticks_are_round_and_within_the_panel(axis, values, texts):
    ticks = Scale.of(axis, values).ticks
    assert [text for _, text in ticks] == texts
    assert [place for place, _ in ticks] == sorted(place for place, _ in ticks)
    assert all(0 <= place <= 100 for place, _ in ticks)


@pytest.mark.parametrize("values", [[], [math.nan], [math.inf], [5.0], [0.0], [1.0, 1.0], [-1e-300, 1e-300], [1e300]])
@pytest.mark.parametrize("axis", [Axis("x"), SHARES, Axis("x", log=True), Axis("x", zero=True)])
def test_values_at_the_edge_make_a_scale(axis, values):
    scale = Scale.of(axis, values)
    assert scale.low < scale.high and len(scale.ticks) < 20
    assert all(0 <= scale.share(value) <= 1 for value in values if math.isfinite(value))


def test_of_many_names_an_even_spread_is_shown():
    ticks = Scale.of(Axis("layer", names=tuple(map(str, range(100)))), []).ticks
    assert len(ticks) == 12 and (ticks[0][1], ticks[-1][1]) == ("0", "99")


@pytest.mark.parametrize(
    ("value", "text"), [(0.1 + 0.2, "0.3"), (1e-7, "1e-07"), (12345, "12,345"), (2.5e7, "2.5e+07")]
)
def test_numbers_of_ticks(value, text):
    assert number(value) == text


def test_colors_of_categories_repeat_dashed_and_those_of_an_order_span_it():
    assert [category(index) for index in (0, 7, 8)] == ["c0", "c7", "c0 dashed"]
    assert [ordered(place, 7) for place in range(8)] == [f"r{index}" for index in range(ORDERED)]
    assert [ordered(*each) for each in ((0, 0), (1000, 1000), (math.nan, 3))] == ["r0", "r7", "soft"]


def test_several_curves_are_a_mean_within_a_band_and_one_has_none():
    curves = {"a": [[(0.0, 0.2), (1.0, 0.4)], [(0.0, 0.4), (1.0, 0.8)]], "b": [[(0.0, 1.0)]]}
    a, b = banded(curves, {"a": "c0", "b": "c1"})
    assert a.points == [(0.0, pytest.approx(0.3)), (1.0, pytest.approx(0.6))]
    assert a.band == [(0.0, 0.2, 0.4), (1.0, 0.4, 0.8)] and not b.band
    made = panel(a, b, x=Axis("x", ends=(0.0, 1.0)), y=Axis("y", ends=(0.0, 1.0)))
    assert made.drawn[0].band == "M0 800L1000 600L1000 200L0 600Z" and made.drawn[1].band == ""
    lines = Chart("", [made]).data["panels"][0]["lines"]
    assert lines[0]["low"] == [0.2, 0.4] and lines[0]["high"] == [0.4, 0.8] and "low" not in lines[1]


def test_a_band_of_a_value_that_is_not_finite_is_left_out():
    (line,) = banded({"a": [[(0.0, math.nan), (1.0, 0.5)], [(0.0, 0.5), (1.0, 0.7)]]}, {"a": "c0"})
    assert line.band == [(0.0, 0.5, 0.5), (1.0, 0.5, 0.7)]


def test_only_panels_with_several_lines_have_keys():
    one, two = panel(Line("a", FEW)), panel(Line("b", FEW, "c1"), Line("c", FEW, "c2"), Line("d", FEW, key=False))
    assert Chart("", [one]).keys == [] and Chart("", [one, two]).keys == [("b", "c1"), ("c", "c2")]


def test_cells_of_a_matrix_go_down_and_to_the_right():
    names = ("0", "1", "2", "3")
    made = panel(x=Axis("named", names=names), cells=[MatrixCell(1, 2, 0.5, "class 1 named 2")])
    assert made.squares == [(500.0, 250.0, 250.0, made.cells[0])]
    x, y = made.ticks
    assert x[0] == (12.5, "0") and y[0] == (87.5, "0")


def test_bars_and_lanes_are_to_scale():
    assert [width for _, width, _ in Bars("", [("a", 2.0, ""), ("b", 1.0, ""), ("c", 0.0, "")]).widths] == [100, 50, 0]
    assert Bars("", [("a", 0.0, "")]).widths == [("a", 0.0, "")]
    made = Timeline("", [Lane("driver", [(0.0, 5.0, "c0", "start"), (5.0, 1e-6, "c1", "short")])], 10.0)
    assert made.drawn == [("driver", [("0", "500", "c0", "start"), ("500", "1", "c1", "short")])]
    assert Timeline("", [Lane("driver", [(0.0, 0.0, "c0", "")])], 0.0).drawn[0][1] == [("0", "1", "c0", "")]


BEST = [
    ([0.5, 0.9, 0.7], True, [1]),
    ([0.5, None, math.nan, 0.7], True, [3]),
    ([0.5, 0.5, 0.3], True, [0, 1]),
    ([0.5, 0.5], True, []),
    ([2.0, 1.0], False, [1]),
    ([0.5], True, []),
    ([], True, []),
    ([None, 0.3], True, []),
]


@pytest.mark.parametrize(("values", "higher", "rows"), BEST)
def test_the_best_rows(values, higher, rows):
    assert best_rows(values, higher) == rows
