"""A sweep under real Ray Tune: what is proposed, what is trained, what is reported, and how it ends."""

from __future__ import annotations

import math
import pickle
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from nas.data import load
from nas.learner import decoded
from nas.ray_session import open_session
from nas.sweep import Limits, Sweep, SweepError
from nas.training import Training
from nas.tune import choices, ray, searcher, trainable, tune
from searchspace.architecture import ArchitectureError
from searchspace.checkpoint import load as load_network
from searchspace.choices import SpaceError
from searchspace.codes import Codes
from searchspace.cost import cost
from searchspace.spaces import open_space

SPACE = {
    "width": [0.5, 1.0],
    "stages": [
        {"block": ["plain", "residual", "fire"], "width": [8, 16], "kernel": [3, 5], "alpha": [0.0, 0.5]},
        {"block": ["bottleneck", "inverted_residual"], "stride": 2, "width": [16, 32], "kernel": [3, [1, 3]]},
    ],
}
FLOPS = 90_000
BROKEN = """
from nas.train import train

def narrow(network, data, training, **more):
    if sum(p.numel() for p in network.parameters()) > 1_000:
        raise ValueError("too wide for me")
    return train(network, data, training, **more)
"""


@pytest.fixture(scope="module", autouse=True)
def session() -> Iterator[None]:
    before = signal.getsignal(signal.SIGINT)
    open_session(ray, None, (), False)
    yield
    ray.shutdown()
    signal.signal(signal.SIGINT, before)  # Tune keeps it


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """120 images of 8 x 8 in three classes that differ in where they are bright."""
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 3
    images = rng.normal(size=(120, 8, 8)).astype(np.float32)
    for i, label in enumerate(labels):
        images[i, label * 2 : label * 2 + 3] += 1.0
    path = tmp_path_factory.mktemp("data") / "stripes.npz"
    np.savez(path, images=images, labels=labels)
    limits = Limits(costs={"flops": FLOPS})
    return Sweep(name="stripes", data=str(path), space=SPACE, limits=limits, training=Training(epochs=2, batch_size=16))


def space_of(sweep: Sweep) -> Codes:
    data = load(sweep.data, seed=sweep.seed)
    return open_space(sweep.space, input=data.input, classes=data.classes)


def fit(
    sweep: Sweep, folder: Path, *, every_epoch: bool = False, param_space: dict[str, Any] | None = None, **config: Any
) -> Any:
    return tune.Tuner(
        tune.with_resources(trainable(sweep, every_epoch=every_epoch), {"cpu": 1}),
        param_space=param_space,
        tune_config=tune.TuneConfig(reuse_actors=True, **config),
        run_config=tune.RunConfig(name=folder.name, storage_path=str(folder.parent), verbose=0),
    ).fit()


@pytest.fixture(scope="module")
def results(sweep: Sweep, session: None, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return fit(sweep, tmp_path_factory.mktemp("tune") / "eight", search_alg=searcher(sweep), num_samples=8)


def test_every_trial_is_inside_the_limits_and_another_one(sweep: Sweep, results: Any) -> None:
    space = space_of(sweep)
    assert len(results) == 8
    assert not results.errors
    digests = set()
    for result in results:
        architecture = space.decode(decoded(space, result.config))
        price = cost(architecture)
        assert price.flops <= FLOPS
        assert {k: v for k, v in result.metrics.items() if k in price.values()} == price.values()
        assert result.metrics["digest"] == architecture.digest
        digests.add(architecture.digest)
    assert len(digests) == 8


def test_both_objectives_reach_the_sampler(sweep: Sweep, tmp_path: Path) -> None:
    search = searcher(sweep, sampler="nsga2")
    told = fit(sweep, tmp_path / "told", search_alg=search, num_samples=3)
    study = search._ot_study
    assert [d.name for d in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert sorted(t.values for t in study.trials) == sorted([r.metrics["accuracy"], r.metrics["flops"]] for r in told)


def test_the_checkpoint_is_the_trained_network(results: Any) -> None:
    for result in results:
        files = list(Path(result.checkpoint.path).iterdir())
        assert [file.name for file in files] == ["network.safetensors"]
        assert load_network(files[0]).architecture.digest == result.metrics["digest"]


def test_reports_on_the_way_are_no_results_and_lead_to_the_same_end(sweep: Sweep, results: Any, tmp_path: Path) -> None:
    whole = results[0]
    (stepped,) = fit(sweep, tmp_path / "steps", every_epoch=True, param_space=whole.config)
    first, last = stepped.metrics_dataframe.to_dict("records")
    assert math.isnan(first["accuracy"])
    assert 0 <= first["accuracy_so_far"] <= 1
    assert (first["epoch"], first["nas/final"]) == (1, False)
    assert (last["epoch"], last["nas/final"]) == (2, True)
    assert last["accuracy"] == last["accuracy_so_far"] == whole.metrics["accuracy"]
    assert stepped.metrics["nas"]["curve"] == whole.metrics["nas"]["curve"]


def test_a_scheduler_stops_trials_by_their_accuracy_so_far(sweep: Sweep, tmp_path: Path) -> None:
    from ray.tune.schedulers import ASHAScheduler

    halving = ASHAScheduler(
        time_attr="epoch", metric="accuracy_so_far", mode="max", max_t=4, grace_period=1, reduction_factor=2
    )
    longer = replace(sweep, objectives=("accuracy",), training=replace(sweep.training, epochs=4))
    found = fit(
        longer, tmp_path / "asha", every_epoch=True, search_alg=searcher(longer), scheduler=halving, num_samples=5
    )
    epochs = {result.metrics["epoch"] for result in found}
    assert min(epochs) < 4
    assert max(epochs) == 4
    for result in found:
        assert math.isnan(result.metrics["accuracy"]) == (result.metrics["epoch"] < 4)


def test_what_is_over_a_limit_or_fails_is_an_error_of_the_trial(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "narrow_only.py").write_text(BROKEN)
    monkeypatch.chdir(tmp_path)
    one = {
        "width": [0.5, 4.0],
        "stages": [{"block": "plain", "width": [8, 16, 64], "kernel": 3}],
    }
    own = replace(sweep, space=one, train="narrow_only:narrow")
    found = fit(own, tmp_path / "errors", param_space={"width": 4.0, "stage1.width": 64})
    assert "flops is" in str(found[0].error)
    assert "the limit 90k" in str(found[0].error)
    free, wide = replace(own, limits=Limits()), {"width": 0.5, "stage1.width": tune.grid_search([8, 64])}
    good, bad = sorted(fit(free, tmp_path / "failures", param_space=wide), key=lambda r: r.config["stage1.width"])
    assert good.error is None
    assert "too wide for me" in str(bad.error)


def test_a_latency_over_its_limit_is_an_error_and_a_latency_that_is_an_objective_is_reported(
    sweep: Sweep, results: Any, tmp_path: Path
) -> None:
    config = results[0].config
    timed = replace(sweep, objectives=("accuracy", "flops", "latency_ms"))
    (result,) = fit(timed, tmp_path / "timed", every_epoch=True, param_space=config)
    assert result.metrics["latency_ms"] > 0
    hasty = replace(sweep, limits=Limits(latency_ms=1e-6))
    (late,) = fit(hasty, tmp_path / "late", param_space=config)
    assert "latency is" in str(late.error)


def test_the_experiment_ends_where_all_that_is_inside_the_limits_was_trained(sweep: Sweep, tmp_path: Path) -> None:
    small = replace(
        sweep, space={"stages": [{"block": "plain", "width": [2, 4, 8, 24], "kernel": 3}]}, objectives=("accuracy",)
    )
    found = fit(small, tmp_path / "few", search_alg=searcher(small, sampler="random"), num_samples=6)
    assert sorted(result.config["stage1.width"] for result in found) == [2, 4, 8]


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random"])
def test_a_searcher_goes_on_from_its_file_and_proposes_nothing_twice(
    sweep: Sweep, sampler: str, tmp_path: Path
) -> None:
    first = searcher(sweep, sampler=sampler)
    before = [first.suggest(str(i)) for i in range(12)]
    first.save(str(tmp_path / "state"))
    after = [first.suggest(str(i)) for i in range(12, 24)]
    second = searcher(replace(sweep, seed=1), sampler=sampler)
    second.restore(str(tmp_path / "state"))
    assert [second.suggest(str(i)) for i in range(12, 24)] == after
    space = space_of(sweep)
    assert len({space.decode(decoded(space, c)).digest for c in before + after}) == 24


def test_a_study_of_optunas_own_takes_the_space(sweep: Sweep) -> None:
    suggest = pickle.loads(pickle.dumps(choices(sweep)))
    space, built = space_of(sweep), 0
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(30):
        trial = study.ask()
        suggest(trial)
        assert trial.params.keys() == space.choices.keys()
        assert trial.params["stage2.kernel"] in (3, "1x3")
        try:
            space.decode(decoded(space, trial.params))
        except ArchitectureError:
            continue
        built += 1
    assert built


def test_a_config_of_another_space_is_refused(sweep: Sweep, results: Any) -> None:
    space, config = space_of(sweep), results[0].config
    for wrong in ({**config, "stage1.width": 9}, {**config, "stage1.width": "8"}, {**config, "stage1.alpha": False}):
        with pytest.raises(SpaceError, match=r"choice 'stage1\.\w+' must be one of .* \(got"):
            decoded(space, wrong)
    with pytest.raises(SpaceError, match=r"choice 'width' must be one of 0\.5, 1\.0 \(got None\)"):
        decoded(space, {})


@pytest.mark.parametrize("sampler", ["surrogate", "moasha", "evolution", "bayes"])
def test_a_sampler_that_tune_cannot_tell_is_refused(sweep: Sweep, sampler: str) -> None:
    with pytest.raises(SweepError, match=f"sampler: must be one of tpe, nsga2, random.*got '{sampler}'"):
        searcher(sweep, sampler=sampler)
