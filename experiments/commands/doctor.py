"""`nas doctor`: versions, devices, and whether what the environment names answers."""

from __future__ import annotations

import os

import typer

from experiments.options import Json, emit


def doctor_command(as_json: Json = False) -> None:
    """Versions, devices, and whether the Ray and the MLflow of the environment answer; exit code 1 where not."""
    import torch

    from nas.jobs import WorkersError
    from nas.provenance import provenance
    from nas.ray_session import reachable

    facts = provenance()
    cards = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    facts["devices"] = ", ".join(cards) or "cpu"
    address, uri = os.environ.get("RAY_ADDRESS"), os.environ.get("MLFLOW_TRACKING_URI")
    silent = False
    facts["RAY_ADDRESS"] = "not set: a local session is used"
    if address:
        try:
            facts["RAY_ADDRESS"] = f"{reachable(address, 5.0)} answers"
        except WorkersError as error:
            facts["RAY_ADDRESS"], silent = f"{address} does not answer: {error}", True
    facts["MLFLOW_TRACKING_URI"] = "not set: a sqlite file in OUT is used"
    if uri:
        from nas.tracking import problem_with

        problem = problem_with(uri)
        silent = silent or bool(problem)
        facts["MLFLOW_TRACKING_URI"] = f"{uri} does not answer: {problem}" if problem else f"{uri} answers"
    if as_json:
        emit({"format": "doctor/1", **facts})
    else:
        for name, value in facts.items():
            print(f"{name:<22}{value}")
    if silent:
        raise typer.Exit(1)
