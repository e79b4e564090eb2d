"""Bad input through the command line: a message that says what to mend, an exit code, no traceback, nothing lost."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments import cli
from experiments.cost import record as cost_record
from experiments.named import read_file
from experiments.opened import shipped
from nas.search import search
from nas.sweep import SweepError
from nas.sweep_file import read_sweep
from searchspace.architecture import ArchitectureError
from searchspace.choices import SpaceError
from searchspace.notation import to_json
from searchspace.published import NETWORKS
from searchspace.spaces import open_space

STAGE = "{block: plain, width: [8, 16], kernel: [3, 5]}"
SWEEP = f"""format: sweep/1
name: noise
data: noise.npz
space:
  stages:
    - {STAGE}
budget: {{trials: 2}}
training: {{epochs: 1, batch_size: 16}}
workers: {{address: inprocess}}
tracking: {{uri: "off"}}
"""
OWN = """
def breaks(into, *, out):
    raise KeyError("mine")
def leaves(into, *, out):
    raise SystemExit(3)
def refuses(into, *, out):
    raise ValueError("not today")
def gives_nothing(into, *, out):
    pass
def no_block():
    pass
def fails(network, data, training, **more):
    raise ValueError("no luck")
"""
LABELS = np.arange(60) % 3
IMAGES = np.random.default_rng(0).normal(size=(60, 8, 8)).astype(np.float32)
SPACES = shipped("spaces")

Nas = Callable[..., tuple[object, str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good sweep, its data, and its finished folder `good`."""
    path = tmp_path_factory.mktemp("bad")
    np.savez(path / "noise.npz", images=IMAGES, labels=LABELS)
    (path / "sweep.yaml").write_text(SWEEP)
    (path / "own_parts.py").write_text(OWN)
    (path / "own_import.py").write_text("import no_such_module_anywhere\n")
    (path / "own_exit.py").write_text("raise SystemExit(3)\n")
    (path / "own_syntax.py").write_text("def(\n")
    search(read_sweep(path / "sweep.yaml"), path / "good")
    return path


@pytest.fixture
def nas(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Nas:
    """The command in this process, in `folder`: (exit code, what it says in one line). Any other exception fails."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)

    def run(*words: str) -> tuple[object, str]:
        monkeypatch.setattr(sys, "argv", ["nas", *words])
        code: object = 0
        try:
            cli.main()
        except SystemExit as left:
            code = left.code
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return code, " ".join((said.out + said.err).replace("│", " ").split())

    return run


def process(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI")}
    done = subprocess.run(
        [sys.executable, "-m", "experiments.cli", *words],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**clean, "PYTHONPATH": str(Path(cli.__file__).parents[1]), **variables},
        timeout=200,  # the limit of a test is pytest's: 60 s, and 600 s where it is slow
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def files(out: Path) -> dict[str, bytes]:
    """What a folder holds, but for the lock."""
    return {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file() and p.name != "lock"}


# The sweep's file -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("name: noise", "nam: noise", ":2: nam: must be one of format, name"),
        ("trials: 2", "trials: many", ":7: budget.trials: must be a valid integer"),
        ("kernel: [3, 5]", "kernal: 3", ":6: space.stages.1.kernal: must be one of block"),
        ("kernel: [3, 5]", "alpha: [0, 1.5]", ":6: space.stages.1.alpha: must be a number in [0, 1] (got 1.5)"),
        (STAGE, "{block: plain, width: 8}", ":4: space: must offer at least one choice"),
        ("kernel: [3, 5]", "groups: [7]", "`groups` must divide the input channels, but got (width=16, groups=7)"),
        ("kernel: [3, 5]", "stride: 8, alpha: 0.5", "stride must be 1 or 2 on both axes, but got (8, 8)"),
        (STAGE, "{block: 'own_gone:block', width: [8, 16]}", "must be importable (got 'own_gone:block'"),
        (STAGE, "{block: 'own_import:block', width: [8, 16]}", "No module named 'no_such_module_anywhere'"),
        (STAGE, "{block: 'own_exit:block', width: [8, 16]}", "got 'own_exit:block': SystemExit: 3"),
        (STAGE, "{block: 'own_syntax:block', width: [8, 16]}", "SyntaxError: invalid syntax (own_syntax.py"),
        (STAGE, "{block: 'own_parts:gone', width: [8, 16]}", "must name a function of own_parts (got 'gone')"),
        (STAGE, "{block: 'own_parts:no_block', width: [8, 16]}", "must be a function (into, *, out, ...)"),
        (
            STAGE,
            "{block: 'own_parts:breaks', width: [8, 16]}",
            ":6: space.stages.1.block: must return a fragment from block 'own_parts:breaks' (got KeyError: 'mine')",
        ),
        (
            STAGE,
            "{block: 'own_parts:leaves', width: [8, 16]}",
            ":6: space.stages.1.block: must return a fragment from block 'own_parts:leaves' (got SystemExit: 3)",
        ),
        (STAGE, "{block: 'own_parts:gives_nothing', width: [8, 16]}", "own_parts:gives_nothing' (got None)"),
        (
            "kernel: [3, 5]",
            "kernel: [3, [1, 3, 3]]",
            "bad.yaml:6: space.stages.1.kernel: must give 2 axes on this data",
        ),
        (STAGE, "{block: 'own_parts:refuses', width: [8, 16]}", "refuses {}: not today"),
        ("name: noise", "name: noise\ntrain: own_gone:train", "train: `train` must name a module on the path"),
        ("name: noise", "name: noise\ntrain: own_import:train", "train: must be importable (got 'own_import:train'"),
        ("name: noise", "name: noise\ntrain: own_exit:train", "SystemExit: 3"),
        ("name: noise", "name: noise\ntrain: own_syntax:train", "SyntaxError"),
        (
            "name: noise",
            "name: noise\nlimits: {flops: 10}",
            "limits: must be within reach of the space, but the nearest",
        ),
        ("name: noise", f"name: {'n' * 300}", "name too long"),
        # What YAML is not, or says by another word.
        ("  stages:", "\tstages:", ":5: must be YAML (found character '\\t' that cannot start any token)"),
        ("  stages:", "stages:", ":5: stages: must be one of format, name"),
        (
            "  stages:",
            "      stages:",
            ":6: must be YAML (expected <block end>, but found '<block sequence start>'; is",
        ),
        (SWEEP, "", "bad.yaml: must be a mapping, lines of `name: value` (got nothing)"),
        (SWEEP, "- a\n- b", "(got a list)"),
        (SWEEP, f"a: {'[' * 3000}", "bad.yaml: must be YAML of a few levels (got too many)"),
        ("name: noise", "name: noise\nname: noise", ":3: must be YAML (the key 'name' stands twice)"),
        ("name: noise", "name: 2020-13-45", ":2: must be YAML (month must be in 1..12)"),
        ("name: noise", "name: a/b", ":2: name: must be a word of letters, digits and _.- that begins with a letter"),
        ("name: noise", "name: noise\n5: 6", "must be a word (got 5)"),
        (
            "name: noise",
            "name: noise\ntrain: nas.train",
            ":3: train: must be package.module:function (got 'nas.train')",
        ),
        ("{trials: 2}", "[trials, 2]", ":7: budget: must be a mapping of trials, epochs, hours, gpu_hours (got ['tr"),
        ("budget: {trials: 2}", "budget:\ntrials: 2", ":7: budget: must be a mapping of trials, epochs"),
        (STAGE, "{block: 'builtins:type', width: [8, 16]}", "must be a function (into, *, out, ...)"),
        # Numbers that no machine has.
        ("trials: 2", f"trials: {'9' * 5000}", ":7: must be YAML (Exceeds the limit (4300 digits)"),
        ("trials: 2", f"trials: {'9' * 400}", ":7: budget.trials: must be less than or equal to 1000000000 (got 99"),
        ("epochs: 1", f"epochs: {10**10}", ":8: training.epochs: must be a whole number in 1..1000000000"),
        ("epochs: 1", "epochs: -1", ":8: training.epochs: must be a whole number in 1..1000000000, but got -1"),
        (
            "name: noise",
            "name: noise\nlimits: {flops: 1e999}",
            ":3: limits.flops: must be a positive count such as 60k",
        ),
        ("name: noise", "name: noise\nlimits: {flops: 1e999M}", ":3: limits.flops: must be a positive count"),
        ("name: noise", "name: noise\nlimits: {flops: 1 MB}", "such as 60k, 300M or 1.5G (got '1 MB')"),
        ("name: noise", "name: noise\nlimits: {latency: 5}", ":3: limits.latency: must be a duration with its unit"),
        ("address: inprocess", "cpus_per_trial: 1e-9", ":9: workers.cpus_per_trial: must be a multiple of 0.0001"),
        ("address: inprocess", "gpus_per_trial: 1.5", ":9: workers.gpus_per_trial: must be a whole number beyond 1"),
    ],
)
def test_a_sweep_that_cannot_be_is_refused_with_its_rule(
    nas: Nas, folder: Path, tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert old in SWEEP
    (folder / "bad.yaml").write_text(SWEEP.replace(old, new, 1))
    out = () if "n" * 300 in new else ("--out", str(tmp_path / "deep" / "out"))
    code, said = nas("search", "bad.yaml", *out)
    assert message in said
    assert code == 2
    assert "Pareto" not in said
    assert not any(tmp_path.iterdir())


def test_words_that_yaml_takes_for_another_kind_are_what_they_look_like(folder: Path) -> None:
    text = SWEEP.replace('"off"', "off").replace("trials: 2", "trials: 1e1")
    text = text.replace("[3, 5]", "[3, 5], alpha: [0, 5e-1]").replace("epochs: 1", "epochs: 1, learning_rate: 1e-3")
    (folder / "words.yaml").write_text(text)
    sweep = read_sweep(folder / "words.yaml")
    assert sweep.tracking.uri == "off"
    assert (sweep.training.learning_rate, sweep.budget.trials) == (0.001, 10)
    assert sweep.space["stages"][0]["alpha"] == [0, 0.5]  # type: ignore[index]


def test_several_faults_are_said_at_once_each_with_its_line(folder: Path) -> None:
    bad = SWEEP.replace("trials: 2", "trials: 0").replace("width: [8", "width: [0").replace("epochs: 1", "epoch: 1")
    (folder / "several.yaml").write_text(bad)
    done = process(folder, "search", "several.yaml")
    assert done.returncode == 2
    assert done.stdout == ""
    for part in ("several.yaml:7: budget.trials: ", "several.yaml:6: space.stages.1.width: ", ":8: training.epoch: "):
        assert part in done.stderr
    assert not (folder / "runs" / "noise").exists()


# Data -----------------------------------------------------------------------------------------------------------

NAN = IMAGES.copy()
NAN[3, 2, 1] = np.nan
BROKEN: dict[str, tuple[dict[str, np.ndarray], str]] = {
    "nan": ({"images": NAN}, "must be finite, but got 1 values"),
    "negative": ({"labels": LABELS - 1}, "`labels` must be in 0..1 (classes - 1), but got -1..1"),
    "float": ({"labels": LABELS.astype(float)}, "`labels` must be whole numbers of shape (n,), but got float64"),
    "short": ({"labels": LABELS[:50]}, "must be equally long, but got shapes (60, 8, 8) and (50,)"),
    "one": ({"labels": LABELS * 0}, "must name at least two classes, but all 60 are 0"),
    "above": ({"classes": np.array(2)}, "must be in 0..1 (classes - 1), but got 0..2"),
    "huge label": ({"labels": LABELS + 2**60}, "at most 1000000 classes, but got 1152921504606846979"),
    "huge classes": ({"classes": np.array(2**62)}, "at most 1000000 classes, but got 4611686018427387904"),
    "names": ({"labels": np.array(["a", "b", "c"] * 20)}, "must be whole numbers of shape (n,), but got <U1"),
    "objects": ({"images": np.array([*IMAGES[:59], None], dtype=object)}, "Object arrays cannot be loaded"),
    "channels last": ({"images": np.zeros((60, 8, 8, 3))}, "Move them with numpy.moveaxis(images, -1, 1)"),
    "few": ({"images": IMAGES[:9], "labels": LABELS[:9]}, "needs at least 5 images of each class"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_data_that_cannot_be_used_is_refused_with_its_rule(nas: Nas, folder: Path, tmp_path: Path, name: str) -> None:
    change, message = BROKEN[name]
    np.savez(folder / "broken.npz", **{"images": IMAGES, "labels": LABELS, **change})  # type: ignore[arg-type]
    refused(nas, folder, tmp_path, "broken.npz", message)


def test_a_data_file_that_is_not_there_or_garbage_is_said(nas: Nas, folder: Path, tmp_path: Path) -> None:
    whole = (folder / "noise.npz").read_bytes()
    (folder / "folder.npz").mkdir()
    flipped = bytearray(whole)
    flipped[1000:1200] = b"x" * 200
    for name, content in {"empty": b"", "garbage": b"hello", "cut": whole[:9000], "flipped": flipped}.items():
        (folder / f"{name}.npz").write_bytes(content)
        refused(nas, folder, tmp_path, f"{name}.npz", "must be an .npz file of plain arrays, but")
    with (folder / "array.npz").open("wb") as file:
        np.save(file, IMAGES)
    refused(nas, folder, tmp_path, "array.npz", "but it is one array of shape (60, 8, 8) (.npy)")
    np.savez(folder / "keys.npz", x=IMAGES, y=LABELS)
    refused(nas, folder, tmp_path, "keys.npz", "The arrays must be `images` and `labels`, or such a pair for each of")
    (folder / "loop.npz").symlink_to("loop.npz")
    refused(nas, folder, tmp_path, "loop.npz", "Too many levels of symbolic links")
    refused(nas, folder, tmp_path, "folder.npz", "Is a directory")
    refused(nas, folder, tmp_path, "gone.npz", "there must be an .npz file here, but there is none")
    refused(nas, folder, tmp_path, f"{'n' * 300}.npz", "File name too long")
    refused(nas, folder, tmp_path, '"n\\0.npz"', "null byte")
    refused(nas, folder, tmp_path, "digts", "did you mean 'digits'?")


def refused(nas: Nas, folder: Path, tmp_path: Path, data: str, message: str) -> None:
    (folder / "data.yaml").write_text(SWEEP.replace("noise.npz", data))
    code, said = nas("search", "data.yaml", "--out", str(tmp_path / "out"))
    assert message in said
    assert code == 2
    assert not any(tmp_path.iterdir())


def test_fewer_images_than_a_batch_train_in_one_batch_and_it_is_said(nas: Nas, folder: Path, tmp_path: Path) -> None:
    (folder / "wide.yaml").write_text(SWEEP.replace("batch_size: 16", "batch_size: 4096"))
    code, said = nas("search", "wide.yaml", "--out", str(tmp_path / "out"))
    assert code == 0
    assert "note: batch_size is 4096, so the 36 training images are one batch." in said
    assert "Pareto front of 2 trials" in said


# The output folder ----------------------------------------------------------------------------------------------


def test_the_folder_of_another_sweep_is_kept_and_the_difference_said(nas: Nas, folder: Path) -> None:
    before = files(folder / "good")
    (folder / "other.yaml").write_text(SWEEP.replace("[3, 5]", "[3, 7]").replace("epochs: 1", "epochs: 2"))
    code, said = nas("search", "other.yaml", "--out", "good")
    assert code == 2
    assert 'space: must stay as it was ({"stages"' in said
    assert 'training: must stay as it was ({"epochs": 1' in said
    assert "good belongs to another sweep: choose another --out" in said
    assert files(folder / "good") == before


def test_a_folder_whose_trials_all_failed_has_no_front_and_says_why(nas: Nas, folder: Path, tmp_path: Path) -> None:
    (folder / "fails.yaml").write_text(SWEEP.replace("name: noise", "name: noise\ntrain: own_parts:fails"))
    why = "No trial was trained to its end: 2 failed, first trial-0000 by ValueError: no luck"
    for words in (("search", "fails.yaml", "--out", str(tmp_path / "out")), ("front", str(tmp_path / "out"))):
        code, said = nas(*words)
        assert why in said
        assert code == 1
    (tmp_path / "out" / "results.jsonl").unlink()
    code, said = nas("front", str(tmp_path / "out"))
    assert said == "No trial was trained to its end: none has ended yet"
    assert code == 1


FRONT, SEARCH = ("front", "OUT"), ("search", "sweep.yaml", "--out", "OUT")


@pytest.mark.parametrize(
    ("name", "old", "words", "message"),
    [
        ("sweep.json", "sweep/1", SEARCH, "sweep.json: format must be 'sweep/1' (got 'sweep/2')"),
        ("sweep.json", "sweep/1", FRONT, "sweep.json: format must be 'sweep/1' (got 'sweep/2')"),
        ("front.json", "front/1", FRONT, "front.json: format must be 'front/1' (got 'front/2')"),
        ("space.json", "survey/1", SEARCH, "space.json: format must be 'survey/1' (got 'survey/2')"),
        ("data.json", "data/1", SEARCH, "data.json: format must be 'data/1' (got 'data/2')"),
        ("results.jsonl", "result/1", SEARCH, "results.jsonl:1: A result must have format 'result/1'"),
        ("results.jsonl", "result/1", ("cost", "OUT", "--trial", "0"), "results.jsonl:1: A result must have"),
    ],
)
def test_a_newer_format_is_refused_by_name_and_left_alone(
    nas: Nas, folder: Path, tmp_path: Path, name: str, old: str, words: tuple[str, ...], message: str
) -> None:
    out = tmp_path / "out"
    shutil.copytree(folder / "good", out)
    path = out / name
    path.write_text(path.read_text().replace(old, old[:-1] + "2"))
    before = files(out)
    code, said = nas(*(str(out) if word == "OUT" else word for word in words))
    assert message in said
    assert code == 2
    assert files(out) == before


@pytest.mark.parametrize("content", [b"", b"[1]", b"\xff\xfe", b"null", b'{"format": "FORM"}', b"[" * 100_000])
@pytest.mark.parametrize(
    ("name", "form", "words"),
    [
        ("sweep.json", "sweep/1", SEARCH),
        ("sweep.json", "sweep/1", ("train", "OUT", "--trial", "0")),
        ("front.json", "front/1", FRONT),
        ("space.json", "survey/1", SEARCH),
        ("data.json", "data/1", SEARCH),
    ],
)
def test_a_garbled_file_is_named_and_nothing_else_is_touched(
    nas: Nas, folder: Path, tmp_path: Path, name: str, form: str, words: tuple[str, ...], content: bytes
) -> None:
    out = tmp_path / "out"
    shutil.copytree(folder / "good", out)
    (out / name).write_bytes(content.replace(b"FORM", form.encode()))
    before = files(out)
    code, said = nas(*(str(out) if word == "OUT" else word for word in words))
    assert code == 2, said
    assert name in said or "data: must be what it was" in said
    assert files(out) == before


ROW = {"format": "result/1", "trial": 0, "digest": "", "architecture": {}, "epoch": 1, "final": True, "seed": 0}
ROW |= {"state": "complete", "values": {"accuracy": 1.0, "flops": 1.0}, "seconds": 1.0}
ROW |= {"worker": {"node": "", "pid": 0, "device": ""}}


@pytest.mark.parametrize(
    ("name", "content", "words", "message"),
    [
        ("results.jsonl", "[" * 100_000 + "\n{}\n", SEARCH, "results.jsonl:1: a line must be JSON"),
        ("results.jsonl", json.dumps(ROW | {"values": [1]}) + "\n", SEARCH, "results.jsonl:1: A result must have all"),
        ("results.jsonl", json.dumps(ROW | {"values": {"flops": "few"}}) + "\n", SEARCH, "must be numbers"),
        ("results.jsonl", json.dumps(ROW | {"trial": "x"}) + "\n", ("front", "OUT", "--trial", "0"), "must be numbers"),
        ("results.jsonl", json.dumps(ROW) + "\n", ("cost", "OUT", "--trial", "0"), "out, trial 0: An architecture"),
        ("front.json", '{"format": "front/1", "members": [{}]}', FRONT, "front.json: A result must have format"),
        ("sweep.json", '"beauty"', FRONT, "sweep.json: A sweep must have all its parts (must be among accuracy, flops"),
        ("sweep.json", "-1", ("train", "OUT", "--trial", "0"), "sweep.json: A sweep must have all its parts (`epochs`"),
    ],
)
def test_a_file_with_a_value_that_cannot_be_is_named(
    nas: Nas, folder: Path, tmp_path: Path, name: str, content: str, words: tuple[str, ...], message: str
) -> None:
    out = tmp_path / "out"
    shutil.copytree(folder / "good", out)
    whole = (out / name).read_text()
    if name == "sweep.json":
        old = '"flops"' if "beauty" in content else '"epochs": 1'
        content = whole.replace(old, content if "beauty" in content else f'"epochs": {content}', 1)
        assert content != whole
    (out / name).write_text(content)
    before = files(out)
    code, said = nas(*(str(out) if word == "OUT" else word for word in words))
    assert message in said
    assert code == 2
    assert files(out) == before


@pytest.mark.parametrize("out", ["/proc/no", "sweep.yaml", "sweep.yaml/below", "n" * 300])
def test_a_place_that_cannot_be_written_is_said(nas: Nas, out: str) -> None:
    code, said = nas("search", "sweep.yaml", "--out", out)
    assert "must be a folder that can be written (" in said
    assert code == 2


# Words ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("space", "Missing argument 'SWEEP'"),
        ("space digts", "did you mean 'digits'?"),
        ("space good", "SWEEP must be a YAML file or one of"),
        (f"space {'n' * 5000}", "SWEEP must be a YAML file or one of"),
        ("space /proc/self/mem", "must be a readable file"),
        ("space noise.npz", "must be text in UTF-8"),
        ("search sweep.yaml --epochs -1", "greater than or equal to 1"),
        ("search sweep.yaml --seed x", "valid integer"),
        ("search sweep.yaml --hours nan", "greater than or equal to 0"),
        ("search sweep.yaml --gpus-per-trial nan", "greater than or equal to 0"),
        (f"search sweep.yaml --trials {10**10}", "less than or equal to 1000000000"),
        ("search sweep.yaml --gpus-per-trial 1e-9", "--gpus-per-trial: must be a multiple of 0.0001 (got 1e-09)"),
        ("search sweep.yaml --bogus", "No such option"),
        ("search sweep.yaml --sampler tpee", "did you mean 'tpe'?"),
        ("front nowhere", "front.json: must be there; `nas search` writes it"),
        ("front sweep.yaml", "must be a readable file (Not a directory)"),
        ("front good --trial x", "valid integer"),
        ("front good --trial 99", "(got 99, which is not there; front: "),
        ("train good", "Missing option '--trial'"),
        ("train good --trial 99", "(got 99, which is not there; front: "),
        ("train good --trial 0 --seeds 0", "greater than or equal to 1"),
        (f"train good --trial 0 --seeds {10**12}", "less than or equal to 1000"),
        ("train nowhere --trial 0", "must be there"),
        ("prune", "prune [OPTIONS] COMMAND"),
        ("prune alive", "No such command"),
        ("prune dead good --trial 99", "(got 99, which is not there; front: "),
        ("prune dead good --trial TRIAL --data gone.npz", "there must be an .npz file here"),
        ("prune dead good --trial TRIAL --data digits", "must have the channels and classes of the network"),
        ("cost", "give either a NETWORK or --list"),
        ("cost ./good", "must be a readable file (Is a directory)"),
        ("cost good --trial 99", "(got 99, which is not there; front: "),
        ("cost sweep.yaml", "must be JSON"),
        ("cost noise.npz", "must be JSON"),
        ("cost resnet --input x", "must be sizes such as 3x224x224"),
        ("cost resnet --classes 0", "greater than or equal to 1"),
        ("doctor nonsense", "unexpected extra argument"),
        ("frnt", "No such command 'frnt'"),
        ("", "[OPTIONS] COMMAND [ARGS]"),
    ],
)
def test_every_command_refuses_nonsense_with_a_message_and_exit_code_2(
    nas: Nas, folder: Path, words: str, message: str
) -> None:
    before = files(folder / "good")
    member = json.loads((folder / "good" / "front.json").read_text())["members"][0]["trial"]
    code, said = nas(*words.replace("TRIAL", str(member)).split())
    assert message in said
    assert code == 2
    assert files(folder / "good") == before


# Nobody answers -------------------------------------------------------------------------------------------------


def test_an_address_nobody_answers_at_is_said_by_search_and_doctor(nas: Nas, folder: Path, tmp_path: Path) -> None:
    for address, message in {
        "127.0.0.1:1": "Ray must answer at 127.0.0.1:1 within 10 s, but [Errno 111]",
        "nonsense": "`address` must be auto, host:port or ray://host:port, but got 'nonsense'",
        "http://127.0.0.1:1": "`address` must be auto, host:port or ray://host:port, but got 'http://127.0.0.1:1'",
        "127.0.0.1:99999": "`address` must be auto, host:port or ray://host:port, but got '127.0.0.1:99999'",
    }.items():
        code, said = nas("search", "sweep.yaml", "--out", str(tmp_path / "out"), "--address", address)
        assert message in said
        assert code == 1
        assert not (tmp_path / "out" / "results.jsonl").exists()
    done = process(folder, "doctor", RAY_ADDRESS="127.0.0.1:1", MLFLOW_TRACKING_URI="http://127.0.0.1:1")
    assert "127.0.0.1:1 does not answer: Ray must answer" in done.stdout
    assert "http://127.0.0.1:1 does not answer: " in done.stdout
    assert done.returncode == 1


def test_a_search_goes_on_where_its_tracking_uri_does_not_answer(folder: Path, tmp_path: Path) -> None:
    words = ("search", "sweep.yaml", "--out", str(tmp_path / "out"), "--tracking-uri", "http://127.0.0.1:1")
    done = process(folder, *words)
    assert done.returncode == 0
    assert "http://127.0.0.1:1 does not answer; the search goes on and catches up later" in done.stderr
    assert "the same command, run again, writes them" in done.stderr
    assert len((tmp_path / "out" / "results.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize("place", ["/proc/mlflow.db", "/proc/no/mlflow.db", "sweep.yaml/mlflow.db", "."])
def test_a_tracking_database_that_cannot_be_written_is_said_at_once(
    nas: Nas, folder: Path, tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, rule = f"sqlite:///{place}", f"{place}: must be a database file that can be written ("
    start = time.monotonic()
    code, said = nas("search", "sweep.yaml", "--out", str(tmp_path / "out"), "--tracking-uri", uri)
    assert f"MLflow at {uri} does not answer; the search goes on and catches up later ({rule}" in said
    assert "MLflow still lacks" in said
    assert code == 0
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    code, said = nas("doctor")
    assert f"{uri} does not answer: {rule}" in said
    assert code == 1
    assert time.monotonic() - start < 40, "MLflow tries for 70 s and more"


@pytest.mark.slow
def test_a_cluster_whose_token_is_missing_is_said_with_its_variables(folder: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ray = Path(sys.executable).with_name("ray")
    flags = [
        "--head",
        f"--port={port}",
        "--block",
        "--include-dashboard=false",
        "--num-cpus=1",
        "--disable-usage-stats",
    ]
    secret = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a" * 64}
    place = f"--temp-dir={tmp_path / 'ray'}" if len(str(tmp_path)) < 40 else f"--temp-dir=/tmp/token{port}"
    with (tmp_path / "head.log").open("w") as log:
        head = subprocess.Popen([ray, "start", *flags, place], stdout=log, stderr=log, env={**os.environ, **secret})
        try:
            until = time.monotonic() + 60
            while "block forever" not in (tmp_path / "head.log").read_text() and time.monotonic() < until:
                time.sleep(0.2)
            at = f"127.0.0.1:{port}"
            words = ("search", "sweep.yaml", "--out", str(tmp_path / "out"), "--address", at)
            wrong = process(folder, *words, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="b" * 64)
            doctor = process(folder, "doctor", RAY_ADDRESS=at, RAY_AUTH_MODE="disabled")
            # A token that is there is used for "auto", as Ray does; RAY_ADDRESS is where "auto" looks first.
            words = (*words[:-1], "auto", "--max-concurrent", "1")
            right = process(folder, *words, RAY_ADDRESS=at, RAY_AUTH_TOKEN="a" * 64)
        finally:
            head.terminate()
            head.wait(timeout=60)
            shutil.rmtree(f"/tmp/token{port}", ignore_errors=True)
    token = "is its token known here (RAY_AUTH_MODE=token and RAY_AUTH_TOKEN as on the head node)"
    for done, said in ((wrong, wrong.stderr), (doctor, doctor.stdout)):
        assert f"Ray at {at} must take this driver, but AuthenticationError: " in said
        assert token in said
        assert done.returncode == 1
        assert done.stderr.count("Failed to get cluster ID") <= 1, "Ray's own 20 s of asking again are not waited for"
    assert right.returncode == 0, right.stderr
    assert len((tmp_path / "out" / "results.jsonl").read_text().splitlines()) == 2


# Whatever a file holds ------------------------------------------------------------------------------------------

SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | st.sampled_from(["plain", "1e9"])
)
VALUES = st.recursive(
    SCALARS, lambda v: st.lists(v, max_size=3) | st.dictionaries(SCALARS, v, max_size=3), max_leaves=6
)
FULL = {
    **yaml.safe_load(SWEEP),
    "objectives": ["accuracy", "flops"],
    "limits": {"flops": "1M", "latency": "5 ms"},
    "seeds": [{"network": "squeezenet", "widen": 0.25}],
    "seed": 0,
}


def places(tree: object, path: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    below = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [path, *(p for key, value in below for p in places(value, (*path, key)))]


def broken(tree: dict[str, object], data: st.DataObject) -> object:
    """A copy of `tree` with one value, or a new key, that may be anything."""
    tree = json.loads(json.dumps(tree))
    *path, last = data.draw(st.sampled_from([p for p in places(tree) if p]))
    inner: object = tree
    for key in path:
        inner = inner[key]  # type: ignore[index]
    key = data.draw(SCALARS) if isinstance(inner, dict) and data.draw(st.booleans()) else last
    inner[key] = data.draw(VALUES)  # type: ignore[index]
    return tree


def only_declared_errors(path: Path) -> None:
    faults = [str(path)]
    try:
        open_space(read_sweep(path, SPACES).space, input=(1, 8, 8), classes=3)
    except SweepError as error:
        faults = error.faults
    except (SpaceError, ArchitectureError):
        pass  # what only the data shows
    assert faults
    assert all(fault.startswith(str(path)) for fault in faults)


@settings(max_examples=250)
@given(st.data())
def test_a_sweep_with_anything_anywhere_is_read_or_refused(folder: Path, data: st.DataObject) -> None:
    path = folder / "any.yaml"
    path.write_text(yaml.safe_dump(broken(FULL, data)))
    only_declared_errors(path)


TEXT = st.text(st.sampled_from("ab:-[]{},&*!|>%@`'\"#?~<=01. \n\t\0é"), max_size=30)


@settings(max_examples=250)
@given(TEXT, st.integers(0, len(SWEEP)), st.integers(0, 20))
def test_a_sweep_with_any_text_in_it_is_read_or_refused(folder: Path, text: str, at: int, cut: int) -> None:
    for whole in (text, SWEEP[:at] + text + SWEEP[at + cut :]):
        (folder / "text.yaml").write_text(whole)
        only_declared_errors(folder / "text.yaml")


def costed_or_refused(path: Path) -> None:
    said = str(path)
    try:
        json.dumps(cost_record(read_file(path)))
    except ArchitectureError as error:
        said = str(error)
    assert said.startswith(str(path))


SMALL = to_json(NETWORKS["resnet"](depth=18, input=(3, 32, 32), classes=10))


@settings(max_examples=150)
@given(st.data())
def test_an_architecture_with_anything_anywhere_is_costed_or_refused(folder: Path, data: st.DataObject) -> None:
    path = folder / "architecture.json"
    path.write_text(json.dumps(broken(SMALL, data), skipkeys=True))
    costed_or_refused(path)


@settings(max_examples=150)
@given(TEXT, st.integers(0, 2000), st.integers(0, 20))
def test_an_architecture_with_any_text_in_it_is_costed_or_refused(folder: Path, text: str, at: int, cut: int) -> None:
    path, whole = folder / "text.json", json.dumps(SMALL)
    path.write_text(whole[:at] + text + whole[at + cut :])
    costed_or_refused(path)
