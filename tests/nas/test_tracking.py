"""Tracking against a real MLflow on sqlite, a real server, a server that is gone, and the chart page in Chromium."""

import base64
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from nas.pareto import OBJECTIVES, front, hypervolume_history, reference_point
from nas.results import Epoch, Result, Worker
from nas.tracking import Tracker

OBJECTIVE_PAIR = (OBJECTIVES["accuracy"], OBJECTIVES["flops"])
CONFIG = {"trials": 12, "training": {"epochs": 4}, "objectives": ("accuracy", "flops")}
REPORT = {"size": 1234, "flops": [1e5, 2e6]}
PROVENANCE = {"git": "abc1234", "torch": "2.13.0", "data": "0123abcd"}


def trial(number: int, accuracy: float = 0.8, flops: float = 5e5, *, state="complete", epoch=4, final=True, **more):
    """A result as a worker reports it; the curve climbs to `accuracy`."""
    curve = tuple(
        Epoch(
            epoch=e,
            train_loss=2 / e,
            train_accuracy=accuracy * e / (epoch + 0.5),
            val_loss=2.2 / e,
            val_accuracy=accuracy * e / epoch,
        )
        for e in range(1, epoch + 1)
    )
    costs = {"flops": flops, "macs": flops * 0.9, "params": flops / 20, "activations": flops / 50}
    return Result(
        **(
            {
                "trial": number,
                "digest": f"{number:016x}",
                "architecture": {"format": "architecture/1"},
                "choices": {"stage1.block": "bottleneck", "stage1.width": 16 + number, "resolution": 0.5},
                "words": f"16x16 · conv 3x3, 16 · bottleneck 1:4, {16 + number} · head 10",
                "epoch": epoch,
                "final": final,
                "state": state,
                "values": costs
                | {"interactions": 3e4, "latency_ms": 0.8}
                | ({"accuracy": accuracy} if state == "complete" else {}),
                "curve": curve,
                "seconds": 3.5,
                "worker": Worker(node="node-a", pid=4242, device="cpu"),
                "seed": number,
            }
            | more
        )
    )


class Store:
    """A tracker on a fresh sqlite store, what it said, and a plain client to look at what was written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.uri = f"sqlite:///{folder}/mlflow.db"
        self.said: list[str] = []

    def tracker(self) -> Tracker:
        return Tracker(self.uri, "digits", "digits", PROVENANCE, say=self.said.append)

    @property
    def client(self):
        from mlflow import MlflowClient

        return MlflowClient(self.uri)

    def runs(self, kind: str = "trial") -> dict:
        experiment = self.client.get_experiment_by_name("digits")
        found = self.client.search_runs([experiment.experiment_id], f"tags.`nas.kind` = '{kind}'")
        assert len({r.info.run_name for r in found}) == len(found), "a run was written twice"
        return {r.info.run_name: r for r in found}

    def history(self, run, metric: str) -> list[tuple[int, float]]:
        return sorted((m.step, m.value) for m in self.client.get_metric_history(run.info.run_id, metric))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path)
    yield store
    assert store.said == [], "tracking complained"


def test_a_trial_is_one_finished_run_with_tags_params_metrics_and_its_words(store: Store):
    tracker = store.tracker()
    result = trial(7)
    tracker.log_trial(result)
    assert tracker.flush()
    run = store.runs()["trial-0007"]
    tags = run.data.tags
    assert run.info.status == "FINISHED"
    assert run.info.end_time - run.info.start_time == 3500
    assert (tags["nas.sweep"], tags["nas.kind"], tags["nas.front"]) == ("digits", "trial", "false")
    assert (tags["nas.digest"], tags["nas.trial"], tags["nas.seed"]) == (result.digest, "7", "7")
    assert (tags["nas.git"], tags["nas.torch"], tags["nas.data"]) == ("abc1234", "2.13.0", "0123abcd")
    assert (tags["nas.worker"], tags["nas.device"]) == ("node-a/4242", "cpu")
    assert tags["mlflow.note.content"] == result.words
    assert "nas.rung" not in tags
    assert "mlflow.parentRunId" not in tags
    assert run.data.params == {"stage1.block": "bottleneck", "stage1.width": "23", "resolution": "0.5"}
    expected = {"train/loss", "train/acc", "val/loss", "val/acc", "flops", "macs", "params", "activations"}
    assert set(run.data.metrics) == expected | {"interactions", "latency_ms"}
    assert store.history(run, "val/acc") == [(e, pytest.approx(0.8 * e / 4)) for e in range(1, 5)]
    assert [step for step, _ in store.history(run, "train/loss")] == [1, 2, 3, 4]
    assert run.data.metrics["flops"] == 5e5


def test_a_trial_stopped_at_a_rung_is_killed_with_its_rung(store: Store):
    tracker = store.tracker()
    tracker.log_trial(trial(1, epoch=2, state="stopped", final=False))
    tracker.log_trial(trial(2, epoch=2, final=False))  # compared at a rung and not promoted (yet)
    tracker.log_trial(trial(3, epoch=0, state="stopped", final=False, error="latency 7 ms is over the limit 5 ms"))
    assert tracker.flush()
    runs = store.runs()
    assert {r.info.status for r in runs.values()} == {"KILLED"}
    assert [runs[f"trial-000{n}"].data.tags["nas.rung"] for n in (1, 2, 3)] == ["2", "2", "0"]
    assert "latency 7 ms is over" in runs["trial-0003"].data.tags["mlflow.note.content"]
    assert "val/acc" not in runs["trial-0003"].data.metrics


def test_a_promoted_trial_goes_on_in_its_run(store: Store):
    tracker = store.tracker()
    whole = trial(1, accuracy=0.8, epoch=4)
    tracker.log_trial(replace(whole, epoch=2, final=False, curve=whole.curve[:2]))
    tracker.log_trial(replace(whole, curve=whole.curve[2:]))
    assert tracker.flush()
    run = store.runs()["trial-0001"]
    assert run.info.status == "FINISHED"
    assert "nas.rung" not in run.data.tags
    assert store.history(run, "val/acc") == [(e.epoch, e.val_accuracy) for e in whole.curve]


def test_a_trial_that_fails_after_a_rung_is_failed_whatever_epoch_its_lost_worker_says(store: Store):
    tracker = store.tracker()
    at_rung = replace(trial(1), epoch=2, final=False, curve=trial(1).curve[:2])
    lost = replace(at_rung, epoch=0, state="failed", curve=(), values={}, error="The worker was lost 2 times")
    for row in (at_rung, lost, at_rung, lost):
        tracker.log_trial(row)
    tracker.log_trial(replace(at_rung, trial=2))
    assert tracker.flush()
    again = store.tracker()  # another driver, from the table alone
    again.catch_up([at_rung, lost])
    assert again.flush()
    run = store.runs()["trial-0001"]
    assert run.info.status == "FAILED"
    assert "nas.rung" not in run.data.tags
    assert run.data.tags["nas.epoch"] == "2"
    assert "The worker was lost" in run.data.tags["mlflow.note.content"]
    assert [step for step, _ in store.history(run, "val/acc")] == [1, 2]


def test_the_last_hypervolume_is_written_anew_where_an_import_raised_it(store: Store):
    tracker = store.tracker()
    tracker.start_sweep({}, {})
    for history in ([(2, 0.1), (4, 0.3)], [(2, 0.1), (4, 0.3)], [(2, 0.1), (4, 0.5)]):
        tracker.log_hypervolume(history, {"accuracy": 0.0})
    assert tracker.flush()
    (run,) = store.runs("sweep").values()
    assert store.history(run, "hypervolume") == [(2, 0.1), (4, 0.3), (4, 0.5)]
    assert run.data.metrics["hypervolume"] == 0.5


def test_a_failed_trial_carries_the_end_of_its_traceback(store: Store):
    tracker = store.tracker()
    bad = replace(trial(4).curve[1], train_loss=float("nan"), val_loss=float("inf"))
    traceback = "Traceback ...\n" + "x" * 9000 + "\ntorch.OutOfMemoryError: CUDA out of memory"
    tracker.log_trial(trial(4, state="failed", final=False, epoch=2, error=traceback, curve=(trial(4).curve[0], bad)))
    assert tracker.flush()
    run = store.runs()["trial-0004"]
    assert run.info.status == "FAILED"
    note = run.data.tags["mlflow.note.content"]
    assert note.startswith("16x16")
    assert note.endswith("torch.OutOfMemoryError: CUDA out of memory\n```")
    assert [step for step, _ in store.history(run, "train/loss")] == [1], "what is not finite is left out"
    assert [step for step, _ in store.history(run, "val/acc")] == [1, 2]


def test_a_result_without_a_curve_has_its_accuracy_at_its_last_epoch(store: Store):
    tracker = store.tracker()
    tracker.log_trial(trial(5, accuracy=0.7, curve=()))
    assert tracker.flush()
    assert store.history(store.runs()["trial-0005"], "val/acc") == [(4, 0.7)]


def test_more_metrics_and_choices_than_a_batch_holds_all_arrive(store: Store):
    tracker = store.tracker()
    tracker.log_trial(trial(6, epoch=300, choices={f"choice.{i}": i for i in range(230)}))
    assert tracker.flush()
    run = store.runs()["trial-0006"]
    assert len(run.data.params) == 230
    assert len(store.history(run, "train/acc")) == 300
    assert len(store.history(run, "val/loss")) == 300


def test_the_front_tag_moves_and_only_changed_runs_are_touched(store: Store):
    tracker = store.tracker()
    rows = [trial(n, accuracy, flops) for n, (accuracy, flops) in enumerate([(0.6, 1e5), (0.7, 3e5), (0.8, 9e5)])]
    for row in rows:
        tracker.log_trial(row)
    assert tracker.flush()
    touched: list[tuple[str, str]] = []
    client = tracker._client
    set_tag = client.set_tag
    client.set_tag = lambda run_id, key, value: (touched.append((run_id, value)), set_tag(run_id, key, value))
    ids = {name: run.info.run_id for name, run in store.runs().items()}
    for members, changes in [
        ([0, 1], {(0, "true"), (1, "true")}),
        ([0, 1], set()),
        ([1, 2], {(0, "false"), (2, "true")}),
    ]:
        touched.clear()
        tracker.move_front([rows[n] for n in members])
        assert tracker.flush()
        assert {(ids[f"trial-{n:04d}"], value) for n, value in changes} == set(touched)
        on = {name for name, run in store.runs().items() if run.data.tags["nas.front"] == "true"}
        assert on == {f"trial-{n:04d}" for n in members}


def test_the_sweep_run_has_config_report_hypervolume_and_files(store: Store, tmp_path: Path):
    tracker = store.tracker()
    tracker.start_sweep(CONFIG, REPORT)
    rows = [trial(n, accuracy, flops) for n, (accuracy, flops) in enumerate([(0.6, 1e5), (0.7, 3e5), (0.8, 9e5)])]
    corner = reference_point(rows, OBJECTIVE_PAIR, {"flops": 1e6})
    history = [(at.epochs, at.hypervolume) for at in hypervolume_history(rows, OBJECTIVE_PAIR, corner)]
    tracker.log_hypervolume(history[:2], corner)
    tracker.log_hypervolume(history, corner)
    page = tmp_path / "front.html"
    page.write_text("<p>front")
    assert tracker.finish_sweep([page])
    run = store.runs("sweep")["digits"]
    assert run.info.status == "FINISHED"
    assert run.data.params == {"trials": "12", "training.epochs": "4", "objectives": "('accuracy', 'flops')"}
    assert run.data.tags["nas.hypervolume.reference"] == "accuracy 0, flops 1.1e+06"
    assert run.data.tags["nas.git"] == "abc1234"
    assert store.history(run, "hypervolume") == [(n, pytest.approx(v)) for n, v in history]
    assert {f.path for f in store.client.list_artifacts(run.info.run_id)} == {"config.yaml", "space.json", "front.html"}
    assert (tmp_path / "artifacts").is_dir(), "files lie beside the database, wherever the process started"


def test_other_kinds_are_flat_runs_with_their_params_and_files(store: Store, tmp_path: Path):
    proof = tmp_path / "proof.json"
    proof.write_text("{}")
    tracker = store.tracker()
    parent = trial(7)
    tracker.log_run("seed", trial(0), {"network": "squeezenet"})
    tracker.log_run("prune", replace(parent, trial=8, parent=7), {"removed": 12}, [proof])
    for seed in (1, 2, 3):
        tracker.log_run("final", replace(parent, seed=seed, values=parent.values | {"test_accuracy": 0.7 + seed / 100}))
    assert tracker.flush()
    prune = store.runs("prune")["prune-0008"]
    assert prune.data.params["removed"] == "12"
    assert prune.data.tags["nas.parent"] == "7"
    assert [f.path for f in store.client.list_artifacts(prune.info.run_id)] == ["proof.json"]
    assert store.runs("seed")["seed-0000"].data.params["network"] == "squeezenet"
    finals = store.runs("final")
    assert [finals[f"final-0007-seed-{s}"].data.metrics["test/acc"] for s in (1, 2, 3)] == [0.71, 0.72, 0.73]


def test_test_accuracy_is_added_to_a_front_member_after_the_search(store: Store):
    tracker = store.tracker()
    tracker.log_trial(trial(7))
    tracker.log_test(trial(7), 0.77)
    assert tracker.flush()
    assert store.runs()["trial-0007"].data.metrics["test/acc"] == 0.77


def test_catching_up_writes_what_the_store_lacks_and_nothing_twice(store: Store):
    whole = trial(2)
    table = [
        trial(0),
        replace(whole, epoch=2, final=False, curve=whole.curve[:2]),
        trial(1, state="failed", final=False, error="nan"),
        replace(whole, curve=whole.curve[2:]),
        trial(3, epoch=2, final=False),
    ]
    first = store.tracker()
    first.start_sweep(CONFIG, REPORT)
    first.log_trial(table[0])
    first.move_front([table[0]])
    assert first.flush()
    before = store.runs()["trial-0000"].info
    for _ in range(2):
        again = store.tracker()
        again.start_sweep(CONFIG | {"trials": 24}, REPORT)  # asking for more trials is no other sweep
        again.catch_up(table)
        again.catch_up(table)
        again.move_front([whole])
        assert again.finish_sweep([])
        runs = store.runs()
        assert {n: r.info.status for n, r in runs.items()} == {
            "trial-0000": "FINISHED",
            "trial-0001": "FAILED",
            "trial-0002": "FINISHED",
            "trial-0003": "KILLED",
        }
        assert store.history(runs["trial-0002"], "val/acc") == [(e.epoch, e.val_accuracy) for e in whole.curve]
        assert [n for n, r in runs.items() if r.data.tags["nas.front"] == "true"] == ["trial-0002"]
        after = runs["trial-0000"].info
        assert (after.run_id, after.end_time) == (before.run_id, before.end_time)
        assert len(store.runs("sweep")) == 1


def test_a_run_cut_short_by_a_crash_is_written_anew(store: Store):
    tracker = store.tracker()
    tracker.log_trial(trial(0))
    assert tracker.flush()
    half = store.client.create_run(
        store.client.get_experiment_by_name("digits").experiment_id,
        tags={"nas.sweep": "digits", "nas.folder": "", "nas.kind": "trial", "nas.trial": "1", "nas.seed": "1"},
        run_name="trial-0001",
    )
    again = store.tracker()
    again.catch_up([trial(0), trial(1)])
    assert again.flush()
    run = store.runs()["trial-0001"]
    assert run.info.status == "FINISHED"
    assert run.info.run_id != half.info.run_id


def test_a_deleted_experiment_is_restored(store: Store):
    tracker = store.tracker()
    tracker.log_trial(trial(0))
    assert tracker.flush()
    store.client.delete_experiment(store.client.get_experiment_by_name("digits").experiment_id)
    again = store.tracker()
    again.catch_up([trial(0), trial(1)])
    assert again.flush()
    assert len(store.runs()) == 2


def test_a_refused_record_is_said_and_the_next_ones_are_written(tmp_path: Path):
    store = Store(tmp_path)
    tracker = store.tracker()
    tracker.log_trial(trial(0, choices={"not allowed: <*>": 1}))
    tracker.log_trial(trial(1))
    assert tracker.flush()
    assert len(store.said) == 1
    assert re.search("refused trial-0000: .*not allowed", store.said[0])
    assert store.runs()["trial-0001"].info.status == "FINISHED"


def test_nothing_is_printed_or_warned_at_first_use_or_by_a_store_that_is_down(tmp_path: Path):
    script = f"""
from nas.tracking import Tracker
tracker = Tracker("sqlite:///{tmp_path}/mlflow.db", "e", "s", {{}})
tracker.start_sweep({{"trials": 1}}, {{}})
assert tracker.finish_sweep([])
said = []
gone = Tracker("http://127.0.0.1:{free_port()}", "e", "s", {{}}, say=said.append)
gone.start_sweep({{"trials": 1}}, {{}})
assert not gone.flush() and len(said) == 1
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@contextlib.contextmanager
def server(folder: Path, port: int) -> Iterator[str]:
    """A real `mlflow server` on `folder`, in a process group of its own."""
    command = [sys.executable, "-W", "ignore", "-m", "mlflow", "server", "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", f"{folder}/files"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    environment = os.environ | {"PYTHONWARNINGS": "ignore", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with open(folder / "server.log", "ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
    try:
        until(lambda: urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).read() == b"OK")
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(15)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(5)


def test_a_store_that_is_down_costs_the_search_no_time_and_is_said_once(tmp_path: Path):
    said: list[str] = []
    tracker = Tracker(f"http://127.0.0.1:{free_port()}", "digits", "digits", PROVENANCE, say=said.append)
    began = time.monotonic()
    tracker.start_sweep(CONFIG, REPORT)
    for n in range(50):
        tracker.log_trial(trial(n))
        tracker.move_front([trial(n)])
    assert time.monotonic() - began < 0.5
    assert not tracker.finish_sweep([])
    assert time.monotonic() - began < 40
    assert len(said) == 2
    assert re.search("does not answer; the search goes on and catches up later", said[0])
    assert said[1] == "MLflow still lacks 103 records: the same command, run again, writes them."
    assert tracker.chart_link() is None


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_server_that_comes_and_goes_gets_everything_in_the_end(tmp_path: Path, capfd):
    port = free_port()
    said: list[str] = []
    tracker = Tracker(f"http://127.0.0.1:{port}", "digits", "digits", PROVENANCE, say=said.append)
    tracker.start_sweep(CONFIG, REPORT)
    tracker.log_trial(trial(0))
    assert not tracker.flush(60)
    store = Store(tmp_path)
    with server(tmp_path, port):
        tracker.log_trial(trial(1))
        assert tracker.flush(60)
        assert tracker.chart_link() == (
            f"http://127.0.0.1:{port}/#/experiments/1/runs?viewStateShareKey=front&compareRunsMode=CHART"
        )
    tracker.log_trial(trial(2))
    tracker.move_front([trial(2)])
    assert not tracker.flush(60)
    page = tmp_path / "front.html"
    page.write_text("<p>front")
    with server(tmp_path, port):
        assert tracker.finish_sweep([page], timeout_s=120)
        names = [f.path for f in tracker._client.list_artifacts(tracker._sweep_id)]
        assert "front.html" in names
    assert {n: r.data.tags["nas.front"] for n, r in store.runs().items()} == {
        "trial-0000": "false",
        "trial-0001": "false",
        "trial-0002": "true",
    }
    assert ["again" in line for line in said] == [False, True, False, True], said
    assert capfd.readouterr().out == ""


CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")


@contextlib.contextmanager
def browser(folder: Path) -> Iterator[Callable[[str, dict | None], object]]:
    """A headless Chromium: WebDriver calls on one session, `call(path, body)` (a GET without a body)."""
    port = free_port()
    process = subprocess.Popen([DRIVER, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    options = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking"
    options += f" --disable-component-update --disable-sync --window-size=1600,1000 --user-data-dir={folder}/profile"
    chrome = {"binary": CHROMIUM, "args": options.split()}

    def send(path: str, body: dict | None = None, method: str | None = None) -> object:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]

    try:
        until(lambda: send("/status")["ready"])
        session = send("/session", {"capabilities": {"alwaysMatch": {"goog:chromeOptions": chrome}}})["sessionId"]
        try:
            yield lambda path, body=None: send(f"/session/{session}{path}", body)
        finally:
            send(f"/session/{session}", method="DELETE")
    finally:
        process.terminate()
        process.wait(10)


def until(condition: Callable[[], object], seconds: float = 60) -> object:
    """The first true value of `condition`, asked ten times a second; errors on the way are no answer."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(OSError, KeyError):
            if value := condition():
                return value
        time.sleep(0.1)
    raise TimeoutError(f"nothing in {seconds} s")


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(CHROMIUM is None or DRIVER is None, reason="chromium and chromedriver are not installed")
def test_the_chart_page_opens_with_the_scatter_of_finished_trials(tmp_path: Path):
    store = Store(tmp_path)
    tracker = store.tracker()
    tracker.start_sweep(CONFIG, REPORT)
    rows = [trial(n, 0.5 + 0.4 * (n * 7 % 12) / 12, 1e5 * 1.3 ** (n * 5 % 12)) for n in range(12)]
    rows += [trial(12, epoch=2, final=False), trial(13, state="failed", final=False, error="NaN loss at epoch 2")]
    tracker.catch_up(rows)
    tracker.move_front(front(rows, OBJECTIVE_PAIR))
    assert tracker.finish_sweep([])
    with server(tmp_path, free_port()) as address, browser(tmp_path) as call:
        call("/url", {"url": address + tracker.chart_link()})
        scatter = until(lambda: call("/execute/sync", {"script": SCATTER, "args": []}))
        picture = base64.b64decode(call("/screenshot"))
    (tmp_path / "chart.png").write_bytes(picture)
    assert store.said == []
    finished = [r for r in rows if r.state == "complete" and r.final]
    assert scatter == {"x": "flops", "y": "val/acc", "points": len(finished)}, "what finished, and nothing else"


SCATTER = """
const plot = [...document.querySelectorAll('.js-plotly-plot')].find(p => p.querySelector('.xtitle, .g-xtitle text'));
const points = plot ? plot.querySelectorAll('.scatterlayer .point').length : 0;
const title = name => plot.querySelector(`.g-${name} text`).textContent;
return points ? {x: title('xtitle'), y: title('ytitle'), points} : null;
"""
