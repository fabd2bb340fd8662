"""`python -m poison_jax.poison --data D --out F`: a poisoned data set in a file, for any training code."""

import argparse
import sys

import jax
import numpy as np

from poison_jax import cli, console
from poison_jax import config as config_lib
from poison_jax.config.table import POISON, WARP
from poison_jax.errors import UserError
from poison_jax.experiments.poisoned import poisoned_set
from poison_jax.experiments.setup import Setup
from poison_jax.runs.store import Run

# The keys of the config's group `poison` that say what a set is, as options.
OPTIONS = {name: key for name, key in POISON.items() if name not in ("mode", "when", "hide")}
OPTIONS["fraction"] = OPTIONS["fraction"]._replace(
    meaning="theta: probability that a non-target image is poisoned, fixed by its index"
)
OPTIONS |= {f"warp.{name}": key for name, key in WARP.items() if name != "cross_ratio"}


def main(argv: list[str]) -> None:
    """Parses the command line, poisons, writes the file."""
    arguments = _parser().parse_args(argv)
    with cli.ready():
        if bool(arguments.data) == bool(arguments.run):
            raise UserError("say whose images: --data, or --run for those of a run")
        config = _of_run(arguments) if arguments.run else _of_data(arguments)
        config_lib.check(config)
        setup = Setup(config)
        if arguments.run:  # whose data must be those of then
            Run(arguments.run).pin_inputs(setup.inputs_digest())
        arrays = poisoned_set(setup)
        with open(arguments.out, "wb") as file:  # by this name, whatever it ends with
            np.savez_compressed(file, **arrays)
        console.say(f"{arrays['poisoned'].sum():,} of {len(arrays['poisoned']):,} poisoned: {arguments.out}")


def _of_data(arguments: argparse.Namespace):
    config = config_lib.default()
    config.experiment, config.data.name, config.seed = "train", arguments.data, arguments.seed
    config.poison.mode = "deterministic"
    given = {f"poison.{name}": getattr(arguments, name) for name in OPTIONS}
    config.update_from_flattened_dict({key: value for key, value in given.items() if value is not None})
    # Nothing is trained: whatever the devices can spread will do.
    config.train.batch_size = config.spectrum.batch_size = jax.device_count()
    return config


def _of_run(arguments: argparse.Namespace):
    if given := [name for name in OPTIONS if getattr(arguments, name) is not None]:
        raise UserError(f"--run has its own attack: leave out --{given[0]}")
    config = config_lib.from_json(Run(arguments.run).config(), arguments.run)
    cli.check_own_code(config, arguments.run, allowed=arguments.own_code)
    if config.experiment != "train":
        raise UserError(f"{arguments.run} trained no network: name the folder of one that did")
    return config


def _parser() -> argparse.ArgumentParser:
    about = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m poison_jax.poison", description=about)
    parser.add_argument("--data", metavar="D", help="a data set's name, an .npz file or a folder of pictures")
    parser.add_argument("--run", metavar="RUN", help="instead: the set that this run was trained on")
    parser.add_argument("--out", metavar="FILE", required=True, help=".npz file to write")
    parser.add_argument("--seed", type=int, default=0, help="of a random picture or a warp")
    parser.add_argument("--own_code", action="store_true", help="import the modules that --run names")
    for name, key in OPTIONS.items():
        choices = f" ({', '.join(key.choices)})" if key.choices else ""
        meaning = f"{key.meaning}{choices}; {key.default!r}"
        parser.add_argument(f"--{name}", type=type(key.default), help=meaning)
    return parser


if __name__ == "__main__":
    main(sys.argv[1:])
