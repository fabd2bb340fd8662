"""The command line: flags to one call, and every foreseeable failure to one line and a status.

0: done. 1: some cells of a sweep could not be done. 2: bad input, or a disk that cannot be written.
130 and 143: asked to stop, state saved.
"""

import ast
import contextlib
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import jax
from absl import app, flags, logging
from ml_collections import config_flags

from poison_jax import cache, environment, kernels
from poison_jax import config as config_lib
from poison_jax.errors import Interrupted, RunsFailed, UserError, fail, printable
from poison_jax.runs import distributed


def run(main: Callable[..., None], usage: str, *, configs: Path, default: str) -> None:
    """Parses the command line and calls `main(config, workdir, **options)`, the options of `launch.run`.

    Args:
        main: what to do; may raise `UserError`, `OSError` or `Interrupted`.
        usage: printed by `--help`, with the experiments in `configs`.
        configs: folder of the config files.
        default: the one that is used if none is named.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    logging.set_verbosity(logging.FATAL)  # of the libraries: what they have to say they raise
    try:
        config = config_flags.DEFINE_config_file("config", None, "The experiment: a file, or file:size.")
    except flags.Error as error:  # it reads the command line already, and what --flagfile names
        fail(_one_line(error))
    workdir = flags.DEFINE_string("workdir", "runs", "Where run directories are kept.")
    options = {
        "tensorboard": flags.DEFINE_bool("tensorboard", False, "Write the metrics for TensorBoard too."),
        "retry": flags.DEFINE_bool("retry", False, "Of a sweep: do the cells that have failed again."),
        "dry_run": flags.DEFINE_bool("dry_run", False, "Print the runs, their FLOPs and hours; do nothing."),
        "slurm": flags.DEFINE_integer(
            "slurm", 0, "Of a sweep: print the script of a Slurm array of so many."
        ),
        "results": flags.DEFINE_string(
            "results", "", "Of a sweep: folder of JSON lines; a cell that has one there is done."
        ),
    }
    processes = {
        "coordinator": flags.DEFINE_string(
            "coordinator", None, "Of several processes: HOST:PORT of number 0."
        ),
        "num_processes": flags.DEFINE_integer("num_processes", None, "Of several processes: how many.", 1),
        "process_id": flags.DEFINE_integer("process_id", None, "Of several processes: which one this is.", 0),
        "detect": flags.DEFINE_bool(
            "distributed", False, "Several processes, that Slurm or a TPU pod knows."
        ),
    }
    sys.modules["__main__"].__doc__ = usage + "\nExperiments:\n" + "".join(_experiments(configs))

    def parse(argv: list[str]) -> list[str]:
        if "--help=config" in argv:
            print(config_lib.describe())
            sys.exit(0)
        named = [
            i for i, argument in enumerate(argv) if argument.partition("=")[0] in ("--config", "-config")
        ]
        if not named:
            argv, named = [argv[0], f"--config={configs / default}", *argv[1:]], [1]
        file = argv[named[-1]].partition("=")[2] or " ".join(argv[named[-1] + 1 : named[-1] + 2])
        try:
            rest = flags.FLAGS(argv)
            if len(rest) > 1:
                raise UserError(f"unexpected argument {rest[1]!r}: see --help")
            if not hasattr(config.value, "experiment"):
                raise UserError("the config file needs a get_config() that edits poison_jax.config.default()")
            # --config.penalty.kappa=100 means that one
            config_lib.pin(config.value, config_flags.get_override_values(flags.FLAGS["config"]))
            return rest
        except KeyboardInterrupt:
            _stopped()
        except BaseException as error:  # a config file is a program: it may raise anything
            if isinstance(error, SystemExit) and not _in_config_file(error):  # --help
                raise
            about = "" if isinstance(error, flags.Error) and _QUOTED not in _said(error) else f"{file}: "
            fail(about + _one_line(error))

    def call(_) -> None:
        with ready(**{name: flag.value for name, flag in processes.items()}):
            _check_workdir(workdir.value)
            main(config.value, workdir.value, **{name: flag.value for name, flag in options.items()})

    app.run(call, flags_parser=parse)


def _check_workdir(name: str) -> None:
    if not name:  # perhaps of a variable that is not set
        raise UserError("--workdir is empty: name a folder")
    try:
        name.encode()
    except UnicodeEncodeError:  # checkpoints could not be written there
        raise UserError(f"--workdir={name} is not UTF-8: name another folder") from None


@contextlib.contextmanager
def ready(**processes: Any) -> Iterator[None]:
    """Within it settings are pinned, memory and compilations kept, and a foreseeable failure is one line.

    Args:
        processes: as `distributed.session` takes them.
    """
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
            print(error, file=sys.stderr)
            sys.exit(143)
        except KeyboardInterrupt:
            _stopped()
        except RunsFailed as error:
            print(f"error: {printable(error)}", file=sys.stderr)
            sys.exit(1)
        except UserError as error:
            fail(error)
        except (MemoryError, jax.errors.JaxRuntimeError) as error:
            if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
                raise
            fail(
                f"out of memory ({printable(error, 200)}): lower train.batch_size or "
                "spectrum.batch_size, use more devices, or set model.remat; what was done is kept"
            )
        except OSError as error:
            fail(f"{_one_line(error)}: free some space, or choose another --workdir")


_QUOTED = "Traceback (most recent call last)"


def _experiments(configs: Path) -> Iterator[str]:
    for file in sorted(configs.rglob("*.py"), key=lambda file: (len(file.parts), file)):
        source = file.read_text()
        if "def get_config(" in source:
            title = (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]
            yield f"  {file.relative_to(configs.parent).as_posix():36s} {title}\n"


def _stopped() -> NoReturn:
    print("stopped; the same command goes on with what is not done", file=sys.stderr)
    sys.exit(130)


def _in_config_file(error: BaseException) -> bool:
    """Whether it was raised while the config file ran."""
    loader = str(Path(config_flags.__file__).parent)
    return any(frame.filename.startswith(loader) for frame in traceback.extract_tb(error.__traceback__))


def _said(error: BaseException) -> str:
    """What an exception says; nothing where that fails in its turn."""
    try:
        return str(error.args[0] if isinstance(error, KeyError | AttributeError) and error.args else error)
    except Exception:
        return ""


def _one_line(error: BaseException) -> str:
    """What an exception says, without a traceback that some library quoted into it."""
    text = _said(error)
    text = text.replace("\\n", "\n").replace("\\'", "'")
    if _QUOTED in text:
        text = text.strip().splitlines()[-1].partition(": ")[2]
    text = " ".join(text.split()) or type(error).__name__
    if misspelt := re.search(r"(\w+)' Did you mean \"(\w+)\"", text):
        return f"no config key {misspelt[1]!r}: did you mean {misspelt[2]!r}?"
    if unknown := re.fullmatch(r"""["']+(\w+)["']+""", text):
        return f"no config key {unknown[1]!r}: see poison_jax/config.py"
    return text
