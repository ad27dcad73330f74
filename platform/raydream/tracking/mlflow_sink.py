"""MLflow: the scalars of a run by MLflow's own client, at the server that its own environment variables name."""

import os
from collections.abc import Mapping
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from raydream.tracking.sinks import Tracked

RUN_TAG = "raydream.run"
"""tag of an MLflow run with the id of the raydream run that it shows"""
MOST = 500
"""most scalars of one request; MLflow takes a thousand"""
PATIENCE = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "20", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2"}
"""what MLflow waits for a server where the user's environment names nothing; its own defaults add up to minutes, for
which a run would stand still"""


class MLflowSink:
    """Sends scalars to MLflow: an experiment by its name, a run in it by its id.

    Args:
        tracked: the run. A run that is resumed continues its run in MLflow.

    Raises:
        MlflowException: the store that MLFLOW_TRACKING_URI names cannot be used.
    """

    def __init__(self, tracked: Tracked) -> None:
        for name, value in PATIENCE.items():
            os.environ.setdefault(name, value)
        self._client = MlflowClient()
        self._run_id = self._opened(tracked)
        self._waiting: list[Metric] = []
        self._status = "KILLED"

    def scalar(self, tag: str, value: float, step: int, moment: float) -> None:
        """Collect a value, to be sent with others; see `Sink.scalar`."""
        self._waiting.append(Metric(tag, value, int(moment * 1000), step))
        if len(self._waiting) >= MOST:
            self.flush()

    def finish(self, settings: Mapping[str, Any], figures: Mapping[str, float]) -> None:
        """Send parameters and final figures; see `Sink.finish`."""
        self.flush()
        params = [Param(name, str(value)) for name, value in settings.items()]
        self._client.log_batch(self._run_id, params=params)
        for name, value in figures.items():
            self._client.log_metric(self._run_id, name, value)
        self._status = "FINISHED"

    def flush(self) -> None:
        """Send all values collected so far in one request."""
        waiting, self._waiting = self._waiting, []
        if waiting:
            self._client.log_batch(self._run_id, metrics=waiting)

    def close(self) -> None:
        """Send the rest, and end the run in MLflow: FINISHED, or KILLED where it can be resumed."""
        self.flush()
        self._client.set_terminated(self._run_id, self._status)

    def _opened(self, tracked: Tracked) -> str:
        known = self._client.get_experiment_by_name(tracked.experiment)
        experiment: str = known.experiment_id if known else self._client.create_experiment(tracked.experiment)
        earlier = self._client.search_runs([experiment], f"tags.`{RUN_TAG}` = '{tracked.run}'", max_results=1)
        if earlier:
            self._client.update_run(earlier[0].info.run_id, status="RUNNING")
            return str(earlier[0].info.run_id)
        made = self._client.create_run(experiment, run_name=tracked.run, tags={RUN_TAG: tracked.run})
        return str(made.info.run_id)
