"""A sweep over a space grown from a published network, and the seed that such a space holds."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from nas.folder import read_sweep_of
from nas.results import Result
from nas.search import search
from nas.sweep import Budget, Limits, Sweep, SweepError, Tracking, Workers
from nas.sweep_file import read_sweep
from nas.training import Training
from searchspace.named import arguments, network
from searchspace.notation import from_json
from searchspace.spaces import open_space

SPACE = {
    "base": "mobilenet_v2",
    "width": [0.05, 0.1],
    "stages": {"stage2": {"alpha": [0, 0.25], "groups": [1, 2]}, "stage6": {"kernel": [3, 5], "width": [1, 0.5]}},
}
HELD = {"network": "mobilenet_v2", "width": 0.1}
OTHER = {"network": "shufflenet_v1", "widen": 0.1}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> str:
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("data") / "noise.npz"
    np.savez(path, images=rng.normal(size=(60, 8, 8)).astype(np.float32), labels=np.arange(60) % 3)
    return str(path)


def sweep_on(images: str, trials: int, **changes: object) -> Sweep:
    sweep = Sweep(
        name="grown",
        data=images,
        space=SPACE,
        seeds=(OTHER, HELD),
        limits=Limits(costs={"params": 400_000}),
        budget=Budget(trials=trials),
        training=Training(epochs=1, batch_size=20, warmup_epochs=0.0),
        workers=Workers(address="inprocess"),
        tracking=Tracking(uri="off"),
    )
    return replace(sweep, **changes)  # type: ignore[arg-type]


def study_in(out: Path) -> optuna.Study:
    name = f"{read_sweep_of(out).name}-{(out / 'id').read_text()}"
    return optuna.load_study(study_name=name, storage=JournalStorage(JournalFileBackend(str(out / "journal.log"))))


def check(out: Path, rows: tuple[Result, ...], trials: int) -> None:
    """Each once; the seed that the space holds is a trial of the study under its name, the other beside it."""
    assert Counter(row.kind for row in rows) == {"seed": 2, "trial": trials}
    assert {row.name: row.trial < 0 for row in rows if row.name} == {
        "mobilenet_v2(width=0.1)": False,
        "shufflenet_v1(widen=0.1)": True,
    }
    space = open_space(SPACE, input=(1, 8, 8), classes=3)
    told = {t.number: t for t in study_in(out).get_trials()}
    assert sorted(told) == sorted(row.trial for row in rows if row.trial >= 0)
    for row in rows:
        if row.trial >= 0:
            assert row.choices is not None
            assert told[row.trial].params == row.choices
            assert told[row.trial].values == [row.values["accuracy"], row.values["flops"]]
            assert space.decode(row.choices) == from_json(row.architecture)  # type: ignore[arg-type]
        else:
            assert row.choices is None
    held = next(row for row in rows if row.kind == "seed" and row.trial >= 0)
    assert from_json(held.architecture) == network(HELD, input=(1, 8, 8), classes=3)


def test_a_grown_space_is_searched_and_a_seed_that_it_holds_teaches_the_sampler(tmp_path: Path, images: str) -> None:
    outcome = search(sweep_on(images, 3), tmp_path)
    assert [row.state for row in outcome.results] == ["complete"] * 5
    check(tmp_path, outcome.results, 3)
    assert len({row.digest for row in outcome.results}) == 5
    before = (tmp_path / "results.jsonl").read_bytes()
    search(sweep_on(images, 3), tmp_path)
    assert (tmp_path / "results.jsonl").read_bytes() == before


INTERRUPTED = """
from pathlib import Path
from nas.train import train as usual

left = Path(__file__).with_name("left")


def train(network, data, training, **more):
    count = int(left.read_text())
    left.write_text(str(count - 1))
    if count == 0:
        raise KeyboardInterrupt
    return usual(network, data, training, **more)
"""


@pytest.mark.parametrize("done", [0, 1, 2])
def test_a_search_interrupted_in_a_training_goes_on_and_every_seed_keeps_its_name(
    tmp_path: Path, images: str, monkeypatch: pytest.MonkeyPatch, done: int
) -> None:
    (tmp_path / f"interrupted_{done}.py").write_text(INTERRUPTED)
    (tmp_path / "left").write_text(str(done))
    monkeypatch.syspath_prepend(str(tmp_path))
    sweep, out = sweep_on(images, 1, train=f"interrupted_{done}:train"), tmp_path / "out"
    first = search(sweep, out)
    assert first.interrupted
    assert len(first.results) == done
    outcome = search(sweep, out)
    assert not outcome.interrupted
    check(out, outcome.results, 1)


def test_a_study_that_was_lost_learns_of_the_seed_again(tmp_path: Path, images: str) -> None:
    search(sweep_on(images, 2), tmp_path)
    (tmp_path / "journal.log").unlink()
    check(tmp_path, search(sweep_on(images, 3), tmp_path).results, 3)


YAML = """format: sweep/1
name: grown
data: digits
space:
  base: {network: resnet, depht: 18}
  width: [0.25, -1]
"""


def test_faults_of_a_grown_space_are_told_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(YAML)
    with pytest.raises(SweepError) as caught:
        read_sweep(path)
    known = ["network", *(name for name in arguments("resnet") if name not in ("classes", "input")), "widen"]
    assert [fault.removeprefix(f"{path}:") for fault in caught.value.faults] == [
        f"5: space.base.depht: must be one of {', '.join(known)} (got 'depht'; did you mean 'depth'?)",
        "6: space.width: must be a number > 0 (got -1)",
    ]
    path.write_text(YAML.replace("depht", "depth").replace("-1", "1") + "  stages:\n    stage9:\n      alpha: 0.5\n")
    with pytest.raises(
        SweepError, match=r":8: space.stages.stage9: must be one of stem, stage2, .*did you mean 'stage5'"
    ):
        read_sweep(path)


def test_a_base_that_cannot_read_the_data_stops_the_sweep(tmp_path: Path, images: str) -> None:
    from searchspace.choices import SpaceError

    with pytest.raises(SpaceError, match=r"base: must fit the data's input 1x8x8 \(got vgg"):
        search(sweep_on(images, 1, space={"base": "vgg", "width": [0.1, 0.2]}, seeds=()), tmp_path)
