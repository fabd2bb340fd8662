"""`python main.py` as a person starts it: what only a process shows."""

import ast
import json
import re
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from conftest import needs_tfds
from test_environment import OTHER_DRAWS

from poison_jax import cli
from poison_jax import config as config_lib
from poison_jax.runs.store import Run
from tests.faults import forks
from tests.program import ROOT, environment, start

pytestmark = pytest.mark.slow

TINY = [
    "--config.experiment=train",
    "--config.data.name=digits",
    "--config.data.n_train=128",
    "--config.data.n_test=64",
    "--config.model.depth=8",
    "--config.model.block=basic",
    "--config.model.width=4",
    "--config.train.epochs=1",
    "--config.train.batch_size=32",
    "--config.spectrum.k=2",
    "--config.spectrum.num_iters=3",
    "--config.spectrum.num_examples=32",
]
FILES = {
    "checkpoints",
    "config.json",
    "inputs.json",
    "metrics.jsonl",
    "spectrum.npz",
    "attack.npz",
    "result.json",
}


def main(*args, **variables):
    """A process of its own, its output once it has ended."""
    process = start(["main.py", *args], **variables)
    out, err = process.communicate(timeout=600)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


@pytest.fixture(scope="module")
def child():
    """As `main`, in a child of a process that has imported everything: for what ends before it computes."""
    forks.warm_up()

    def run(*args, **variables):
        done = forks.run("main.py", [*map(str, args)], ROOT, **variables)
        return subprocess.CompletedProcess(args, done.returncode, done.out, done.err)

    return run


def refused(process, *patterns):
    """Asserts the contract for bad input: status 2 and one line that says what is wrong."""
    text = process.stderr
    assert "Traceback" not in text
    assert process.returncode == 2, text
    assert len(text.splitlines()) == 1, text
    assert "\\n" not in text
    for pattern in patterns:
        assert re.search(pattern, text), text


# --- help and a run -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["--help", "-h", "-help"])
def test_help_is_a_screen_with_the_flags_first_and_leads_on(name, child):
    process = child(name)
    assert process.returncode == 0
    lines = process.stdout.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    flags = [line.split()[0] for line in lines if line.startswith("  --")]
    assert [flag.partition("=")[0] for flag in flags[:3]] == ["--config", "--config.KEY", "--workdir"]
    for topic in [flag for flag in flags if flag.startswith("--help")]:
        assert child(topic).returncode == 0
    modules = [line.split()[2] for line in lines if line.startswith("  python -m")]
    assert modules == ["plots", "poison_jax.report", "poison_jax.audit"]


def test_help_lists_every_flag(child):
    said = child("--help=flags").stdout
    assert all(f"  --{name}" in said for name in ("workdir", "dry_run", "retry", "slurm", "coordinator"))


def test_help_lists_the_experiments_and_the_keys(child):
    process = child("--help=experiments")
    assert process.returncode == 0
    for file in (ROOT / "configs").rglob("*.py"):
        first = ast.get_docstring(ast.parse(file.read_text())).splitlines()[0]
        shown = f"{file.relative_to(ROOT).as_posix()}: {first}"
        assert (shown in process.stdout.splitlines()) == (file.stem != "common"), file.name
    process = child("--help=config")
    assert process.returncode == 0
    assert all(f"--config.{key}=" in process.stdout for key in config_lib.flatten(config_lib.default()))


def test_help_that_is_cut_short():
    command = f"{sys.executable} main.py --help=config | head -1"
    process = subprocess.run(command, cwd=ROOT, shell=True, capture_output=True, text=True, check=False)
    assert process.stdout
    assert process.stderr == ""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A tiny run: its process and its directory."""
    folder = tmp_path_factory.mktemp("cli")
    workdir = folder / "runs"
    process = main(f"--workdir={workdir}", *TINY, POISON_JAX_CACHE=str(folder / "cache"))
    assert process.returncode == 0, process.stderr
    [run] = workdir.iterdir()
    return process, run


def test_run_prints_the_table(finished):
    process, run = finished
    for row in ("clean accuracy", "ASR", "robust accuracy", "top eigenvalue", "overlap", "wall time"):
        assert re.search(rf"{row}.*\d", process.stdout), row
    assert str(run / "figure.png") in process.stdout
    assert not re.search("Traceback|Warning|^error", process.stderr, re.MULTILINE), process.stderr


def test_run_leaves_its_files(finished):
    _, run = finished
    names = {path.name for path in run.iterdir()}
    assert names >= FILES
    assert not [name for name in names if "tmp" in name]
    assert (run / "figure.png").read_bytes().startswith(b"\x89PNG")
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1]
    with np.load(run / "attack.npz", allow_pickle=False) as examples:
        assert examples["clean"].shape == examples["triggered"].shape == (6, 8, 8, 1)
        assert (examples["clean"] != examples["triggered"]).any()


def test_result_is_complete(finished):
    _, run = finished
    result = Run(run).result()
    for name in "clean_accuracy", "asr", "asr_incl_target", "robust_accuracy", "no_trigger_target_rate":
        assert 0 <= result[name] <= 1, name
    assert len(result["eigenvalues"]) == len(result["residuals"]) == len(result["overlap"]) == 2
    assert result["eigenvalues"] == sorted(result["eigenvalues"], reverse=True)
    assert result["most_negative_eigenvalue"] < result["eigenvalues"][-1]
    assert min(result["residuals"]) >= 0
    assert np.argmax(np.abs(result["overlap"])) == result["max_overlap_index"]
    assert result["wall_seconds"] > 0
    assert result["config"] == Run(run).config()
    assert {"python", "jax", "flax", "numpy"} <= result["versions"].keys()
    assert "cpu" in result["device"]
    with np.load(run / "spectrum.npz", allow_pickle=False) as spectrum:
        assert spectrum["vectors"].shape == (2, 64)
        np.testing.assert_allclose(spectrum["values"], result["eigenvalues"])
        np.testing.assert_allclose(spectrum["overlap"], result["overlap"])


def test_done_is_not_done_again(finished, child):
    _, run = finished
    before = {name: (run / name).stat().st_mtime_ns for name in ("result.json", "metrics.jsonl")}
    process = child(f"--workdir={run.parent}", *TINY)
    assert process.returncode == 0, process.stderr
    assert "already done" in process.stdout
    assert "clean accuracy" in process.stdout
    assert {name: (run / name).stat().st_mtime_ns for name in before} == before


def test_a_kept_compilation_changes_no_bit(finished, tmp_path):
    """The programs that another process compiled, and kept, give the numbers of that process."""
    process, run = finished
    (kept,) = (run.parents[1] / "cache").glob("compiled-*")
    programs = {file.name for file in kept.glob("*train_step*-cache")}
    assert programs
    again = main(f"--workdir={tmp_path}", *TINY, POISON_JAX_CACHE=str(kept.parent))
    assert again.returncode == 0, again.stderr
    assert again.stderr == process.stderr
    # Smaller programs are kept only where compiling them took a second: on a busy machine that is chance.
    assert {file.name for file in kept.glob("*train_step*-cache")} == programs
    (other,) = tmp_path.iterdir()
    assert (other / "metrics.jsonl").read_bytes() == (run / "metrics.jsonl").read_bytes()
    with np.load(other / "spectrum.npz") as found, np.load(run / "spectrum.npz") as before:
        np.testing.assert_array_equal(found["vectors"], before["vectors"])


def test_settings_of_the_environment_change_no_number(finished, tmp_path):
    """Those that change what is drawn are pinned: the first epoch is the same."""
    _, run = finished
    process = main(f"--workdir={tmp_path}", *TINY, **OTHER_DRAWS)
    assert process.returncode == 0, process.stderr
    (other,) = tmp_path.iterdir()
    assert (other / "metrics.jsonl").read_bytes() == (run / "metrics.jsonl").read_bytes()
    assert Run(other).result()["environment"] == Run(run).result()["environment"]


NOBODY = """
import os, pwd, runpy, sys

def unknown(uid):
    raise KeyError(f"getpwuid(): uid not found: {uid}")

pwd.getpwuid = unknown
for name in ("HOME", "LOGNAME", "USER", "POISON_JAX_CACHE", "TFDS_DATA_DIR"):
    os.environ.pop(name, None)
sys.argv = ["main.py", *sys.argv[1:]]
runpy.run_path("main.py", run_name="__main__")
"""


def test_it_runs_where_much_is_missing(finished, tmp_path):
    """For a user without a name and a home, without docstrings, without a standard input."""
    command = [sys.executable, "-OO", "-c", NOBODY, f"--workdir={tmp_path / 'runs'}", *TINY]
    command = ["sh", "-c", 'exec "$@" <&-', "sh", *command]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    ours, theirs = (Run(path).result() for path in [next((tmp_path / "runs").iterdir()), finished[1]])
    assert ours["eigenvalues"] == theirs["eigenvalues"]


def test_a_user_without_a_home_is_told_where_data_are_looked_for(tmp_path):
    command = [sys.executable, "-c", NOBODY, f"--workdir={tmp_path}", "--config.data.name=mnist"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    refused(done, "tfds build mnist")


# --- bad command lines ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "patterns"),
    [
        (["--config.penalty.kapa=1"], ["kapa", r"\bkappa\b"]),
        (["--config.pennalty.kappa=1"], ["pennalty", r"\bpenalty\b"]),
        (["--config=configs/cifar10_stochastic.py", "--config.penalty.kapa=1"], ["kapa", r"\bkappa\b"]),
        (["--config=configs/cifar10_stochastic.py", "--config.pennalty.kappa=1"], [r"\bpenalty\b"]),
        (["--config.train.epochs=many"], [r"train\.epochs", "many"]),
        (["--wrkdir=runs"], ["wrkdir", r"\bworkdir\b"]),
        (["--kappa=1"], ["no flag --kappa: did you mean --config.penalty.kappa"]),
        (["--epochs", "3"], ["no flag --epochs: did you mean --config.train.epochs"]),
        (["--theta=0.1"], ["did you mean --config.poison.fraction"]),
        (["--config.kappa=1"], ["did you mean --config.penalty.kappa"]),
        (["--batch_size=1"], [r"--config.spectrum.batch_size or --config.train.batch_size"]),
        (["--quietly"], ["no flag --quietly: see --help"]),
        (["--config.sweep.grids="], [r"--config\.sweep\.grids is empty"]),
        (["--config=" + "long " * 10_000], ["no config file"]),
        (["--config.penalty={{}}"], ["a group of keys: name one, as --config.penalty"]),
        (["--noconfig.spectrum.per_clas"], ["did you mean --config.spectrum.per_class"]),
        (["--config=configs/cifar10_stochastc.py"], ["did you mean configs/cifar10_stochastic.py"]),
        (["--config", "cifar10_warp:small"], ["did you mean configs/cifar10_warp.py:small"]),
        (["--config=configs/sweeps/fig6.py"], ["did you mean configs/sweeps/fig06.py"]),
        (["--config=nowhere.py"], ["no config file 'nowhere.py': see --help=experiments"]),
        (["--config="], ["--config is empty"]),
        (["--help=me"], ["--help=me: use --help"]),
        (["stray"], ["'stray'"]),
        (["--workdir="], ["--workdir is empty"]),
        (["--flagfile=nowhere"], ["flagfile", "nowhere"]),
        (["--coordinator=host:1234", "--process_id=0"], ["--num_processes is not given"]),
        (["--num_processes=none"], ["num_processes", "none"]),
        (["--config=configs/digits_quickstart.py:tiny"], ["digits_quickstart", "tiny", r"\bsize"]),
        (
            ["--config.data.name=cifar10", "--config.data.dir={tmp}/nowhere"],
            ["cifar10", "{tmp}/nowhere", "tfds build cifar10 .*--data_dir"],
        ),
    ],
    ids=lambda value: " ".join(value),
)
def test_bad_command_line(args, patterns, tmp_path, child):
    args, patterns = ([text.replace("{tmp}", str(tmp_path)) for text in part] for part in (args, patterns))
    refused(child(f"--workdir={tmp_path / 'runs'}", *args), *patterns)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("variable", "value", "pattern"),
    [
        ("JAX_DEFAULT_PRNG_IMPL", "dice", 'JAX cannot start: .*"dice".* jax_default_prng_impl'),
        ("JAX_ENABLE_X64", "perhaps", "JAX cannot start: .*'perhaps'.*JAX_ENABLE_X64"),
        ("JAX_PLATFORMS", "abacus", "no device with JAX_PLATFORMS=abacus"),
    ],
)
def test_settings_with_which_jax_cannot_start(variable, value, pattern, tmp_path):
    refused(main(f"--workdir={tmp_path / 'runs'}", *TINY, **{variable: value}), pattern)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "command", ["analyse {0}", "worker {0} mine", "records --runs {0} --out {0} mine", "report --runs {0}"]
)
def test_other_commands_where_jax_cannot_start(command, tmp_path):
    """One line as well, from those that need no JAX about what they were given."""
    typed = [sys.executable, "-m", *f"poison_jax.{command}".format(tmp_path / "nowhere").split()]
    variables = environment(JAX_ENABLE_X64="perhaps")
    refused(subprocess.run(typed, cwd=ROOT, env=variables, capture_output=True, text=True, check=False))


def test_batch_must_suit_the_devices(tmp_path, child):
    flag = "--xla_force_host_platform_device_count=8"
    process = child(f"--workdir={tmp_path / 'runs'}", "--config.train.batch_size=60", XLA_FLAGS=flag)
    refused(process, r"train\.batch_size = 60", "8 devices")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("source", "pattern"),
    [
        pytest.param(None, "[Nn]o ", id="does not exist"),
        pytest.param("config = {}\n", "get_config", id="no get_config"),
        pytest.param("raise BaseException\n", "BaseException", id="raises anything"),
        pytest.param("def get_config():\n    pass\n", "get_config", id="returns nothing"),
        pytest.param(
            "def get_config():\n    raise RuntimeError('out of cheese')\n", "out of cheese", id="raises"
        ),
        pytest.param(
            "def get_config():\n    raise SystemExit('out of \\x1b[31mcheese')\n",
            r"out of \\x1b\[31mcheese",
            id="exits",
        ),
        pytest.param(
            "class E(Exception):\n    def __str__(self):\n        raise self\nraise E\n",
            "E",
            id="raises twice",
        ),
    ],
)
def test_bad_config_file(source, pattern, tmp_path, child):
    file = tmp_path / "mine.py"
    if source is not None:
        file.write_text(source)
    refused(child(f"--workdir={tmp_path / 'runs'}", f"--config={file}"), re.escape(str(file)), pattern)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "error",
    [MemoryError("no room"), jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory\nallocating")],
)
def test_out_of_memory_is_one_line(error, capsys):
    with pytest.raises(SystemExit) as stopped, cli.ready():
        raise error
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: out of memory (")
    assert "lower train.batch_size" in line


def test_other_errors_of_the_runtime_keep_their_traceback():
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"), cli.ready():
        raise jax.errors.JaxRuntimeError("INTERNAL: a bug")


# --- bad disks ------------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path):
    """A disk of 64 KiB, and a function that remounts it with other options."""
    if not shutil.which("mount"):
        pytest.skip("no mount here")

    def mount(options):
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", tmp_path]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    if not mount("size=64k"):
        pytest.skip("this process may not mount")
    yield tmp_path, lambda options: mount(f"remount,{options}")
    subprocess.run(["umount", tmp_path], check=True)


def test_workdir_below_a_file(tmp_path, child):
    file = tmp_path / "file"
    file.write_text("mine")
    process = child(f"--workdir={file / 'runs'}", *TINY)
    refused(process, re.escape(str(file)), "[Nn]ot a directory", "--workdir")
    assert "epoch" not in process.stdout  # known before the training
    assert file.read_text() == "mine"


def test_read_only_disk(disk, child):
    path, remount = disk
    assert remount("ro")
    process = child(f"--workdir={path / 'runs'}", *TINY)
    refused(process, re.escape(str(path)), "[Rr]ead-only", "--workdir")
    assert "epoch" not in process.stdout


def test_full_disk_loses_nothing(disk):
    path, remount = disk
    process = main(f"--workdir={path / 'runs'}", *TINY, "--config.poison.fraction=0.5")
    [run] = (path / "runs").iterdir()
    assert not (run / "result.json").exists()
    assert remount("size=64m")  # the same command, with space
    again = main(f"--workdir={path / 'runs'}", *TINY, "--config.poison.fraction=0.5")
    assert again.returncode == 0, again.stderr
    assert {file.name for file in run.iterdir()} >= FILES
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 1
    refused(process, re.escape(str(path)), r"[Nn]o space|\bfull\b", r"--workdir|\b[Ff]ree\b")


# --- the configs on real data ---------------------------------------------------------------------


@needs_tfds
@pytest.mark.parametrize("name", ["cifar100_warp"])
def test_small_configs_train(name, tmp_path):
    """Some real images, two epochs: the loss falls, and the run ends with its result.

    One of the configs; that the others are good ones, test_config.py says.
    """
    process = main(
        f"--workdir={tmp_path}",
        f"--config=configs/{name}.py:small",
        "--config.experiment=train",
        "--config.penalty.kappa=1.0",
        "--config.data.n_train=512",
        "--config.data.n_test=128",
        "--config.train.epochs=2",
        "--config.train.learning_rate=0.02",
        "--config.model.depth=8",
        "--config.spectrum.num_iters=5",
        "--config.spectrum.num_examples=32",
    )
    assert process.returncode == 0, process.stderr
    (run,) = tmp_path.iterdir()
    first, second = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    assert second["loss"] < first["loss"]
    assert first["penalty"] > 0
    assert json.loads((run / "result.json").read_text())["config"]["name"] == name


def test_a_key_on_the_command_line_is_meant(tmp_path):
    """The quickstart compares kappas; naming one runs that one."""
    tiny = [argument for argument in TINY if "experiment" not in argument]
    with start(["main.py", f"--workdir={tmp_path}", *tiny, "--config.penalty.kappa=5"]) as process:
        first = process.stdout.readline()
        process.kill()
    assert first.startswith("kappa 5, "), first
    (run,) = tmp_path.iterdir()
    assert json.loads((run / "config.json").read_text())["penalty"]["kappa"] == 5
