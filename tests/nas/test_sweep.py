"""A sweep file is read whole, or all that is wrong with it is said at once, each fault with its line."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.rungs import halving
from nas.sweep import Sweep, SweepError
from nas.sweep_file import read_sweep

SPACES = {path.stem: path for path in Path("experiments/spaces").glob("*.yaml")}
GOOD = """format: sweep/1
name: small
data: digits
space:
  stages:
    - block: plain
      width: [8, 16]
"""


def read(tmp_path: Path, text: str) -> Sweep:
    path = tmp_path / "sweep.yaml"
    path.write_text(text)
    return read_sweep(path, SPACES)


def faults(tmp_path: Path, text: str) -> list[str]:
    with pytest.raises(SweepError) as caught:
        read(tmp_path, text)
    return [fault.removeprefix(str(tmp_path / "sweep.yaml")) for fault in caught.value.faults]


@pytest.mark.parametrize("path", sorted(Path("experiments/sweeps").glob("*.yaml")), ids=lambda p: p.stem)
def test_shipped_sweeps_are_read_and_open_with_their_purpose(path: Path) -> None:
    assert path.read_text().startswith("# ")
    assert read_sweep(path, SPACES).name == path.stem


def test_defaults_are_the_documented_ones(tmp_path: Path) -> None:
    sweep = read(tmp_path, GOOD)
    assert (sweep.objectives, sweep.sampler, sweep.budget.trials) == (("accuracy", "flops"), "surrogate", 40)
    assert sweep.limits.costs == {}


def test_limits_budget_and_training_become_plain_values(tmp_path: Path) -> None:
    sweep = read(
        tmp_path,
        GOOD + "limits: {flops: 300M, params: 60k, latency: 5 ms}\nbudget: {hours: 0.5}\n"
        "training: {learning_rate: 1e-3, epochs: 3}\nobjectives: [accuracy, latency_ms]\n",
    )
    assert sweep.limits.costs == {"flops": 300e6, "params": 60e3}
    assert sweep.limits.latency_ms == 5
    assert (sweep.budget.trials, sweep.budget.hours) == (None, 0.5)
    assert (sweep.training.learning_rate, sweep.training.epochs) == (1e-3, 3)


def test_a_sweep_survives_json(tmp_path: Path) -> None:
    sweep = read(tmp_path, GOOD + "limits: {flops: 3M, latency: 1 ms}\nworkers: {gpus_per_trial: 0.25}\n")
    again = Sweep.from_json(json.loads(json.dumps(sweep.to_json())))
    assert again == dataclasses.replace(sweep, rungs=halving()), "the rungs are said as they are held"
    assert again.to_json() == sweep.to_json()


@pytest.mark.parametrize(
    ("text", "shares", "eta"),
    [
        ("", (0.25, 0.5), 2.0),
        ("rungs: on", (0.25, 0.5), 2.0),
        ("rungs: {}", (0.25, 0.5), 2.0),
        ("rungs: {first: 0.12, eta: 3}", (0.12, 0.36), 3.0),
        ("rungs: off", None, None),
        ("sampler: tpe", None, None),
        ("sampler: tpe\nrungs: on", (0.25, 0.5), 2.0),
        ("sampler: screen", (0.0,), 4.0),
        ("sampler: screen\nrungs: on", (0.0,), 4.0),
    ],
)
def test_rungs_are_the_samplers_unless_a_sweep_says_others(
    tmp_path: Path, text: str, shares: tuple[float, ...] | None, eta: float | None
) -> None:
    rungs = read(tmp_path, GOOD + text + "\n").effective_rungs
    assert (rungs and rungs.shares, rungs and rungs.eta) == (shares and pytest.approx(shares), eta)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("rungs: {first: 0.1}", "rungs.first: must be greater than or equal to 0.12 (got 0.1)"),
        ("rungs: {first: 1}", "rungs.first: must be less than 1 (got 1)"),
        ("rungs: {eta: 1}", "rungs.eta: must be greater than or equal to 1.1 (got 1)"),
        ("rungs: {levels: [1, 2]}", "rungs.levels: must be one of first, eta (got 'levels'"),
        ("rungs: 3", "rungs: must be a mapping of first, eta (got 3)"),
        (
            "sampler: surogate",
            "sampler: must be one of surrogate, moasha, screen, random, tpe, nsga2, evolution, local",
        ),
        ("proxy: synflow", "proxy: must be one of none, naswot, noise (got 'synflow')"),
        ("inherit: perhaps", "inherit: must be a valid boolean"),
    ],
)
def test_rungs_and_samplers_that_cannot_be_are_told_with_their_rule(tmp_path: Path, text: str, rule: str) -> None:
    (fault,) = faults(tmp_path, GOOD + text + "\n")
    assert rule in fault


def test_every_fault_is_told_with_its_line_and_the_word_that_was_meant(tmp_path: Path) -> None:
    text = """format: sweep/1
name: x
data: digits
space:
  widht: [1]
  stages:
    - block: [plian]
      width: [8]
    - block: plain
      width: 8
      alpha: [0, 1.5]
      kernal: 4
objectives: [accuracy, flop]
limits: {flops: lots, latency: 5}
budgets: {trials: 3}
budget: {trials: 0}
sampler: tpee
training: {epochs: a, batchsize: 3}
"""
    said = faults(tmp_path, text)
    expected = {
        ":13: objectives: ": "did you mean 'flops'",
        ":14: limits.flops: ": "must be a positive count",
        ":14: limits.latency: ": "must be a duration with its unit",
        ":17: sampler: ": "did you mean 'tpe'",
        ":16: budget.trials: ": "greater than or equal to 1",
        ":18: training.epochs: ": "must be a valid integer",
        ":18: training.batchsize: ": "did you mean 'batch_size'",
        ":15: budgets: ": "did you mean 'budget'",
        ":5: space.widht: ": "did you mean 'width'",
        ":7: space.stages.1.block: ": "did you mean 'plain'",
        ":12: space.stages.2.kernal: ": "did you mean 'kernel'",
        ":11: space.stages.2.alpha: ": "must be a number in [0, 1] (got 1.5)",
    }
    for start, part in expected.items():
        assert any(fault.startswith(start) and part in fault for fault in said), (start, said)
    assert len(said) == len(expected)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (GOOD.replace("sweep/1", "sweep/9"), ":1: format: must be one of sweep/1 (got 'sweep/9'"),
        (GOOD.replace("name: small\n", ""), ": name: must be given"),
        (GOOD.replace("name: small", "name: a/b"), ":2: name: must be a word of letters, digits and _.-"),
        ("- a\n- b\n", ": must be a mapping, lines of `name: value` (got"),
        ("a: [1\n", ": must be YAML"),
        (GOOD + "budget: {}\n", ":8: budget: must set trials, epochs, hours or gpu_hours"),
        (GOOD + "training: {learning_rate: -1}\n", ":8: training.learning_rate: must be a finite number > 0"),
        (GOOD + "objectives: [flops, flops]\n", ":8: objectives: must be different objectives"),
        (GOOD + "seed: -1\n", ":8: seed: must be greater than or equal to 0"),
        (GOOD + "train: nothing\n", ":8: train: must be "),
        ("format: sweep/1\nname: x\ndata: digits\nspace: digts\n", "did you mean 'digits'"),
        (GOOD + "seed: 1\nseed: 2\n", ":9: must be YAML (the key 'seed' stands twice)"),
        (GOOD + "seed: 99999999999999999999\n", ":8: seed: must be less than or equal to 4294967295"),
        (GOOD.replace("width: [8, 16]", "width: [8, 16]\n      1: 2"), "space.stages.1.1: must be one of block, depth"),
        (GOOD.replace("block: plain", "block: ':fn'"), "must be importable (got ':fn': ValueError"),
        (GOOD.replace("block: plain", "block: broken_module_of_mine:fn"), "must be importable"),
        (GOOD.replace("[8, 16]", "[8, 8.0]"), "must be a whole number >= 1 (got 8.0"),
        (
            GOOD.replace("block: plain", "block: plain\n      alpha: [0, 0.0, 0.5]"),
            "must offer different values (got 0.0 twice)",
        ),
        ("format: sweep/1\nname: x\ndata: digits\nspace: [1]\n", ":4: space: must be a preset, a file, or a mapping"),
        (
            "format: sweep/1\nname: x\ndata: digits\nspace: {stages: []}\n",
            "space.stages: must be a list of at least one",
        ),
    ],
)
def test_a_broken_sweep_is_refused_by_its_rule(tmp_path: Path, text: str, rule: str) -> None:
    assert any(rule in fault for fault in faults(tmp_path, text)), faults(tmp_path, text)


def test_a_missing_file_and_binary_are_said(tmp_path: Path) -> None:
    with pytest.raises(SweepError, match="must be a readable file"):
        read_sweep(tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SweepError, match="must be text"):
        read_sweep(tmp_path / "binary.yaml")


def test_a_space_file_beside_the_sweep_is_found_and_its_lines_are_named(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("stages:\n  - block: plain\n    width: 8\n    groups: 0\n")
    (tmp_path / "sweep.yaml").write_text("format: sweep/1\nname: x\ndata: digits\nspace: mine.yaml\n")
    with pytest.raises(SweepError, match=r"mine\.yaml:4: stages\.1\.groups: must be a whole number >= 1"):
        read_sweep(tmp_path / "sweep.yaml")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 300) | st.floats(allow_nan=True) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = [f.name for f in dataclasses.fields(Sweep)]


@settings(max_examples=300)
@given(st.dictionaries(st.sampled_from([*KEYS, "format", "nonsense"]), VALUES, max_size=8))
def test_whatever_the_file_holds_only_declared_errors_come(
    tmp_path_factory: pytest.TempPathFactory, record: dict[str, object]
) -> None:
    import yaml

    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(yaml.safe_dump({"format": "sweep/1", "name": "x", "data": "digits", **record}))
    try:
        faults = [] if isinstance(read_sweep(path, SPACES), Sweep) else ["no sweep"]
    except SweepError as error:
        faults = [] if error.faults else ["no fault said"]
    assert faults == []
