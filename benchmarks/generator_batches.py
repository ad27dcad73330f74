"""What a generator network's batches become as it learns: images on target, and their feature distance.

    python benchmarks/generator_batches.py --settings benchmarks/settings/generator_batches.yaml --json OUT.json

SETTINGS.yaml maps a name to what differs from the configuration. Batches are made one after the other, in this process
and without Ray or a student; figures are means over the last ones.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from raydream.config import DistillConfig
from raydream.config.conversion import validate
from raydream.evaluation.data_free import feature_distance
from raydream.evaluation.intervals import summarize
from raydream.schedule import Schedule
from raydream.search.space import merged
from raydream.store.atomic import write_json
from raydream.supervised.library import trained_teacher
from raydream.synthesis.batch import BatchMaker


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the batches of all settings and seeds, and write after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("configs/digits_methods.yaml"))
    parser.add_argument("--settings", type=Path, required=True, help="YAML: {name: {synthesis: {...}}}")
    parser.add_argument("--batches", type=int, default=24)
    parser.add_argument("--last", type=int, default=8, help="batches that the figures are of")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path, required=True)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    base, runs = yaml.safe_load(given.config.read_text(encoding="utf-8")), []
    for name, changes in yaml.safe_load(given.settings.read_text(encoding="utf-8")).items():
        for seed in range(given.seeds):
            settings = merged(base, {**changes, "seed": seed, "rounds": {"initial_batches": given.batches, "count": 0}})
            runs.append({"name": name, "seed": seed, **_run(validate(DistillConfig, settings), given.last)})
            print(json.dumps({each: value for each, value in runs[-1].items() if each != "batches"}), flush=True)
            write_json(given.json, {"rows": _rows(runs), "runs": runs})


def _run(config: DistillConfig, last: int) -> dict[str, Any]:
    teacher, _ = trained_teacher(config.teacher, config.training, config.data)
    maker, schedule = BatchMaker("benchmark", teacher, config.synthesis), Schedule.of(config)
    batches = []
    for batch in schedule.batch_ids():
        made = maker.make(schedule.order(batch, config), None, None).batch
        distance = feature_distance(teacher, [made.images])
        batches.append({"target_share": made.provenance.target_share, "feature_distance": distance})
    figures = {name: float(np.mean([batch[name] for batch in batches[-last:]])) for name in batches[0]}
    return {**figures, "batches": batches}


def _rows(runs: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Mean and 95 % interval over the seeds."""
    return {
        name: {
            figure: summarize([run[figure] for run in runs if run["name"] == name])
            for figure in ("target_share", "feature_distance")
        }
        for name in dict.fromkeys(run["name"] for run in runs)
    }


if __name__ == "__main__":
    main()
