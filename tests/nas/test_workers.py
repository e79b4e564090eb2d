"""Workers: one suite that every pool passes, what `run` makes of failures, and what only Ray does."""

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from nas.jobs import Job, WorkersError, resolve, run
from nas.results import Result
from nas.training import Training
from nas.workers import InProcessPool, Pool, RayPool, _card, _slots
from searchspace.architecture import Activation, AdaptivePool, Architecture, Chain, Conv, Flatten, Linear, Norm
from searchspace.checkpoint import load
from searchspace.notation import to_json

USER_MODULE = '''
import os
from pathlib import Path

import nas
from nas.train import train

seen = []


def note(checkpoint, text):
    with open(f"{checkpoint}.notes", "a") as file:
        file.write(f"{text}\\n")


def plain(network, data, training, *, seed, until, checkpoint, device):
    """Train, after a note of who trains with what."""
    seen.append(data)
    note(checkpoint, f"{os.getpid()} {len({id(d) for d in seen})} {Path(nas.__file__).parent}")
    return train(network, data, training, seed=seed, until=until, checkpoint=checkpoint, device=device)


def broken(network, data, training, **_):
    raise ValueError("no such luck")


def nothing(network, data, training, **_):
    return None


def hungry(network, data, training, **_):
    return bytearray(1 << 60)
'''


def job(trial: int, folder: Path, **change: object) -> Job:
    layers = (Conv(4, 3, 2), Norm(), Activation(), Conv(8, 3, 2), Norm(), Activation(), AdaptivePool(), Flatten())
    architecture = Architecture((1, 16, 16), Chain((*layers, Linear(10))))
    plain = Job(
        trial=trial,
        architecture=to_json(architecture),
        choices={"width": 4},
        words="a small one",
        digest=architecture.digest,
        values={"flops": 1.0},
        data="digits",
        training=Training(epochs=2),
        seed=trial,
        until=2,
        parent=7,
        checkpoint=str(folder / f"trial-{trial}"),
    )
    return replace(plain, **change)  # type: ignore[arg-type]


def notes(job: Job) -> list[list[str]]:
    """What the user's function wrote about a job: [process id, distinct datasets it saw, folder of nas]."""
    path = Path(f"{job.checkpoint}.notes")
    return [line.split(" ", 2) for line in path.read_text().splitlines()] if path.exists() else []


def wait_for(what: Callable[[], object], seconds: float = 40) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


# A busy machine takes long to start Ray's processes, which import torch; the first job of each pool waits for them.
pytestmark = pytest.mark.timeout(180)


def results(pool: Pool, number: int, seconds: float = 160) -> list[Result]:
    """`number` results by trial; fails on one too many or one too few."""
    found: list[Result] = []
    deadline = time.monotonic() + seconds
    while len(found) < number and time.monotonic() < deadline:
        found += pool.finished(1)
    found += pool.finished(0)
    assert len(found) == number
    return sorted(found, key=lambda result: result.trial)


@pytest.fixture(scope="module", autouse=True)
def working_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A user's working directory with a module of theirs."""
    folder, before = tmp_path_factory.mktemp("project"), Path.cwd()
    (folder / "my_training.py").write_text(USER_MODULE)
    os.chdir(folder)
    yield folder
    os.chdir(before)


def free_port() -> int:
    with closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


ON_RAY = ["ray", "ray on two nodes"]


@pytest.fixture(scope="module")
def pool(request: pytest.FixtureRequest) -> Iterator[Pool]:
    if request.param == "in process":
        with InProcessPool(device="cpu") as one:
            yield one
    elif request.param == "ray":
        with RayPool() as one:
            yield one
    else:
        from ray.cluster_utils import Cluster

        node = {"num_cpus": 1, "object_store_memory": 100_000_000}
        cluster = Cluster(True, head_node_args={**node, "gcs_server_port": free_port(), "include_dashboard": False})
        try:
            cluster.add_node(**node)
            resolve("my_training:plain")
            with RayPool(cluster.address, modules=["my_training"]) as one:
                yield one
        finally:
            cluster.shutdown()


@pytest.mark.parametrize("pool", ["in process", *ON_RAY], indirect=True, scope="module")
class TestEveryPool:
    """The conformance suite."""

    def test_each_job_gets_one_result_that_says_where_it_ran(self, pool: Pool, tmp_path: Path) -> None:
        jobs = [job(i, tmp_path, train="my_training:plain") for i in range(4)]
        start = time.monotonic()
        for one in jobs:
            pool.submit(one)
        assert time.monotonic() - start < 1
        found = results(pool, 4)
        assert pool.capacity >= 1
        for one, result in zip(jobs, found, strict=True):
            assert (result.state, result.final, result.epoch, result.error) == ("complete", True, 2, None)
            assert (result.trial, result.kind, result.digest, result.words) == (
                one.trial,
                "trial",
                one.digest,
                one.words,
            )
            assert (result.architecture, result.choices) == (one.architecture, one.choices)
            assert (result.seed, result.parent) == (one.seed, 7)
            assert result.checkpoint == f"{one.checkpoint}.safetensors"
            assert load(Path(result.checkpoint)).architecture.digest == one.digest
            assert result.values == {"flops": 1.0, "accuracy": result.curve[-1].val_accuracy}
            assert result.seconds > 0
            assert [str(result.worker.pid)] == [pid for pid, *_ in notes(one)]
            assert result.worker.device == "cpu"
            assert result.worker.node
            assert (tmp_path / f"trial-{one.trial}").exists()
        if isinstance(pool, RayPool):
            assert os.getpid() not in {result.worker.pid for result in found}

    def test_a_job_gives_the_same_numbers_everywhere(self, pool: Pool, tmp_path: Path) -> None:
        pool.submit(job(3, tmp_path / "pool"))
        (there,) = results(pool, 1)
        here = run(job(3, tmp_path / "here"), device="cpu")
        assert there.curve == here.curve

    def test_a_job_goes_on_from_its_checkpoint(self, pool: Pool, tmp_path: Path) -> None:
        pool.submit(job(0, tmp_path, until=1))
        (rung,) = results(pool, 1)
        assert (rung.state, rung.final, rung.epoch) == ("complete", False, 1)
        assert rung.checkpoint == str(tmp_path / "trial-0")
        pool.submit(job(0, tmp_path, until=2))
        (whole,) = results(pool, 1)
        assert whole.final
        assert whole.curve[:1] == rung.curve
        pool.submit(job(0, tmp_path / "straight", until=2))
        assert results(pool, 1)[0].curve == whole.curve

    def test_a_failing_job_is_a_result_and_the_next_one_runs(self, pool: Pool, tmp_path: Path) -> None:
        pool.submit(job(0, tmp_path, train="my_training:broken"))
        pool.submit(job(1, tmp_path, training=Training(epochs=2, learning_rate=1e30)))
        pool.submit(job(2, tmp_path, train="my_training:hungry"))
        pool.submit(job(3, tmp_path, train="no_such_module:train"))
        pool.submit(job(4, tmp_path))
        *failed, good = results(pool, 5)
        assert good.state == "complete"
        for result, words in zip(
            failed, ("no such luck", "must stay finite", "Out of memory", "no no_such_module"), strict=True
        ):
            assert (result.state, result.final, result.epoch, result.checkpoint) == ("failed", False, 0, None)
            assert result.error is not None
            assert words in result.error.splitlines()[0]
            assert result.values == {"flops": 1.0}
            assert result.worker.node != "lost"

    def test_a_breach_of_the_latency_limit_ends_a_trial_untrained(self, pool: Pool, tmp_path: Path) -> None:
        pool.submit(job(0, tmp_path, latency_limit_ms=1e-6))
        pool.submit(job(1, tmp_path, latency_limit_ms=1e6))
        slow, fast = results(pool, 2)
        assert (slow.state, slow.final, slow.epoch, slow.curve, slow.error) == ("stopped", False, 0, (), None)
        assert set(slow.values) == {"flops", "latency_ms"}
        assert not (tmp_path / "trial-0").exists()
        assert (fast.state, set(fast.values)) == ("complete", {"flops", "latency_ms", "accuracy"})

    def test_test_accuracy_is_computed_only_where_asked(self, pool: Pool, tmp_path: Path) -> None:
        pool.submit(job(0, tmp_path, kind="final", evaluate_test=True))
        (result,) = results(pool, 1)
        assert result.kind == "final"
        assert 0 <= result.values["test_accuracy"] <= 1

    def test_a_process_keeps_its_data_between_jobs(self, pool: Pool, tmp_path: Path) -> None:
        jobs = [job(i, tmp_path, train="my_training:plain", until=1) for i in range(6)]
        for one in jobs:
            pool.submit(one)
        results(pool, 6)
        lines = [line for one in jobs for line in notes(one)]
        assert len({pid for pid, *_ in lines}) < len(jobs)
        assert {datasets for _, datasets, _ in lines} == {"1"}

    def test_nothing_submitted_is_nothing_finished(self, pool: Pool) -> None:
        start = time.monotonic()
        assert pool.finished(5) == []
        assert time.monotonic() - start < 1


@pytest.mark.parametrize("pool", ON_RAY, indirect=True, scope="module")
class TestRay:
    """What only worker processes can show: on one node and on two."""

    def test_a_killed_worker_has_its_job_repeated_as_if_nothing_had_been(self, pool: RayPool, tmp_path: Path) -> None:
        one = job(5, tmp_path, train="my_training:plain", training=Training(epochs=20), until=20)
        pool.submit(one)
        wait_for(lambda: notes(one))
        victim = int(notes(one)[0][0])
        os.kill(victim, signal.SIGKILL)
        (result,) = results(pool, 1)
        assert (result.state, result.final) == ("complete", True)
        assert result.worker.pid != victim
        assert len(notes(one)) == 2
        straight = run(replace(one, checkpoint=None, train="nas.train:train"), device="cpu")
        assert result.curve == straight.curve

    def test_a_job_that_loses_two_workers_fails_and_the_next_one_runs(self, pool: RayPool, tmp_path: Path) -> None:
        one = job(6, tmp_path, train="my_training:plain", training=Training(epochs=400), until=400)
        pool.submit(one)
        for attempt in range(2):
            wait_for(lambda attempt=attempt: len(notes(one)) > attempt or pool.finished(0))  # type: ignore[misc]
            os.kill(int(notes(one)[attempt][0]), signal.SIGKILL)
        (result,) = results(pool, 1)
        assert (result.state, result.worker.node) == ("failed", "lost")
        assert result.error is not None
        assert "lost 2 times" in result.error
        pool.submit(job(7, tmp_path))
        assert results(pool, 1)[0].state == "complete"

    def test_all_nodes_are_used_and_named(self, pool: RayPool, tmp_path: Path) -> None:
        import ray

        nodes = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
        for i in range(6):
            pool.submit(job(i, tmp_path, training=Training(epochs=10), until=10))
        found = results(pool, 6)
        assert {result.worker.node for result in found} == nodes

    def test_workers_of_a_cluster_run_the_nas_of_the_driver(self, pool: RayPool, tmp_path: Path) -> None:
        import nas

        one = job(0, tmp_path, train="my_training:plain")
        pool.submit(one)
        results(pool, 1)
        folder = Path(notes(one)[0][2])
        shipped = "runtime_resources" in str(folder)
        assert shipped or folder == Path(nas.__file__).parent
        assert (folder / "workers.py").read_bytes() == Path(nas.__file__).with_name("workers.py").read_bytes()

    def test_a_trial_that_fits_no_node_is_refused_and_the_session_stays(self, pool: RayPool) -> None:
        with pytest.raises(WorkersError, match=r"must fit this machine, but it needs .*'CPU': 1000"):
            RayPool(cpus_per_trial=1000)
        assert pool.capacity >= 1

    def test_a_second_pool_shares_the_session_and_closing_it_cancels_its_jobs_only(
        self, pool: RayPool, tmp_path: Path
    ) -> None:
        one = job(8, tmp_path, train="my_training:plain", training=Training(epochs=2000), until=2000)
        with RayPool(max_concurrent=1) as second:
            assert second.capacity == 1
            second.submit(one)
            second.submit(job(9, tmp_path, train="my_training:plain"))
            wait_for(lambda: notes(one))
            assert second.finished(0.2) == []
        pid = int(notes(one)[0][0])
        wait_for(lambda: not Path(f"/proc/{pid}").exists())
        assert not notes(job(9, tmp_path))
        second.close()
        with pytest.raises(WorkersError, match="must be open"):
            second.submit(one)
        pool.submit(job(10, tmp_path))
        assert results(pool, 1)[0].state == "complete"


def test_a_session_of_our_own_says_nothing_and_can_be_opened_twice(tmp_path: Path) -> None:
    script = """
    import warnings; warnings.simplefilter("error")
    import json, sys, ray
    from nas.jobs import Job
    from nas.workers import RayPool
    from nas.training import Training
    record = json.loads(sys.argv[1])
    with RayPool() as pool:
        pool.submit(Job(**{**record, "training": Training(epochs=1), "until": 1, "checkpoint": None}))
        while not (found := pool.finished(5)):
            pass
        print(found[0].state)
    assert not ray.is_initialized()
    with RayPool(max_concurrent=1) as pool:
        print(pool.capacity)
    assert not ray.is_initialized()
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), json.dumps(asdict(job(0, tmp_path)))],
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("complete\n1\n", "", 0)


def test_nobody_at_an_address_is_an_error_within_its_time() -> None:
    with closing(socket.socket()) as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        for port in (free_port(), silent.getsockname()[1]):
            start = time.monotonic()
            with pytest.raises(WorkersError, match=rf"Ray must answer at 127.0.0.1:{port} within 1 s"):
                RayPool(f"127.0.0.1:{port}", timeout_s=1)
            assert time.monotonic() - start < 3


@pytest.mark.parametrize("address", ["localhost", "ray://head", ":6379", "host:port"])
def test_an_address_without_host_or_port_is_refused(address: str) -> None:
    with pytest.raises(WorkersError, match="must be auto, host:port or ray://host:port, but got"):
        RayPool(address)


@pytest.mark.parametrize("wrong", [{"cpus_per_trial": 0}, {"cpus_per_trial": -1}, {"max_concurrent": 0}])
def test_a_pool_that_could_run_nothing_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(WorkersError, match="but got"):
        RayPool(**wrong)  # type: ignore[arg-type]


def test_a_closed_pool_takes_no_job_and_drops_what_waits(tmp_path: Path) -> None:
    pool = InProcessPool()
    pool.submit(job(0, tmp_path))
    pool.close()
    pool.close()
    assert pool.finished(0) == []
    with pytest.raises(WorkersError, match="must be open"):
        pool.submit(job(0, tmp_path))


def test_trials_share_a_node_by_their_needs() -> None:
    node = {"CPU": 16.0, "GPU": 2.0}
    assert _slots(node, {"CPU": 1, "GPU": 0.25}) == 8
    assert _slots(node, {"CPU": 4, "GPU": 0.1}) == 4
    assert _slots(node, {"CPU": 0, "GPU": 0.1}) == 20
    assert _slots({"CPU": 16.0}, {"CPU": 1, "GPU": 1}) == 0


def test_a_card_is_numbered_among_those_its_node_may_use() -> None:
    assert _card([3], None) == 3
    assert _card(["3"], "2,3") == 1
    assert _card(["GPU-b"], "GPU-a,GPU-b") == 1


def test_functions_are_found_in_the_working_directory_or_named_as_missing() -> None:
    assert callable(resolve("my_training:plain"))
    for name, message in (
        ("my_training", '"package.module:function", but got'),
        ("my_training:gone", "my_training has no function 'gone'"),
        ("not_here.at_all:train", r"there is no not_here \('not_here.at_all:train'\)"),
    ):
        with pytest.raises(WorkersError, match=message):
            resolve(name)


def test_running_a_job_leaves_the_threads_of_the_process_as_they_were(tmp_path: Path) -> None:
    import torch

    torch.set_num_threads(2)
    assert run(job(0, tmp_path), device="cpu").state == "complete"
    assert torch.get_num_threads() == 2


def test_a_training_that_returns_nothing_is_a_failed_result(tmp_path: Path) -> None:
    result = run(job(0, tmp_path, train="my_training:nothing"), device="cpu")
    assert result.state == "failed"
    assert result.error is not None
    assert "must return a nas.train.Trained" in result.error


def test_a_training_begins_from_what_fits_of_the_network_that_it_inherits(tmp_path: Path) -> None:
    """At a learning rate that changes nothing: the same network is as good as its parent at once."""
    parent = run(replace(job(0, tmp_path), until=12, training=Training(epochs=12)), device="cpu")
    still = Training(epochs=2, learning_rate=1e-12)
    child = replace(job(1, tmp_path), training=still, until=1, inherit=parent.checkpoint)
    assert parent.values["accuracy"] > 0.2
    assert run(child, device="cpu").values["accuracy"] == pytest.approx(parent.values["accuracy"], abs=0.03)
    none, gone = replace(job(2, tmp_path), training=still, until=1), str(tmp_path / "gone.safetensors")
    alone = [run(j, device="cpu") for j in (none, replace(none, inherit=gone, checkpoint=str(tmp_path / "other")))]
    assert alone[0].values["accuracy"] == alone[1].values["accuracy"] < parent.values["accuracy"] - 0.05

    def grown(width: int) -> dict[str, object]:
        layers = (
            Conv(4, 3, 2),
            Norm(),
            Activation(),
            Conv(width, 3, 2),
            Norm(),
            Activation(),
            AdaptivePool(),
            Flatten(),
        )
        architecture = Architecture((1, 16, 16), Chain((*layers, Linear(10))))
        return {"architecture": to_json(architecture), "digest": architecture.digest}

    wider = run(replace(child, trial=5, until=2, checkpoint=str(tmp_path / "wider"), **grown(12)), device="cpu")
    assert wider.checkpoint is not None
    mine, theirs = load(Path(wider.checkpoint)).state_dict(), load(Path(str(parent.checkpoint))).state_dict()
    fits = [
        name for name in mine if mine[name].shape == theirs[name].shape and "running" not in name and mine[name].ndim
    ]
    assert 3 <= len(fits) < len(mine)
    assert all((mine[name] - theirs[name]).abs().max() < 1e-6 for name in fits)


def test_missing_data_is_a_failed_result_that_says_so(tmp_path: Path) -> None:
    result = run(job(0, tmp_path, data=str(tmp_path / "gone.npz")), device="cpu")
    assert result.error is not None
    assert "there must be an .npz file here" in result.error.splitlines()[0]
