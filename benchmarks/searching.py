"""What a search needs and what it can be judged by: ASHA against no scheduler, and each metric against real accuracy.

    python benchmarks/searching.py --seeds 3 --trials 24 --json benchmarks/results/digits_searching.json

For each seed the same random points are tried twice, to their end and under ASHA, by `tuning/search.py` with all
metrics noted. A search that is in the folder already is gone on with. Real accuracy is that of the validation split;
correlations are Spearman's, over the trials that came to their end, with 95 % intervals by bootstrap over the trials
of each search.
"""

import argparse
import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from raydream.search.metrics import MEASURES
from raydream.store.atomic import write_json

FREE = [name for name in MEASURES if name != "accuracy"]
RESAMPLES = 2000


def main() -> None:
    """Run what is missing, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/digits_poor_start.yaml")
    parser.add_argument("--space", default="tuning/spaces/coefficients.yaml")
    parser.add_argument("--verifiers", default="runs/verifier", help="run of a network that is no part of the search")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--runs", type=Path, default=Path("runs/searching"))
    parser.add_argument("--json", type=Path, required=True)
    given = parser.parse_args()
    if not Path(given.verifiers, "summary.json").exists():
        _job(
            "jobs/train_teacher.py",
            "--teacher.arguments.width",
            "8",
            "--training.seed",
            "1",
            "--run-dir",
            given.verifiers,
        )
    pairs = []
    for seed in range(given.seeds):
        whole, asha = (_search(given, seed, scheduler) for scheduler in ("none", "asha"))
        pairs.append({"seed": seed, **_against(whole, asha)})
        print(json.dumps(pairs[-1]), flush=True)
    trials = [pd.read_parquet(given.runs / f"{seed}-none/trials.parquet") for seed in range(given.seeds)]
    done = [table[table["status"] == "done"].assign(seed=seed) for seed, table in enumerate(trials)]
    result = {
        "trials_per_search": given.trials,
        "machine": json.loads((given.runs / "0-none/summary.json").read_text(encoding="utf-8"))["machine"],
        "asha_against_none": pairs,
        "real_accuracy": _spread(pd.concat(done)["accuracy"]),
        "rank_correlation_with_real_accuracy": correlations(done),
    }
    write_json(given.json, result)
    print(json.dumps(result, indent=1))


def _search(given: argparse.Namespace, seed: int, scheduler: str) -> Path:
    folder = given.runs / f"{seed}-{scheduler}"
    if (folder / "summary.json").exists():
        return Path(folder)
    where = ["--resume", folder] if (folder / "run.json").exists() else ["--run-dir", folder]
    also = "[exam_agreement,own_agreement]"
    asked = ["--config", given.config, "--space", given.space, "--trials", given.trials, "--searcher", "random"]
    asked += ["--scheduler", scheduler, "--seed", seed, "--also", also, "--verifiers", f"run:{given.verifiers}"]
    _job("tuning/search.py", *asked, *where)
    return Path(folder)


def _job(*command: Any) -> None:
    subprocess.run([sys.executable, *map(str, command)], check=True)


def _against(whole: Path, asha: Path) -> dict[str, Any]:
    """How far ASHA gets, and with how many updates of pixels, on the points that were also tried to their end."""
    found = {}
    for name, folder in (("none", whole), ("asha", asha)):
        summary, table = (
            json.loads((folder / "summary.json").read_text(encoding="utf-8")),
            pd.read_parquet(folder / "trials.parquet"),
        )
        found[name] = {
            "best": summary["best_value"],
            "best_trial": summary["best_trial"],
            "updates": summary["updates"],
            "wall_s": summary["wall_s"],
            "done": int((table["status"] == "done").sum()),
        }
    return found | {"updates_ratio": found["asha"]["updates"] / found["none"]["updates"]}


def correlations(searches: list[pd.DataFrame]) -> dict[str, dict[str, Any]]:
    """Of each metric, and of the mean rank of each two, with real accuracy; by search, and pooled over their ranks.

    Args:
        searches: trials that came to their end, a table for each search.
    """
    names = [name for name in FREE if all(name in table for table in searches)]
    found: dict[str, dict[str, Any]] = {}
    for chosen in [*((name,) for name in names), *itertools.combinations(names, 2)]:
        of_each = [_ranks(table, chosen) for table in searches]
        pooled = np.concatenate([ranks for ranks, _ in of_each]), np.concatenate([real for _, real in of_each])
        found[" + ".join(chosen)] = {
            "by_search": [_correlation(*each) for each in of_each],
            "pooled": _correlation(*pooled),
            "interval": _interval(of_each),
            "accuracy_of_the_best_by_it": [float(real[np.argmax(ranks)]) for ranks, real in _best(searches, of_each)],
        }
    return dict(sorted(found.items(), key=lambda item: -float(item[1]["pooled"])))


def _ranks(table: pd.DataFrame, chosen: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The mean of the chosen metrics' ranks within a search, the better the higher, and those of real accuracy."""
    signs = [1.0 if MEASURES[name].higher_is_better else -1.0 for name in chosen]
    ranks = [
        (table[name].astype(float) * sign).rank(pct=True).to_numpy() for name, sign in zip(chosen, signs, strict=True)
    ]
    return np.mean(ranks, axis=0), table["accuracy"].rank(pct=True).to_numpy()


def _best(
    searches: list[pd.DataFrame], of_each: list[tuple[np.ndarray, np.ndarray]]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """The ranks by which a trial would be chosen, with real accuracies instead of their ranks."""
    return [(ranks, table["accuracy"].to_numpy()) for table, (ranks, _) in zip(searches, of_each, strict=True)]


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    return float(pd.Series(one).corr(pd.Series(other), method="spearman"))


def _interval(of_each: list[tuple[np.ndarray, np.ndarray]]) -> list[float]:
    """Of the pooled correlation; each search keeps as many trials as it has, as ranks are those within a search."""
    random, drawn = np.random.default_rng(0), []
    for _ in range(RESAMPLES):
        rows = [random.integers(0, len(real), len(real)) for _, real in of_each]
        parts = [(ranks[chosen], real[chosen]) for (ranks, real), chosen in zip(of_each, rows, strict=True)]
        drawn.append(_correlation(*map(np.concatenate, zip(*parts, strict=True))))
    return [float(value) for value in np.nanpercentile(drawn, [2.5, 97.5])]


def _spread(values: pd.Series) -> dict[str, float]:
    return {"trials": len(values), "lowest": values.min(), "median": values.median(), "highest": values.max()}


if __name__ == "__main__":
    main()
