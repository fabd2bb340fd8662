"""The command line: flags to one call, and every foreseeable failure to one line and a status.

0: done. 1: some runs of a comparison or a sweep could not be done. 2: bad input, or a disk that cannot be
written. 130 and 143: asked to stop, state saved.
"""

import ast
import contextlib
import difflib
import os
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from poison_jax import config as config_lib
from poison_jax.console import printable
from poison_jax.errors import Interrupted, RunsFailed, UserError, fail, one_line_of

try:
    import jax
except ValueError as error:  # it reads its settings from the environment when it is imported
    fail(f"JAX cannot start: {error}; mend or unset that variable of the environment")

from poison_jax import cache, console, environment, kernels
from poison_jax.runs import distributed

HELP = ("help", "h", "?")


def run(main: Callable[..., None], usage: str | None, *, configs: Path, default: str) -> None:
    """Parses the command line and calls `main(config, workdir, **options)`, the options of `sweeps.run`.

    Args:
        main: what to do; may raise `UserError`, `OSError` or `Interrupted`.
        usage: printed by `--help`, with the flags and the experiments in `configs`.
        configs: folder of the config files.
        default: the one that is used if none is named.
    """
    console.prepare()
    try:
        argv = flags.FLAGS.read_flags_from_files(sys.argv, force_gnu=False)
        own = _define_flags()
        _help(argv, usage or "", own, configs)
        file, argv = _config_file(argv, str(configs / default))
        config = _load(file, configs)
        _check_keys(argv, config)
        config_flags.DEFINE_config_dict("config", config, sys_argv=argv)
        rest = flags.FLAGS(argv)
        if len(rest) > 1:
            raise UserError(f"unexpected argument {rest[1]!r}: see --help")
        # --config.penalty.kappa=100 means that one
        config_lib.pin(config, config_flags.get_override_values(flags.FLAGS["config"]))
    except KeyboardInterrupt:
        _stopped()
    except flags.UnrecognizedFlagError as error:
        fail(_unknown_flag(error, own))
    except (UserError, flags.Error) as error:
        fail(one_line_of(error))
    values = {name: flags.FLAGS[name].value for name in own}
    processes = {name: values.pop(name) for name in ("coordinator", "num_processes", "process_id")}
    detect, workdir = values.pop("distributed"), values.pop("workdir")
    of_sweeps = [f"--{name}" for name in ("retry", "slurm", "results") if values[name]]
    if of_sweeps and config.experiment != "sweep":
        fail(f"{' and '.join(of_sweeps)}: for sweeps alone, leave it out or name a file of configs/sweeps")

    if not workdir:  # perhaps of a variable that is not set
        fail("--workdir is empty: name a folder")

    def call(_) -> None:
        with ready(detect=detect, **processes):
            main(config, workdir, **values)

    app.run(call, argv=argv[:1], flags_parser=lambda argv: argv)


@contextlib.contextmanager
def ready(**processes: Any) -> Iterator[None]:
    """Within it settings are pinned, memory and compilations kept, and a foreseeable failure is one line.

    Args:
        processes: as `distributed.session` takes them.
    """
    console.prepare()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    logging.set_verbosity(logging.FATAL)  # of the libraries: what they have to say they raise
    environment.pin()
    kernels.keep_memory()
    cache.keep_compilations()
    with contextlib.ExitStack() as session:  # left when all is said
        try:
            session.enter_context(distributed.session(**processes))
            with distributed.in_unison():
                yield
        except Interrupted as error:
            console.tell(error)
            sys.exit(143)
        except KeyboardInterrupt:
            _stopped()
        except RunsFailed as error:
            console.tell(f"error: {error}")
            sys.exit(1)
        except UserError as error:
            fail(error)
        except (MemoryError, jax.errors.JaxRuntimeError) as error:
            if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
                raise
            fail(
                f"out of memory ({printable(error, 200)}): lower train.batch_size or "
                "spectrum.batch_size, or use more devices; what was done is kept"
            )
        except OSError as error:
            fail(f"{one_line_of(error)}: free some space, or choose another --workdir")
        except (AssertionError, RuntimeError):
            if reason := environment.why_no_device():
                fail(reason)
            raise


def check_own_code(config: ConfigDict, folder: str, *, allowed: bool) -> None:
    """Refuses to import the code that a stored run's config names: the run may be somebody else's.

    Raises:
        UserError: it names some, and that is not allowed.
    """
    own = [name for name in (config.model.name, config.poison.trigger) if ":" in name]
    if own and not allowed:
        raise UserError(f"{folder} was made with code of its own, {', '.join(own)}: give --own_code")


# --- flags and the config --------------------------------------------------------------------------


def _define_flags() -> dict[str, str]:
    """Defines the flags of this program; returns each as `--help` shows it, in that order."""
    string, switch, number = flags.DEFINE_string, flags.DEFINE_bool, flags.DEFINE_integer
    shown = [
        (string("workdir", "runs", "where run directories are kept (default: runs)"), "=DIR"),
        (switch("dry_run", False, "print the runs, their FLOPs and hours; do nothing"), ""),
        (switch("retry", False, "of a sweep: do the cells that have failed again"), ""),
        (number("slurm", 0, "of a sweep: print the script of a Slurm array of so many"), "=N"),
        (
            string("results", "", "of a sweep: folder of JSON lines; a cell that has one there is done"),
            "=DIR",
        ),
        (switch("tensorboard", False, "write the metrics for TensorBoard too"), ""),
        (switch("distributed", False, "several processes, that Slurm or a TPU pod knows"), ""),
        (string("coordinator", None, "of several processes: the address of number 0"), "=HOST:PORT"),
        (number("num_processes", None, "of several processes: how many", 1), "=N"),
        (number("process_id", None, "of several processes: which one this is, from 0", 0), "=N"),
    ]
    return {flag.name: f"--{flag.name}{value}" for flag, value in shown}


def _config_file(argv: list[str], default: str) -> tuple[str, list[str]]:
    """The last `--config=FILE` of a command line, and the command line without any."""
    file, rest = default, argv[:1]
    arguments = iter(argv[1:])
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if name not in ("--config", "-config"):
            rest.append(argument)
        elif equals:
            file = value
        else:
            file = next(arguments, "")
    return file, rest


def _load(argument: str, configs: Path) -> ConfigDict:
    """What `get_config` of a file makes: `FILE` or `FILE:size`.

    Raises:
        UserError: no such file, or it does not make a config.
    """
    name, colon, size = argument.partition(":")
    if not name:
        raise UserError("--config is empty: name a file, see --help=experiments")
    if not os.path.isfile(name):  # `Path.is_file` fails for a name that is too long
        known = {file.stem: file for file in _files(configs)}
        near = difflib.get_close_matches(Path(name).stem, known, n=1, cutoff=0.5)
        hint = f"did you mean {_shown(known[near[0]])}{colon}{size}?" if near else "see --help=experiments"
        raise UserError(f"no config file {name!r}: {hint}")
    try:
        config = runpy.run_path(name)["get_config"](*([size] if colon else []))
        if isinstance(config, ConfigDict) and "experiment" in config:
            return config
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a config file is a program: it may raise anything
        if not (isinstance(error, KeyError) and error.args == ("get_config",)):
            raise UserError(f"{argument}: {one_line_of(error)}") from None
    raise UserError(
        f"{argument}: the config file needs a get_config() that edits poison_jax.config.default()"
    )


def _check_keys(argv: list[str], config: ConfigDict) -> None:
    """Raises `UserError` where `--config.KEY` names no key; says which one was perhaps meant."""
    known = config_lib.flatten(config)
    for argument in argv[1:]:
        name = argument.partition("=")[0].lstrip("-").removeprefix("no")
        key = name.removeprefix("config.")
        if not argument.startswith("-") or key == name:
            continue
        if key in known:
            if argument.endswith("=") and isinstance(known[key], tuple):  # it would be left at its default
                raise UserError(f"--config.{key} is empty: write a tuple, as {known[key]!r}")
            continue
        if inside := [other for other in known if other.startswith(f"{key}.")]:
            raise UserError(f"--config.{key} is a group of keys: name one, as --config.{inside[0]}")
        raise UserError(f"no config key {key!r}: {_near_key(key, known) or 'see --help=config'}")


def _near_key(key: str, known: dict[str, Any]) -> str | None:
    """A hint at the config key that was meant by a misspelt one, or by the last part of one."""
    last = [name for name in known if name.rpartition(".")[2] == key.rpartition(".")[2]]
    near = last or difflib.get_close_matches(key, known, n=1, cutoff=0.75)
    return f"did you mean {' or '.join(f'--config.{name}' for name in near)}?" if near else None


def _unknown_flag(error: flags.UnrecognizedFlagError, own: dict[str, str]) -> str:
    """What is said of a flag that there is not: a flag of that kind, or the config key that was meant."""
    name = error.flagname
    if near := difflib.get_close_matches(name, own, n=1, cutoff=0.7):
        return f"no flag --{name}: did you mean --{near[0]}?"
    key = {"theta": "fraction"}.get(name, name)
    return f"no flag --{name}: {_near_key(key, config_lib.flatten(config_lib.default())) or 'see --help'}"


# --- help ------------------------------------------------------------------------------------------


def _help(argv: list[str], usage: str, own: dict[str, str], configs: Path) -> None:
    """Prints what `--help`, or one of its topics, asks for, and ends."""
    for argument in argv[1:]:
        name, _, topic = argument.lstrip("-").partition("=")
        if not argument.startswith("-") or name not in HELP:
            continue
        if topic == "config":
            lines = [config_lib.describe()]
        elif topic == "experiments":
            lines = [*_titles(_files(configs))]
        elif topic and topic != "flags":
            raise UserError(f"--help={topic}: use --help, or --help= flags, experiments or config")
        else:
            about, _, examples = usage.partition("\n")
            own_flags = [(shown, flags.FLAGS[name].help) for name, shown in own.items()]
            own_flags = own_flags if topic else own_flags[:2]
            lines = [f"  {shown:25s} {meaning}" for shown, meaning in (*_CONFIG_FLAGS, *own_flags)]
            lines = lines if topic else [about, "", *lines, *_TOPICS, examples.rstrip()]
        console.say("\n".join(lines))
        sys.exit(0)


_CONFIG_FLAGS = (
    ("--config=FILE[:size]", "the experiment, a file of configs/"),
    ("--config.KEY=VALUE", "a key of it: --config.penalty.kappa=100"),
)
_TOPICS = (
    "  --help=experiments        the config files, one a figure, table or experiment",
    "  --help=config             every key: default, meaning, unit",
    "  --help=flags              the other flags: sweeps, clusters, TensorBoard",
)


def _titles(files: list[Path]) -> Iterator[str]:
    for file in files:
        title = (ast.get_docstring(ast.parse(file.read_text())) or "").partition("\n")[0]
        yield f"{_shown(file)}: {title}"


def _files(configs: Path) -> list[Path]:
    """The config files, those of single experiments first."""
    files = sorted(configs.rglob("*.py"), key=lambda file: (len(file.parts), file))
    return [file for file in files if "def get_config(" in file.read_text()]


def _shown(file: Path) -> str:
    """A path as it is typed here."""
    with contextlib.suppress(ValueError):
        return file.absolute().relative_to(Path.cwd()).as_posix()
    return str(file)


# --- the process -----------------------------------------------------------------------------------


def _stopped() -> NoReturn:
    console.tell("stopped; the same command goes on with what is not done")
    sys.exit(130)
