"""A run's curves in MLflow, one of its runs a method."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fedpace.core.errors import MissingExtraError, RunError
from fedpace.core.record import RoundRecord
from fedpace.reporting.curves import Write, numbers_of
from fedpace.run_folder.atomic import write_json

_EXPERIMENT = "fedpace"
"""MLflow's experiment where MLFLOW_EXPERIMENT_NAME names no other."""


def require_mlflow() -> None:
    """Raise `MissingExtraError` where MLflow is not installed."""
    try:
        import mlflow  # noqa: F401
    except ImportError:
        raise MissingExtraError("mlflow-skinny", "mlflow") from None


@contextmanager
def mlflow_writer(path: Path, method: str, parameters: Mapping[str, object]) -> Iterator[Write]:
    """Open a method's run in MLflow; gives the function that adds a round to it.

    Where MLflow keeps its runs is its own matter (MLFLOW_TRACKING_URI). The step is the round, a
    point's time the virtual or measured clock. A run folder that is resumed goes on with the same
    run of MLflow; rounds that are played again give the same points.

    Args:
        path: file of the run folder that remembers MLflow's runs.
        method: name of the run.
        parameters: of the experiment, flat; stored with a run when it begins.

    Raises:
        RunError: MLflow cannot be reached or written.
    """
    import mlflow

    try:
        client = mlflow.MlflowClient()
        run_id = _run_of(client, path, method, parameters)
    except Exception as error:  # whatever a store and its drivers raise
        raise RunError(_told(error)) from error

    def write(record: RoundRecord) -> None:
        milliseconds = int(1000 * record.clock_seconds)
        try:
            for name, value in numbers_of(record).items():
                client.log_metric(run_id, name, value, milliseconds, record.round + 1)
        except Exception as error:
            raise RunError(_told(error)) from error

    yield write
    client.set_terminated(run_id)


def _run_of(client: Any, path: Path, method: str, parameters: Mapping[str, object]) -> str:
    known = json.loads(path.read_text("utf-8")) if path.exists() else {}
    if method in known:
        return str(known[method])
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", _EXPERIMENT)
    found = client.get_experiment_by_name(name)
    experiment = found.experiment_id if found else client.create_experiment(name)
    run = client.create_run(experiment, run_name=method, tags={"fedpace.folder": str(path.parent)})
    for key, value in parameters.items():
        client.log_param(run.info.run_id, key, value)
    write_json(path, {**known, method: run.info.run_id})
    return str(run.info.run_id)


def _told(error: Exception) -> str:
    cause = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return f"[output] mlflow: MLflow cannot keep the run ({cause[:200]}); check MLFLOW_TRACKING_URI"
