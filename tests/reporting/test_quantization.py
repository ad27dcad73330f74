"""A quantized network's layers and calibration images, as a page shows them."""

from raydream.reporting.quantization import MOST_LAYERS, layer_rows, sensitivity_figure, source_rows

SOURCES = [{"source": "these images", "images": 40, "accuracy": 0.9, "agreement": 0.95, "calibration_error": 0.02}]


def layers(count: int) -> list[dict[str, object]]:
    rest = {"weights": 1234, "weight_bits": 4, "input_bits": 8, "agreement": 0.5}
    return [{"layer": f"conv{index}", "divergence": 1.0 / (1 + index), **rest} for index in range(count)]


def test_sources_are_shown_in_percent():
    assert source_rows({"sources": SOURCES}) == [
        ["calibration images", "accuracy", "agreement", "calibration error"],
        ["these images", "90.0 %", "95.0 %", "2.0 %"],
    ]


def test_layers_are_shown_with_the_most_sensitive_above():
    rows, figure = layer_rows({"layers": layers(3)}), sensitivity_figure({"layers": layers(3)})
    assert rows is not None and rows[1] == ["conv0", "1,234", "4, 8", "1", "50.0 %"]
    assert figure is not None
    bars = figure.axes[0].patches
    assert [bar.get_width() for bar in bars] == sorted(bar.get_width() for bar in bars)


def test_of_many_layers_the_most_sensitive_are_shown():
    rows = layer_rows({"layers": layers(100)})
    assert rows is not None and len(rows) == 1 + MOST_LAYERS and rows[-1][0] == f"conv{MOST_LAYERS - 1}"


def test_other_jobs_summaries_have_neither():
    for summary in ({}, {"sources": [], "layers": []}, {"layers": 12}):
        assert source_rows(summary) is None and layer_rows(summary) is None and sensitivity_figure(summary) is None
