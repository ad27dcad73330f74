"""Charts of a search: good trials, important settings, and the cost of finding the best."""

from collections.abc import Mapping

import pandas as pd

from raydream.reporting.charts import Axis, Bars, Chart, Line, Panel, ordered
from raydream.search.space import Dimension, Space, shown
from raydream.search.trials import Trials

LAST = 1000.0
"""the place of the best score in the order of colors"""
PIXELS = 120
"""width of a setting, at least"""


def parallel_coordinates(space: Space, trials: Trials, metric: str) -> Chart | None:
    """Draw a line for each trial through the values of all settings to its score; stopped ones are gray."""
    scored = [(trial.scores(metric)[-1], number, trial) for number, trial in trials.items() if trial.scores(metric)]
    if len(scored) < 2:
        return None
    done = [score for score, _, trial in scored if trial.status == "done"]
    worst, best = min(done, default=0.0), max(done, default=1.0)
    lowest, highest = min(score for score, *_ in scored), max(score for score, *_ in scored)
    lines = []
    for score, number, trial in sorted(scored, key=lambda each: (each[2].status == "done", each[0])):
        shares = [each.share_of(trial.point[each.name]) for each in space.dimensions]
        shares.append((score - lowest) / (highest - lowest) if highest > lowest else 0.5)
        place = LAST * (score - worst) / (best - worst) if best > worst else LAST
        color = ordered(place, LAST) if trial.status == "done" else "soft"
        name = f"trial {number}, {metric} {trial.reports[-1][metric]:.4g}"
        notes = [shown(trial.point)] * len(shares)
        lines.append(Line(name, list(enumerate(map(float, shares))), color, notes=notes, key=False))
    names = [f"{_short(each.name)}: {_ends(each)}" for each in space.dimensions]
    names.append(f"score: {lowest:.3g} to {highest:.3g}")
    x = Axis("", names=tuple(names))
    y = Axis("share of its range", share=True)
    panel = Panel(f"settings and score ({metric})", x, y, lines, width=PIXELS * len(names))
    return Chart(
        "Lines of good trials should bundle where a setting matters, and fan out where it does not.",
        [panel],
        (f"score {worst:.3g}", f"{best:.3g}") if done else None,
    )


def importance_bars(shares: Mapping[str, float]) -> Bars | None:
    """Draw a bar for each setting's share of the variance of scores."""
    rows = [(_short(name), share, f"{share:.1%}") for name, share in shares.items()]
    caption = "A long bar is a setting to search more finely; a short one may be left at its default."
    return Bars(caption, rows) if rows else None


def best_so_far(progress: pd.DataFrame, metric: str) -> Chart | None:
    """Draw the best score of an ended trial against trials, updates of pixels, and seconds of all trials."""
    if len(progress) < 2:
        return None
    labels = {
        "ended": "trials ended",
        "updates": "updates of the pixels of a batch",
        "seconds": "seconds of all trials",
    }
    panels = []
    for name, label in labels.items():
        points = list(zip(progress[name].astype(float), progress["best"].astype(float), strict=True))
        lines = [Line("best so far", points, steps=True)]
        panels.append(Panel(f"best score ({metric})", Axis(label), Axis("best score"), lines))
    caption = "The curves should level off; one that still rises at its end asks for more trials."
    return Chart(caption, panels)


def _ends(dimension: Dimension) -> str:
    return f"{_text(dimension.values[0])} to {_text(dimension.values[-1])}"


def _text(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _short(name: str) -> str:
    """Return a setting's name without the part that most share."""
    return name.removeprefix("synthesis.").removeprefix("coefficients.")
