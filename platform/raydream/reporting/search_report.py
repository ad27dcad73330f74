"""The report of a search: one self-contained page, made from its folder."""

from pathlib import Path

from raydream.config import SearchConfig
from raydream.data.sources import evenly_spread
from raydream.errors import ShardError
from raydream.reporting.charts import Mosaic, Table
from raydream.reporting.cost import cost_rows
from raydream.reporting.gallery import MOST_ROUNDS, mosaic
from raydream.reporting.page import Section, page_of_run, write_page
from raydream.reporting.search_figures import best_so_far, importance_bars, parallel_coordinates
from raydream.runs.run_folder import RunFolder
from raydream.runs.summaries import AblateSummary, SearchSummary
from raydream.search.importance import importances
from raydream.search.metrics import MEASURES, metric_of
from raydream.search.space import Space, shown
from raydream.search.trials import Trials, images_of
from raydream.store.shards import ShardStore

BEST_SHOWN = 12
"""trials in the table of the best"""


def write_search_report(
    folder: RunFolder, config: SearchConfig, space: Space, trials: Trials, summary: SearchSummary
) -> Path:
    """Write search.html of a completed search; raises OSError.

    Returns:
        its path.
    """
    metric = metric_of(config)
    shares, report, compared = importances(space, trials, metric)
    fanova = (
        f"Shares of the variance of scores that each setting accounts for by itself (functional ANOVA over a random "
        f"forest), of {compared} trials after report {report}, which is as much as half of them got. With few trials "
        f"these are rough."
    )
    sections = [
        Section("Best trials", _of(metric), [], _best(trials, metric)),
        Section(
            "Where the good trials lie",
            "Each line is a trial. Colors are scores of trials that came to their end; gray ones were stopped.",
            [parallel_coordinates(space, trials, metric)],
        ),
        Section("What mattered", fanova, [importance_bars(shares)]),
        Section(
            "What it took",
            "Scores of trials when they ended, at their end or where they were stopped.",
            [best_so_far(trials.progress(metric), metric)],
        ),
        Section(
            "Images of the best trial",
            f"Trial {summary.best_trial}: the first images of each class in the first batch of a round, as they are "
            "stored; none was picked.",
            [_images(folder, summary.best_trial)],
        ),
        Section("Trials that failed", "They count as worse than all others.", [], _failed(trials)),
    ]
    page = page_of_run(
        folder,
        f"Search: {config.experiment}",
        summary,
        accuracies=[("best trial", f"{summary.best_value:.4g}", f"{metric}: {MEASURES[metric].what}")],
        facts=_facts(summary),
        sections=sections,
    )
    return write_page(folder.path / "search.html", page)


def write_ablation_report(folder: RunFolder, config: SearchConfig, trials: Trials, summary: AblateSummary) -> Path:
    """Write ablation.html of a completed ablation; raises OSError.

    Returns:
        its path.
    """
    metric, rows = summary.metric, summary.rows
    terms = [name for name, value in rows[0].items() if isinstance(value, bool)]
    names = [name for name in MEASURES if f"{name}_mean" in rows[0]]
    table = []
    for row in rows:
        cells = [_spread(row[f"{name}_mean"], row[f"{name}_spread"]) for name in names]
        on = [name for name in terms if row[name]]
        marks = ["on" if row[name] else "–" for name in terms]
        table.append([" + ".join(on) or "class loss alone", *marks, str(row["seeds"]), *cells])
    headings = ["terms", *terms, "seeds", *names]
    meanings = [f"{name}: {MEASURES[name].what}" for name in names]
    text = f"Mean ± standard deviation over seeds; the class loss is always on. {'; '.join(meanings)}."
    best = _spread(rows[0][f"{metric}_mean"], rows[0][f"{metric}_spread"])
    page = page_of_run(
        folder,
        f"Ablation: {config.experiment}",
        summary,
        accuracies=[("best combination", best, f"{metric}, {summary.split or 'synthetic'} data")],
        facts=_facts(summary),
        sections=[
            Section("Terms on and off", text, [], Table(headings, table, [0])),
            Section("Runs that failed", "They are left out of the means.", [], _failed(trials)),
        ],
    )
    return write_page(folder.path / "ablation.html", page)


def _spread(mean: float, spread: float | None) -> str:
    return f"{mean:.4g}" + (f" ± {spread:.2g}" if spread is not None else "")


def _of(metric: str) -> str:
    better = "higher is better" if MEASURES[metric].higher_is_better else "lower is better"
    return f"By {metric}: {MEASURES[metric].what} ({better}), at the trial's last report."


def _facts(summary: SearchSummary | AblateSummary) -> list[tuple[str, str]]:
    counts = [
        (f"trials {status}", str(getattr(summary, f"trials_{status}"))) for status in ("done", "stopped", "failed")
    ]
    settings = ("searcher", "scheduler", "seeds", "seed")
    how = [(name, str(getattr(summary, name))) for name in settings if hasattr(summary, name)]
    spent = [
        ("updates of the pixels of a batch", f"{summary.updates:,}"),
        ("seconds of all trials", f"{summary.trial_seconds:,.0f} s"),
        ("wall time", f"{summary.wall_s:,.0f} s"),
    ]
    return [*counts, *how, *spent, *cost_rows(summary).items()]


def _best(trials: Trials, metric: str) -> Table | None:
    done = [(trial.scores(metric)[-1], number, trial) for number, trial in trials.items() if trial.status == "done"]
    ordered = sorted(done, key=lambda each: (-each[0], each[1]))[:BEST_SHOWN]
    rows = [[f"{number}", f"{trial.reports[-1][metric]:.4g}", shown(trial.point)] for _, number, trial in ordered]
    return Table(["trial", metric, "settings"], rows, [0]) if rows else None


def _failed(trials: Trials) -> Table | None:
    rows = [
        [f"{number}", trial.reason or "", shown(trial.point)]
        for number, trial in trials.items()
        if trial.status == "failed"
    ]
    return Table(["trial", "reason", "settings"], rows) if rows else None


def _images(folder: RunFolder, trial: int) -> Mosaic | None:
    store = ShardStore(images_of(folder.place, trial))
    try:
        first = [store.read(batch) for batch in store.committed() if batch.index == 0]
    except (OSError, ShardError):
        return None  # the trials' images may be deleted
    rows = [(f"round {batch.id.round}", batch.images, batch.targets) for batch in evenly_spread(first, MOST_ROUNDS)]
    return mosaic(rows, "Each column should show one class in recognizable variety.", examples=2) if rows else None
