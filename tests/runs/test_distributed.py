"""Several processes: they agree, they fail together, and they train what one process trains."""

import json
import signal
import socket
import textwrap

import jax
import numpy as np
import pytest

from poison_jax.errors import UserError
from poison_jax.mesh import put
from poison_jax.runs import distributed, store
from tests.program import ROOT, start


def free_port():
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


def ended(processes):
    """What each process said on stdout and stderr; none is left behind."""
    try:
        return [process.communicate(timeout=240) for process in processes]
    finally:
        for process in processes:
            process.kill()


# --- one process ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"coordinator": "a:1"}, "--num_processes is not given"),
        ({"coordinator": "a:1", "num_processes": 2}, "--process_id is not given"),
        ({"num_processes": 2, "process_id": 0}, "--coordinator is not given"),
        ({"coordinator": "a", "num_processes": 2, "process_id": 0}, "HOST:PORT"),
        ({"coordinator": "a:", "num_processes": 2, "process_id": 0}, "HOST:PORT"),
        ({"coordinator": ":1", "num_processes": 2, "process_id": 0}, "HOST:PORT"),
        ({"coordinator": "a:70000", "num_processes": 2, "process_id": 0}, "HOST:PORT"),
        ({"coordinator": "a:1", "num_processes": 2, "process_id": 2}, "one of 0 to 1"),
        ({"coordinator": "a:1", "detect": True}, "alone"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_bad_flags(flags, said):
    with pytest.raises(UserError, match=said) as caught, distributed.session(**flags):
        pass
    assert len(str(caught.value).splitlines()) == 1


def test_one_process_is_left_alone(tmp_path, capsys):
    """No flags, nothing changes: values pass, exceptions too, and what is printed is seen."""
    with distributed.session(), distributed.in_unison():
        print("heard")
        assert not distributed.is_multiprocess()
        assert distributed.is_first()
        assert distributed.any_process(True) is True
        assert distributed.any_process(False) is False
        thing = object()
        assert distributed.on_first(lambda: thing) is thing
        distributed.check_equal("nothing", "anything")
        with pytest.raises(KeyError):
            distributed.on_first({}.popitem)
    assert capsys.readouterr().out == "heard\n"
    mesh = jax.make_mesh((8,), ("data",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    spread = put({"a": np.arange(16)}, sharding)["a"]
    assert spread.sharding == sharding
    np.testing.assert_array_equal(spread, np.arange(16))


def test_a_context_that_the_first_process_enters(tmp_path):
    with distributed.entered_by_first(lambda: open(tmp_path / "file", "w")) as file:
        file.write("x")
    assert file.closed
    absent = tmp_path / "no" / "file"
    with pytest.raises(FileNotFoundError), distributed.entered_by_first(lambda: open(absent, "w")):
        pass


# --- two processes --------------------------------------------------------------------------------

AGREEMENTS = """
    import functools, json, os, sys
    import jax, jax.numpy as jnp, ml_dtypes, numpy as np
    from jax.sharding import Mesh, NamedSharding, PartitionSpec
    from poison_jax import cli
    from poison_jax.mesh import put
    from poison_jax.runs import distributed
    from poison_jax.errors import UserError

    def fails(function):
        try:
            function()
        except Exception as error:
            return f"{type(error).__name__}: {error}"

    def broken(kind, text):
        raise kind(text)

    me = int(sys.argv[2])

    def agree():
        print("spoken by", me)
        found = {
            "agreed": [distributed.any_process(False), distributed.any_process(me == 1)],
            "first": [distributed.on_first(lambda: {"of": me}), distributed.on_first(lambda: "x" * 1000)],
            "failures": [
                fails(lambda: distributed.on_first(lambda: broken(UserError, "full"))),
                fails(lambda: distributed.on_first(lambda: broken(OSError, "disk"))),
                fails(lambda: distributed.on_first(lambda: broken(KeyError, "bug"))),
                fails(lambda: distributed.check_equal("name", "alike")),
                fails(lambda: distributed.check_equal("their names", f"I am {me}")),
            ],
        }
        mine = {"f": np.full(2, -0.0 if me == 0 else 7, np.float32), "b": ml_dtypes.bfloat16(3 - me)}
        got = distributed.broadcast(mine)
        assert np.signbit(got["f"]).all() and (got["f"] == 0).all(), got
        assert got["b"].dtype == ml_dtypes.bfloat16 and got["b"].shape == () and got["b"] == 3, got

        mesh = Mesh(np.array(jax.devices()), ("data",))
        assert mesh.size == 4
        rows, whole = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("data",), ()))
        numbers = np.arange(8.0).reshape(8, 1)
        spread = put(numbers, rows)
        assert [shard.data.shape for shard in spread.addressable_shards] == [(2, 1)] * 2
        assert float(jax.jit(jnp.sum, out_shardings=whole)(spread)) == 28
        tree = {"key": jax.random.key(3), "local": jnp.arange(3), "number": np.float64(0.5)}
        tree = put(tree, whole)
        assert not tree["local"].is_fully_addressable and tree["number"].dtype == np.float32
        assert float(jax.random.uniform(tree["key"])) == float(jax.random.uniform(jax.random.key(3)))
        assert put(spread, whole).is_fully_replicated
        print(json.dumps(found), file=sys.__stdout__)
        distributed.on_first(lambda: broken(UserError, "nobody goes on"))

    # Where the collective does not notice that one is gone, its heartbeat is missed: after 100 s by default.
    jax.distributed.initialize = functools.partial(jax.distributed.initialize, heartbeat_timeout_seconds=20)
    with cli.ready(coordinator=sys.argv[1], num_processes=2, process_id=me):
        if sys.argv[3] == "agree":
            agree()
        distributed.any_process(True)
        if sys.argv[3] == "raises" and me == 1:
            raise UserError("mine alone")
        if sys.argv[3] == "dies" and me == 1:
            os._exit(9)
"""


def two(tmp_path, ending):
    """Two processes with two devices each that run `AGREEMENTS`: status, stdout and stderr of both."""
    script = tmp_path / "agreements.py"
    script.write_text(textwrap.dedent(AGREEMENTS))
    address = f"localhost:{free_port()}"
    processes = [start([script, address, i, ending], devices=2) for i in range(2)]
    said = ended(processes)
    return [(process.returncode, *lines) for process, lines in zip(processes, said, strict=True)]


@pytest.mark.slow
def test_two_processes_agree(tmp_path):
    """And a failure that all know is said by all."""
    (status, out, err), (other_status, other_out, other_err) = two(tmp_path, "agree")
    assert err == "error: nobody goes on\n"
    assert other_err == "error: process 0: nobody goes on\n"
    assert (status, other_status) == (2, 2)
    assert "spoken by 0\n" in out
    assert "spoken" not in other_out
    for me, text in enumerate((out, other_out)):
        found = json.loads(next(line for line in text.splitlines() if line.startswith("{")))
        prefix = ["", "process 0: "][me]
        assert found == {
            "agreed": [False, True],
            "first": [{"of": 0}, "x" * 1000],
            "failures": [
                f"UserError: {prefix}full",
                f"OSError: {prefix}disk",
                ["KeyError: 'bug'", "RuntimeError: process 0: 'bug'"][me],
                None,
                "UserError: the processes differ in their names: start all of them alike",
            ],
        }


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["raises", "dies"])
def test_no_process_outlives_another(tmp_path, ending):
    """One fails where the others cannot know it: it says why, and none waits until it is killed.

    Whoever waits in a collective hears of it by the connection's end and says a line. Rarely the collective
    does not notice; then JAX, which misses the heartbeats, aborts the process.
    """
    (status, _, err), (other_status, _, other_err) = two(tmp_path, ending)
    if status == -signal.SIGABRT:
        assert "JAX distributed service detected fatal errors" in err
    else:
        assert status == 2, err
        assert err.startswith("error: another process is gone")
        assert len(err.splitlines()) == 1
    assert (other_status, other_err) == {"raises": (2, "error: mine alone\n"), "dies": (9, "")}[ending]


# --- training -------------------------------------------------------------------------------------

TINY = [
    "main.py",
    "--config.experiment=train",
    "--config.penalty.kappa=0.0",
    "--config.model.name=toys:Small",
    "--config.data.n_train=160",
    "--config.data.n_test=64",
    "--config.train.epochs=4",
    "--config.train.batch_size=32",
    "--config.spectrum.k=2",
    "--config.spectrum.num_iters=3",
    "--config.spectrum.num_examples=32",
]


def outcome(run):
    """Metrics, spectrum, the digest of the parameters, and the result, less what tells of time."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    newest = max((run / "checkpoints").iterdir(), key=lambda path: int(path.name))
    digest = json.loads((newest / "note" / "metadata").read_text())["digest"]
    with np.load(run / "spectrum.npz") as spectrum:
        arrays = {name: spectrum[name].tolist() for name in spectrum.files}
    result = store.Run(run).result()
    result.pop("wall_seconds")
    return digest, rows, arrays, result


@pytest.mark.slow
def test_two_processes_train_what_one_does(tmp_path):
    """From another network; stopped by a signal to the one that does not write, and started again.

    Each has a disk of its own.

    Compared with one process that has as many devices: the batch is cut into the same parts, and their sum
    of two terms is the same number in either order. So the bits are equal, and no tolerance is needed.
    """
    variables = {
        "POISON_JAX_CACHE": str(tmp_path / "cache"),
        "PYTHONPATH": str(ROOT / "tests"),  # has the network
        "PYTHONUNBUFFERED": "1",
    }

    def one(*more):
        process = start([*TINY, f"--workdir={tmp_path / 'alone'}", *more], devices=2, **variables)
        ((_, err),) = ended([process])
        assert process.returncode == 0, err
        return newest("alone")

    def pair(*more):
        several = [f"--coordinator=localhost:{free_port()}", "--num_processes=2"]
        return [
            start(
                [*TINY, *several, f"--process_id={i}", f"--workdir={tmp_path / str(i)}", *more], **variables
            )
            for i in range(2)
        ]

    def newest(workdir):
        return max((tmp_path / workdir).iterdir(), key=lambda path: path.stat().st_ctime)

    more = [f"--config.train.init_from={one('--config.train.epochs=1')}", "--config.analysis.features=32"]
    alone = one(*more)
    processes = pair(*more)
    while not any("epoch   1/4" in line for line in iter(processes[0].stdout.readline, "")):
        assert processes[0].poll() is None, processes[0].stderr.read()
    processes[1].send_signal(signal.SIGTERM)
    (_, err), (other_out, other_err) = ended(processes)
    assert [process.returncode for process in processes] == [143, 143], err + other_err
    assert "the same command goes on" in err
    assert err.splitlines()[-1].split(",")[0] == other_err.splitlines()[-1].split(",")[0]  # the same step
    assert not any(tmp_path.glob("0/*/result.json"))

    processes = pair(*more)
    (out, err), (other_out, other_err) = ended(processes)
    assert [process.returncode for process in processes] == [0, 0], err + other_err
    assert "resumed at epoch" in out
    assert "figure" in out
    assert "epoch" not in other_out
    assert not (tmp_path / "1").exists()
    assert outcome(newest("0")) == outcome(alone)

    # One process goes on from what two have written.
    one(f"--config.train.init_from={newest('0')}", "--config.train.epochs=1")
