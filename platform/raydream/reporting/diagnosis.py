"""The page of a diagnosis, from its summary."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from raydream.memory import in_words
from raydream.reporting.charts import Table
from raydream.reporting.page import Section, page_of_run, write_page
from raydream.runs.run_folder import RunFolder
from raydream.runs.summaries import DoctorSummary

MOST_LAYERS = 200
"""rows of the table of layers"""


def write_diagnosis(folder: RunFolder, summary: DoctorSummary) -> Path:
    """Write the page of a diagnosis to its report.html; raises OSError."""
    tiles = [
        ("faults", str(summary.faults), "shown by statistics or by real images"),
        ("suspicions", str(summary.suspicions), "hints: look at these first if images are bad"),
    ]
    page = page_of_run(folder, "doctor", summary, accuracies=tiles, facts=_facts(summary), sections=_sections(summary))
    return write_page(folder.report, replace(page, headline=_headline(summary)))


def _headline(summary: DoctorSummary) -> str:
    if summary.faults + summary.suspicions == 0:
        return "Nothing looks wrong"
    counts = {"fault": summary.faults, "suspicion": summary.suspicions}
    return " and ".join(f"{count} {what}{'s' * (count > 1)}" for what, count in counts.items() if count)


def _facts(summary: DoctorSummary) -> list[tuple[str, str]]:
    given = summary.input
    facts = [
        ("input", " x ".join(map(str, given["shape"])) + f", {given['classes']} classes"),
        ("mean", _numbers(given["mean"])),
        ("standard deviation", _numbers(given["std"])),
        ("prune", summary.pruned),
        ("export to ONNX", summary.exported),
        ("quantize", summary.quantized),
    ]
    if summary.estimate is not None:
        facts.append(("training input by the first layer, mean", _numbers(summary.estimate["mean"])))
        facts.append(("training input by the first layer, standard deviation", f"{summary.estimate['std']:.3g}"))
    if summary.probe is not None:
        cost = summary.probe["cost"]
        facts.append(("a batch", f"{cost['batch_size']} images, {cost['seconds_per_batch']:,.1f} s uncompiled"))
        facts.append(("memory that its updates keep", in_words(cost["memory_bytes"])))
    return facts


def _sections(summary: DoctorSummary) -> list[Section]:
    return [
        Section("Findings", _FINDINGS, [], _table(("severity", "about", "text", "remedy"), summary.findings)),
        Section("Real images", _FITS, [], _fits(summary.fits)),
        Section("Probes", _PROBES, [], _probes(summary.probe)),
        Section("Gradients at noise", _GRADIENTS, [], _gradients(summary.probe)),
        Section("BN statistics", _STATISTICS, [], _statistics(summary.statistics)),
        Section("Layers", _LAYERS, [], _layers(summary.layers)),
        Section("Suggested settings", _SUGGESTED, [], _suggested(summary.suggested)),
    ]


def _table(names: Iterable[str], rows: Iterable[Mapping[str, Any]]) -> Table | None:
    columns = list(names)
    found = [[str(row[name]) for name in columns] for row in rows]
    return Table(columns, found) if found else None


def _fits(fits: list[dict[str, Any]]) -> Table | None:
    rows = [
        {
            "normalization": fit["normalization"]["name"],
            "size": "x".join(map(str, fit["size"])),
            "misfit (nats)": f"{fit['misfit']:.3g}",
            "by their label": "" if fit["accuracy"] is None else f"{fit['accuracy']:.1%}",
        }
        for fit in fits
    ]
    return _table(rows[0] if rows else (), rows)


def _probes(probe: Mapping[str, Any] | None) -> Table | None:
    if probe is None:
        return None
    rows = [
        {
            "method": each["method"],
            "learning rate": f"{each['learning_rate']:g}",
            "coefficients": ", ".join(f"{name} {value:g}" for name, value in each["coefficients"].items() if value),
            "on target": "diverged" if each["diverged"] else f"{each['target_share']:.0%} of {each['images']}",
            "seconds an update": f"{each['seconds_per_update']:.3g}",
        }
        for each in probe["probes"]
    ]
    return _table(rows[0], rows)


def _gradients(probe: Mapping[str, Any] | None) -> Table | None:
    if probe is None:
        return None
    lengths, own = probe["gradients"], probe["probes"][0]["coefficients"]
    rows = [
        {"term": name, "gradient": f"{length:.3g}", "times its coefficient": f"{length * own[name]:.3g}"}
        for name, length in lengths.items()
    ]
    return _table(rows[0], rows) if rows else None


def _statistics(layers: list[dict[str, Any]]) -> Table | None:
    def shown(value: float | None) -> str:
        return "" if value is None else f"{value:.3g}"

    names = ("lowest_variance", "highest_variance", "farthest_mean")
    rows = [
        {"layer": layer["name"], "channels": layer["channels"], "state": layer["state"]}
        | {name.replace("_", " "): shown(layer[name]) for name in names}
        for layer in layers[:MOST_LAYERS]
    ]
    return _table(rows[0] if rows else (), rows)


def _layers(layers: list[dict[str, str]]) -> Table | None:
    return _table(("name", "kind", "map", "observed", "pruned", "quantized"), layers[:MOST_LAYERS])


def _suggested(suggested: Mapping[str, Any]) -> Table | None:
    rows = [
        {"setting": f"{section}.{name}", "value": str(value)}
        for section, settings in suggested.items()
        for name, value in settings.items()
    ]
    return _table(("setting", "value"), rows)


def _numbers(values: Iterable[float]) -> str:
    return ", ".join(f"{value:.3g}" for value in values)


_FINDINGS = (
    "A fault is shown by statistics or by real images; a suspicion is a hint, as without real images much can only be "
    "suspected; a note says that nothing is wrong, or what could not be determined."
)
_FITS = (
    "How far the statistics of real images are from the running ones, under each normalization and at other sizes: the "
    "median over channels, the mean over BN layers. The right settings have the least misfit."
)
_PROBES = "Short inversions: as configured, with balanced coefficients, and at other learning rates."
_GRADIENTS = "Length of each term's gradient with respect to the pixels of a batch of noise, before its coefficient."
_STATISTICS = "The running statistics that an inversion compares with; trained is what they should be."
_LAYERS = "What each job does with each layer, or why not; an empty cell means that the question does not arise."
_SUGGESTED = "What --apply FILE writes, with all other settings as they are."
