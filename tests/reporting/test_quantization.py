"""A quantized network's layers and calibration images, as a page shows them."""

import pytest

from raydream.reporting.quantization import MOST_LAYERS, layer_rows, sensitivity_figure, source_rows

SOURCES = [{"source": "these images", "images": 40, "accuracy": 0.9, "agreement": 0.95, "calibration_error": 0.02}]


def layers(count: int) -> list[dict[str, object]]:
    rest = {"weights": 1234, "weight_bits": 4, "input_bits": 8, "agreement": 0.5}
    return [{"layer": f"conv{index}", "divergence": 1.0 / (1 + index), **rest} for index in range(count)]


def test_sources_are_shown_in_percent():
    others = [{**SOURCES[0], "source": "noise", "accuracy": 0.95}]
    table = source_rows({"sources": SOURCES + others})
    assert table is not None and table.headings == ["calibration images", "accuracy", "agreement", "calibration error"]
    assert table.rows[0] == ["these images", "90.0 %", "95.0 %", "2.0 %"] and table.best == [1]


def test_layers_are_shown_with_the_most_sensitive_above():
    table, figure = layer_rows({"layers": layers(3)}), sensitivity_figure({"layers": layers(3)})
    assert table is not None and table.rows[0] == ["conv0", "1,234", "4, 8", "1", "50.0 %"]
    assert figure is not None and figure.rows[0] == ("conv0", 1.0, "1 nats")
    assert [width for _, width, _ in figure.widths] == [100, 50, pytest.approx(100 / 3)]


def test_of_many_layers_the_most_sensitive_are_drawn_and_all_are_in_the_table():
    figure, table = sensitivity_figure({"layers": layers(100)}), layer_rows({"layers": layers(100)})
    assert figure is not None and len(figure.rows) == MOST_LAYERS and figure.rows[-1][0] == f"conv{MOST_LAYERS - 1}"
    assert table is not None and len(table.rows) == 100


def test_other_jobs_summaries_have_neither():
    for summary in ({}, {"sources": [], "layers": []}, {"layers": 12}):
        assert source_rows(summary) is None and layer_rows(summary) is None and sensitivity_figure(summary) is None
