"""The command line as people use it: real processes, exit codes, messages, and no traceback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from experiments.terminal import table
from nas.folder import weights
from searchspace.checkpoint import load, save

SWEEP = """format: sweep/1
name: stripes
data: {data}
space:
  width: [0.5, 1.0]
  stages:
    - {{block: [plain, residual], width: [8, 16], kernel: [3, 5]}}
limits: {{flops: 200k}}
budget: {{trials: 5}}
training: {{epochs: 2, batch_size: 16}}
workers: {{address: inprocess}}
"""


def nas(*words: str, **kwargs: object) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI")}
    done = subprocess.run(
        [sys.executable, "-m", "experiments.cli", *words],
        capture_output=True,
        text=True,
        env=clean,
        timeout=55,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stripes")
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 3
    images = rng.normal(size=(120, 8, 8)).astype(np.float32)
    for i, label in enumerate(labels):
        images[i, label * 2 : label * 2 + 3] += 1.0
    np.savez(path / "stripes.npz", images=images, labels=labels)
    (path / "sweep.yaml").write_text(SWEEP.format(data="stripes.npz"))
    return path


@pytest.fixture(scope="module")
def out(folder: Path) -> Path:
    done = nas("search", str(folder / "sweep.yaml"), "--out", str(folder / "out"))
    assert done.returncode == 0, done.stderr
    assert "Pareto front of 5 trials: 3 fully trained, 2 stopped at epoch 1, 0 failed" in done.stdout
    assert "front.html" in done.stdout
    return folder / "out"


def test_help_answers_in_under_half_a_second() -> None:
    def seconds() -> float:
        start = time.perf_counter()
        assert "search" in nas("--help").stdout
        return time.perf_counter() - start

    assert min(seconds() for _ in range(5)) < 0.5


def test_a_search_leaves_every_promised_file(out: Path) -> None:
    for name in (
        "results.jsonl",
        "journal.log",
        "front.json",
        "front.html",
        "front.png",
        "hypervolume.png",
        "mlflow.db",
    ):
        assert (out / name).stat().st_size > 0, name
    assert list((out / "checkpoints").glob("trial-*.safetensors"))
    page = (out / "front.html").read_text()
    assert "plotly" in page
    assert "cdn.plot.ly" not in page.replace("https://cdn.plot.ly/un/", "").replace("cdn.plot.ly/un", "")


def test_front_prints_the_members_and_json_alone_on_stdout(out: Path) -> None:
    members = json.loads(nas("front", str(out), "--json").stdout)["members"]
    lines = nas("front", str(out)).stdout.splitlines()
    assert len(lines) == 1 + len(members)
    assert [int(line.split()[0]) for line in lines[1:]] == [m["trial"] for m in members]
    assert all("test_accuracy" in m["values"] for m in members)


def test_a_member_is_picked_costed_and_its_cost_is_the_tables(out: Path, tmp_path: Path) -> None:
    member = json.loads(nas("front", str(out), "--json").stdout)["members"][0]
    path = tmp_path / "architecture.json"
    path.write_text(nas("front", str(out), "--trial", str(member["trial"]), "--json").stdout)
    price = json.loads(nas("cost", str(path), "--json").stdout)
    assert price["flops"] == member["values"]["flops"]
    assert price["digest"] == member["digest"]
    assert "multiply-adds of convolutions" in nas("cost", str(path)).stdout
    assert json.loads(nas("cost", member["checkpoint"], "--json").stdout) == price
    assert json.loads(nas("cost", str(out), "--trial", str(member["trial"]), "--json").stdout) == price
    assert nas("cost", str(out), "--trial", str(member["trial"]), "--set", "depth=50").returncode == 2
    assert "stage1.width" in nas("front", str(out), "--trial", str(member["trial"])).stdout


def test_train_gives_mean_and_spread_over_fresh_seeds(out: Path) -> None:
    trial = json.loads(nas("front", str(out), "--json").stdout)["members"][0]["trial"]
    found = json.loads(nas("train", str(out), "--trial", str(trial), "--seeds", "2", "--json").stdout)
    assert len(found["test_accuracies"]) == 2
    assert found["test_mean"] == pytest.approx(sum(found["test_accuracies"]) / 2)
    assert all(Path(path).exists() for path in found["checkpoints"])
    said = nas("train", str(out), "--trial", str(trial), "--seeds", "1").stdout
    assert "in the search" in said
    assert "optimistic" in said


def test_prune_dead_writes_a_network_with_its_proof(out: Path, folder: Path) -> None:
    trial = json.loads(nas("front", str(out), "--json").stdout)["members"][0]["trial"]
    file = weights(out, trial)
    trained, network = file.read_bytes(), load(file)
    with torch.no_grad():
        for norm in (part for part in network.modules() if isinstance(part, nn.BatchNorm2d)):
            norm.weight[0], norm.bias[0] = 0, -0.5
    save(file, network)
    words = ("prune", "dead", str(out), "--trial", str(trial))
    record = json.loads(nas(*words, "--data", str(folder / "stripes.npz"), "--json").stdout)
    assert record["removed"]
    assert record["proof"]["relative_error"] < 1e-10
    assert record["cost_after"]["flops"] <= record["cost_before"]["flops"]
    assert record["test_accuracy_before"] == record["test_accuracy_after"]
    price = json.loads(nas("cost", record["files"][0], "--json").stdout)
    assert price["flops"] == record["cost_after"]["flops"]
    assert nas(*words).returncode == 0
    file.write_bytes(trained)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's own, on newer SQLAlchemy
def test_mlflow_holds_a_run_a_trial_and_the_kinds(out: Path, folder: Path) -> None:
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{out / 'mlflow.db'}")
    (experiment,) = [e for e in client.search_experiments() if e.name == "stripes"]
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    kinds = [run.data.tags["nas.kind"] for run in runs]
    assert kinds.count("trial") == 5
    assert kinds.count("sweep") == 1
    members = {m["trial"] for m in json.loads((out / "front.json").read_text())["members"]}
    tagged = {int(run.info.run_name.split("-")[1]) for run in runs if run.data.tags.get("nas.front") == "true"}
    assert tagged == members


def test_space_reports_size_costs_and_speed(folder: Path) -> None:
    report = json.loads(nas("space", str(folder / "sweep.yaml"), "--json").stdout)
    assert report["codes"] == 16
    assert report["costs"]["flops"]["largest"] <= 200_000
    assert report["per_second"] > 0
    assert "feasible" in nas("space", "digits").stdout


def test_a_dry_run_tells_the_cost_and_writes_nothing(folder: Path, tmp_path: Path) -> None:
    done = nas("search", str(folder / "sweep.yaml"), "--out", str(tmp_path / "no"), "--dry-run")
    assert "5 trials" in done.stdout
    assert "1.5 epochs in the mean" in done.stdout, "half of the trials go on from the first epoch to the second"
    assert not (tmp_path / "no").exists()
    whole = nas("search", str(folder / "sweep.yaml"), "--out", str(tmp_path / "no"), "--dry-run", "--no-rungs")
    assert "in the mean" not in whole.stdout
    assert "proposed by surrogate" in whole.stderr
    screen = ("search", "digits", "--out", str(tmp_path / "no"), "--dry-run", "--sampler", "screen")
    assert nas(*screen).stdout.count("2.75 epochs in the mean") == 1
    assert nas(*screen, "--rungs").stdout.count("2.75 epochs in the mean") == 1, "the sampler's own"


@pytest.mark.parametrize(
    ("words", "message", "code"),
    [
        (["search", "digts"], "did you mean 'digits'", 2),
        (["search", "digits", "--sampler", "tpee"], "did you mean 'tpe'", 2),
        (["search", "digits", "--trials", "0"], "greater than or equal to 1", 2),
        (["search", "digits", "--epochs", "500"], "must allow one training of 500 epochs (got 480)", 2),
        (["search", "digits", "--out", "/proc/no"], "must be a folder that can be written", 2),
        (["front", "nowhere"], "`nas search` writes it", 2),
        (["train", "nowhere", "--trial", "1"], "must", 2),
        (["prune", "dead", "nowhere", "--trial", "1"], "must", 2),
        (["cost", "nowhere.json"], "must be a readable file", 2),
        (["cost", "pyproject.toml"], "must be JSON", 2),
        (["cost", "nowhere.safetensors"], "there must be a network file", 2),
        (["nonsense"], "No such command", 2),
    ],
)
def test_what_the_user_can_mend_is_a_message_and_an_exit_code(words: list[str], message: str, code: int) -> None:
    done = nas(*words)
    assert message in " ".join((done.stderr + done.stdout).replace("│", " ").split())
    assert done.returncode == code


def test_an_unknown_trial_names_the_front(out: Path) -> None:
    done = nas("train", str(out), "--trial", "99")
    assert done.returncode == 2
    assert "which is not there; front: " in done.stderr


def test_a_limit_out_of_reach_ends_with_the_nearest_miss(folder: Path, tmp_path: Path) -> None:
    (folder / "tight.yaml").write_text(SWEEP.format(data="stripes.npz").replace("200k", "10"))
    for words in (
        ["search", str(folder / "tight.yaml"), "--out", str(tmp_path / "o")],
        ["space", str(folder / "tight.yaml")],
    ):
        done = nas(*words)
        assert done.returncode != 0
        assert "the nearest architecture has flops" in done.stderr + done.stdout


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_saves_the_front_and_prints_the_command_that_goes_on(
    folder: Path, tmp_path: Path, stop: signal.Signals
) -> None:
    text = SWEEP.format(data="stripes.npz").replace("trials: 5", "trials: 16").replace("epochs: 2", "epochs: 25")
    (folder / "long.yaml").write_text(text)
    out = tmp_path / "out"
    command = [sys.executable, "-m", "experiments.cli", "search", str(folder / "long.yaml"), "--out", str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 40
        while not (out / "front.json").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(stop)
        _, said = process.communicate(timeout=40)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert f"nas search {folder / 'long.yaml'} --out {out}" in said
    assert (out / "front.html").exists()


def test_columns_are_aligned_and_the_last_is_cut() -> None:
    text = table(["n", "words"], [["1", "a" * 50], ["100", "b"]], wide=20)
    assert text.splitlines() == ["  n  words", "  1  aaaaaaaaaaaa...", "100  b"]
