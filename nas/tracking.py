"""Sweeps in MLflow: one experiment, one flat run per trial, one run for the sweep, tied by `nas.*` tags.

The driver alone writes. Records go through an outbox on one thread, so a search never waits for the store; a store
that is down is said once, asked again now and then, and then gets everything in order. What a crash leaves unwritten
comes from the results table (`catch_up`): records that the store has are skipped, so writing is idempotent.

Runs are flat because MLflow's chart page stays empty for nested ones. A trial that ended at a rung is KILLED with
`nas.rung`, a crash is FAILED with the error in its description; the saved chart view shows FINISHED runs only, so an
accuracy on the way is never drawn as a final one. Accuracies are 0-1, costs for batch 1, 1 multiply-add = 1 FLOP.
"""

from __future__ import annotations

import json
import logging
import math
import os
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

from nas.mlflow_view import VIEW, chart_view
from nas.outbox import Outbox, short_error
from nas.results import Result

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

METRICS = {"accuracy": "val/acc", "test_accuracy": "test/acc"}  # other values keep their names
ERROR_CHARACTERS = 4000  # the end of a traceback; MLflow cuts a tag at 8,000
SQLITE = "sqlite:///"  # before the path of a database file
PARAMS_PER_BATCH, METRICS_PER_BATCH = 100, 1000  # MLflow's limits

Key = tuple[str, int, int]  # kind, trial, seed: what a run stands for


@dataclass(slots=True)
class _Run:
    """What the store holds of one run."""

    id: str
    status: str
    epoch: int
    front: bool


class Tracker:
    """Writes one sweep. Every method returns at once and never raises for the store's sake, unless it says so.

    `uri` is any MLflow tracking URI, `provenance` becomes `nas.*` tags of every run (git commit, versions, device,
    dataset fingerprint), `folder` tells sweeps of one name apart. `say` gets the few lines a person should read: the
    store went down, came back, refused a record. `retry_s`: how long to leave a store alone that did not answer.
    """

    def __init__(
        self,
        uri: str,
        experiment: str,
        sweep_name: str,
        provenance: Mapping[str, str],
        *,
        folder: str = "",
        say: Callable[[str], None] = print,
        retry_s: float = 30.0,
    ) -> None:
        _quiet()
        self.uri = uri
        self.experiment = experiment
        self.sweep_name = sweep_name
        self.folder = folder
        self._provenance = {_tag(name): value for name, value in provenance.items()}
        self._say = say
        self._outbox = Outbox(self._answers, say, f"MLflow at {uri}", retry_s)
        self._client: MlflowClient | None = None
        self._experiment_id = ""
        self._sweep_id = ""
        self._runs: dict[Key, _Run] = {}
        self._cut_short: dict[Key, str] = {}  # runs that were begun and not ended; they are written anew
        self._steps: dict[int, float] = {}  # of `hypervolume`, written already

    def start_sweep(
        self, config: Mapping[str, object], space_report: Mapping[str, object], *, cost: str = "flops"
    ) -> None:
        """Open the sweep's run, or the one that an earlier start left. `cost` is the x axis of the saved chart."""
        self._outbox.put("the sweep's run", lambda: self._write_sweep(config, space_report))
        self._outbox.put("the saved chart view", lambda: self._write_view(cost))

    def log_trial(self, result: Result) -> None:
        """Write a trial that ended, or the next rung of one: one batch. A record the store has is skipped."""
        self._outbox.put(_name(result), lambda: self._write(result))

    def log_run(
        self, kind: str, result: Result, params: Mapping[str, object] | None = None, files: Sequence[Path] = ()
    ) -> None:
        """Write a new run of another kind (seed, prune, final), with more params and files."""
        row = replace(result, kind=kind)
        self._outbox.put(_name(row), lambda: self._write(row, params or {}, files, anew=True))

    def catch_up(self, results: Iterable[Result]) -> None:
        """Write what the store lacks of a results table: for each trial its last record, with its whole curve."""
        last: dict[Key, Result] = {}
        for row in results:
            before = last.get(_key(row))
            epochs = {e.epoch: e for e in (*(before.curve if before else ()), *row.curve)}
            last[_key(row)] = replace(row, curve=tuple(epochs[n] for n in sorted(epochs)))
        for row in last.values():
            self.log_trial(row)

    def log_test(self, result: Result, accuracy: float) -> None:
        """Add `test/acc` (0-1) to the run of a front member, once the search is over."""
        self._outbox.put(f"the test accuracy of {_name(result)}", lambda: self._write_test(_key(result), accuracy))

    def move_front(self, front: Iterable[Result]) -> None:
        """Make `nas.front` true for exactly these results; only runs that change are touched."""
        members = {_key(r) for r in front}
        self._outbox.put("the front", lambda: self._write_front(members))

    def log_hypervolume(self, history: Iterable[tuple[int, float]], reference: Mapping[str, float]) -> None:
        """Write hypervolume over epochs trained on the sweep's run, with the reference that it was measured from.

        Steps already written are skipped, so a whole history may be given every time; the last is written anew where it
        changed.
        """
        points = list(history)
        self._outbox.put("the hypervolume", lambda: self._write_hypervolume(points, reference))

    def finish_sweep(
        self,
        files: Sequence[Path],
        *,
        status: str = "FINISHED",
        timeout_s: float = 60.0,
    ) -> bool:
        """Attach the files, end the sweep's run, and wait for everything to be written: true if it was.

        Waits `timeout_s` at most, and not at all for a store that does not answer; says what is missing.
        """
        self._outbox.put("the sweep's files", lambda: self._write_end(files, status))
        if self.flush(timeout_s):
            return True
        self._say(f"MLflow still lacks {len(self._outbox)} records: the same command, run again, writes them.")
        return False

    def flush(self, timeout_s: float = 30.0) -> bool:
        """Wait until everything is written (true), the store does not answer, or the time is over (false)."""
        return self._outbox.flush(timeout_s)

    def close(self) -> None:
        """Let the writing thread end; what is not written by then is left for `catch_up`."""
        self._outbox.close()

    def chart_link(self, timeout_s: float = 10.0) -> str | None:
        """Where the accuracy-over-cost scatter opens: a URL for a server, the part after the host for a database.

        None when the store has not been reached.
        """
        self.flush(timeout_s)
        if not self._experiment_id:
            return None
        path = f"/#/experiments/{self._experiment_id}/runs?viewStateShareKey={VIEW}&compareRunsMode=CHART"
        return self.uri.rstrip("/") + path if self.uri.startswith("http") else path

    # What follows runs on the outbox's thread.

    def _answers(self) -> None:
        """Raises when the store cannot be asked a small question."""
        self._connected().search_experiments(max_results=1)

    def _connected(self) -> MlflowClient:
        """The client; on first contact the experiment is made or found, and its runs of this sweep are read."""
        if self._client is None:
            from mlflow import MlflowClient

            _check_file(self.uri)
            _make_database(self.uri)
            client = MlflowClient(self.uri)
            self._experiment_id = self._find_experiment(client)
            self._read_runs(client)
            self._client = client
        return self._client

    def _find_experiment(self, client: MlflowClient) -> str:
        found = client.get_experiment_by_name(self.experiment)
        if found is None:
            return str(client.create_experiment(self.experiment, artifact_location=_artifacts(self.uri)))
        if found.lifecycle_stage == "deleted":
            client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    def _read_runs(self, client: MlflowClient) -> None:
        mine = f"tags.`nas.sweep` = '{self.sweep_name.replace(chr(39), '_')}' and tags.`nas.folder` = '{self.folder}'"
        token: str | None = ""
        while token is not None:
            page = client.search_runs([self._experiment_id], mine, max_results=1000, page_token=token or None)
            for run in page:
                tags, run_id, status = run.data.tags, run.info.run_id, run.info.status
                if tags["nas.kind"] == "sweep":
                    self._sweep_id = run_id
                    self._steps = {m.step: m.value for m in client.get_metric_history(run_id, "hypervolume")}
                    continue
                key = (tags["nas.kind"], int(tags["nas.trial"]), int(tags["nas.seed"]))
                if status == "RUNNING":
                    self._cut_short[key] = run_id
                else:
                    self._runs[key] = _Run(run_id, status, int(tags["nas.epoch"]), tags["nas.front"] == "true")
            token = page.token or None

    def _tags(self, kind: str) -> dict[str, str]:
        return self._provenance | {
            "nas.sweep": self.sweep_name.replace("'", "_"),
            "nas.folder": self.folder,
            "nas.kind": kind,
        }

    def _write_sweep(self, config: Mapping[str, object], space_report: Mapping[str, object]) -> None:
        client = self._connected()
        if not self._sweep_id:
            run = client.create_run(self._experiment_id, tags=self._tags("sweep"), run_name=self.sweep_name)
            self._sweep_id = run.info.run_id
        client.update_run(self._sweep_id, status="RUNNING")
        known = client.get_run(self._sweep_id).data.params  # MLflow refuses to change a param: the first start stands
        params = {name: value for name, value in _flat(config).items() if name not in known}
        self._batches(self._sweep_id, [], params)
        client.log_dict(self._sweep_id, _plain(config), "config.yaml")
        client.log_dict(self._sweep_id, _plain(space_report), "space.json")

    def _write_view(self, cost: str) -> None:
        client = self._connected()
        client.set_experiment_tag(self._experiment_id, f"mlflow.sharedViewState.{VIEW}", chart_view(cost))

    def _write(
        self,
        result: Result,
        params: Mapping[str, object] | None = None,
        files: Sequence[Path] = (),
        *,
        anew: bool = False,
    ) -> None:
        client = self._connected()
        key, status = _key(result), _status(result)
        known = None if anew else self._runs.get(key)
        if known is not None:
            if known.status != "KILLED" or (status != "FAILED" and known.epoch >= result.epoch):
                return
            result = replace(result, epoch=max(known.epoch, result.epoch))  # a worker that was lost says 0
        end_ms = int(time.time() * 1000)
        start_ms = end_ms - int(result.seconds * 1000)
        tags = self._tags(result.kind) | _tags(result, status)
        if known is None:
            if key in self._cut_short:
                client.delete_run(self._cut_short.pop(key))
            run = client.create_run(self._experiment_id, start_ms, tags | {"nas.front": "false"}, _name(result))
            run_id = self._cut_short[key] = run.info.run_id
            everything = _flat(result.choices or {}) | _flat(params or {})
            self._batches(run_id, _metrics(result, start_ms, end_ms), everything)
        else:
            run_id = known.id
            if known.status == "KILLED" and "nas.rung" not in tags:
                client.delete_tag(run_id, "nas.rung")
            self._batches(run_id, _metrics(result, start_ms, end_ms, after=known.epoch), {}, tags)
        for file in files:
            client.log_artifact(run_id, str(file))
        client.set_terminated(run_id, status, end_ms)
        self._runs[key] = _Run(run_id, status, result.epoch, known is not None and known.front)
        self._cut_short.pop(key, None)

    def _write_test(self, key: Key, accuracy: float) -> None:
        client = self._connected()
        if key in self._runs:
            client.log_metric(self._runs[key].id, "test/acc", accuracy, step=self._runs[key].epoch)

    def _write_front(self, members: set[Key]) -> None:
        client = self._connected()
        for key, run in self._runs.items():
            if run.front != (key in members):
                client.set_tag(run.id, "nas.front", str(key in members).lower())
                run.front = key in members

    def _write_hypervolume(self, points: list[tuple[int, float]], reference: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        self._connected()
        now_ms = int(time.time() * 1000)
        new = [
            Metric("hypervolume", value, now_ms, n)
            for n, value in points
            if n not in self._steps or (n == points[-1][0] and value != self._steps[n])  # something was imported
        ]
        corner = ", ".join(f"{name} {value:.6g}" for name, value in reference.items())
        self._batches(self._sweep_id, new, {}, {"nas.hypervolume.reference": corner})
        self._steps |= {metric.step: metric.value for metric in new}

    def _write_end(self, files: Sequence[Path], status: str) -> None:
        client = self._connected()
        for file in files:
            client.log_artifact(self._sweep_id, str(file))
        client.set_terminated(self._sweep_id, status)

    def _batches(
        self,
        run_id: str,
        metrics: Sequence[Metric],
        params: Mapping[str, str],
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """One `log_batch`, or as few as MLflow's limits allow."""
        from mlflow.entities import Param, RunTag

        client = self._connected()
        settings = [Param(name, value) for name, value in params.items()]
        marks = [RunTag(name, value) for name, value in (tags or {}).items()]
        size = METRICS_PER_BATCH - PARAMS_PER_BATCH - len(marks)
        for i in range(max(1, -(-len(metrics) // size), -(-len(settings) // PARAMS_PER_BATCH))):
            client.log_batch(
                run_id,
                metrics=metrics[i * size : (i + 1) * size],
                params=settings[i * PARAMS_PER_BATCH : (i + 1) * PARAMS_PER_BATCH],
                tags=marks if i == 0 else [],
            )


def problem_with(uri: str) -> str:
    """Why the store at `uri` cannot be asked; empty where it answers."""
    _quiet()
    from mlflow import MlflowClient

    try:
        _check_file(uri)
        MlflowClient(uri).search_experiments(max_results=1)
    except Exception as error:  # any store, any driver
        return short_error(error)
    return ""


def _quiet() -> None:
    """Import MLflow without its noise; settings that the user made stand.

    Its sqlite store warns on import (SQLAlchemy deprecations), logs migrations at INFO, prints a link per run, warns
    of each retry and waits minutes for a server that is gone, and reports usage over the network.
    """
    for name, value in {
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    }.items():
        os.environ.setdefault(name, value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow.store.tracking.sqlalchemy_store  # noqa: F401
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)


def _file(uri: str) -> Path | None:
    """The file of an sqlite database."""
    path = Path(uri.removeprefix(SQLITE))
    return path if uri.startswith(SQLITE) and "?" not in uri else None


def _check_file(uri: str) -> None:
    """Raises `OSError` where `uri` is an sqlite file that cannot be written: MLflow would try for 70 s and more."""
    path = _file(uri)
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=path.parent):  # sqlite writes beside its file, too
            pass
        if path.exists():
            path.open("r+b").close()
    except OSError as error:
        raise OSError(f"{path}: must be a database file that can be written ({error.strerror})") from None


def _make_database(uri: str) -> None:
    """Make an sqlite file that is not there under another name first: MLflow never gets over a kill in mid-making."""
    from mlflow import MlflowClient

    path = _file(uri)
    if path is None or path.exists():
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    try:
        MlflowClient(f"{SQLITE}{temporary}").search_experiments(max_results=1)
        with suppress(OSError):  # another driver may have made it meanwhile
            os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _artifacts(uri: str) -> str | None:
    """Beside an sqlite file, where MLflow would take the working directory; a server knows its own place."""
    if not uri.startswith(SQLITE):
        return None
    return (Path(uri.removeprefix(SQLITE)).resolve().parent / "artifacts").as_uri()


def _key(result: Result) -> Key:
    return result.kind, result.trial, result.seed


def _name(result: Result) -> str:
    return result.title + (f"-seed-{result.seed}" if result.kind == "final" else "")


def _tag(name: str) -> str:
    return name if name.startswith("nas.") else f"nas.{name}"


def _status(result: Result) -> str:
    if result.state == "failed":
        return "FAILED"
    return "FINISHED" if result.state == "complete" and result.final else "KILLED"


def _tags(result: Result, status: str) -> dict[str, str]:
    tags = {
        "nas.trial": str(result.trial),
        "nas.digest": result.digest,
        "nas.epoch": str(result.epoch),
        "nas.seed": str(result.seed),
        "nas.worker": f"{result.worker.node}/{result.worker.pid}",
        "nas.device": result.worker.device,
        "mlflow.note.content": _note(result),
    }
    if status == "KILLED":
        tags["nas.rung"] = str(result.epoch)
    if result.parent is not None:
        tags["nas.parent"] = str(result.parent)
    return tags


def _note(result: Result) -> str:
    if not result.error:
        return result.words[: 2 * ERROR_CHARACTERS]
    error = result.error if len(result.error) <= ERROR_CHARACTERS else "... " + result.error[-ERROR_CHARACTERS:]
    return f"{result.words[: ERROR_CHARACTERS - 100]}\n\n```\n{error}\n```"


def _metrics(result: Result, start_ms: int, end_ms: int, after: int = 0) -> list[Metric]:
    """The epochs past `after` as steps, and the values at the last one. What is not finite is left out."""
    from mlflow.entities import Metric

    epochs = [e for e in result.curve if e.epoch > after]
    found: list[Metric] = []
    for number, e in enumerate(epochs, 1):
        at_ms = start_ms + (end_ms - start_ms) * number // len(epochs)
        row = {
            "train/loss": e.train_loss,
            "train/acc": e.train_accuracy,
            "val/loss": e.val_loss,
            "val/acc": e.val_accuracy,
        }
        found += [Metric(name, value, at_ms, e.epoch) for name, value in row.items() if math.isfinite(value)]
    has_epoch = any(e.epoch == result.epoch for e in epochs)
    for name, value in result.values.items():
        if math.isfinite(value) and not (name == "accuracy" and has_epoch):
            found.append(Metric(METRICS.get(name, name), value, end_ms, result.epoch))
    return found


def _flat(tree: Mapping[str, object], prefix: str = "") -> dict[str, str]:
    """Nested mappings as params: dotted names, values as text."""
    params: dict[str, str] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            params |= _flat(value, f"{prefix}{name}.")
        else:
            params[f"{prefix}{name}"] = str(value)[:6000]
    return params


def _plain(tree: Mapping[str, object]) -> dict[str, object]:
    """The same as JSON knows it: tuples become lists, paths become text."""
    plain: dict[str, object] = json.loads(json.dumps(dict(tree), default=str))
    return plain
