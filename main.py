"""Plants a backdoor in a network, measures it, looks for it in the input Hessian, suppresses it.

python main.py                                             the quickstart: real digits, under two minutes
python main.py --config=configs/cifar10_stochastic.py      an experiment at the paper's scale
python main.py --config=configs/cifar10_stochastic.py:small      the same in minutes on two CPU cores
python main.py --config=FILE --config.penalty.kappa=100 --config.poison.fraction=0.02
                                                           any key of poison_jax/config.py, overridden
"""

import ast
import os
import sys
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

ROOT = Path(__file__).parent
CONFIG = config_flags.DEFINE_config_file(
    "config", str(ROOT / "configs" / "digits_quickstart.py"), "The experiment."
)
WORKDIR = flags.DEFINE_string("workdir", "runs", "Where run directories are kept.")


def _experiments() -> str:
    files = sorted((ROOT / "configs").glob("*.py"))
    lines = [(file.name, ast.get_docstring(ast.parse(file.read_text())).splitlines()[0]) for file in files]
    return "\nExperiments in configs/:\n" + "".join(f"  {name:30s} {line}\n" for name, line in lines)


def _parse(argv: list[str]) -> list[str]:
    """As absl does, but a mistake costs one line and status 2; an unknown key names the nearest."""
    try:
        rest = flags.FLAGS(argv)
        if len(rest) > 1:
            raise ValueError(f"unexpected argument {rest[1]!r}")
        if not hasattr(CONFIG.value, "experiment"):
            raise ValueError(f"no config file {flags.FLAGS['config'].config_filename}")
        return rest
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        _fail(" ".join(str(error.args[0] if error.args else error).strip("'").replace("\\'", "'").split()))


def main(_) -> None:
    logging.set_verbosity(logging.ERROR)  # of the libraries
    from poison_jax import experiment
    from poison_jax.errors import UserError
    from plots import run as figure

    try:
        for run in experiment.run(CONFIG.value, WORKDIR.value):
            print("figure:", figure.draw(run))
    except experiment.Interrupted as error:
        print(error, file=sys.stderr)
        sys.exit(143)
    except (UserError, OSError) as error:
        _fail(str(error))


def _fail(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    sys.modules["__main__"].__doc__ += _experiments()
    app.run(main, flags_parser=_parse)
