"""`python -m poison_jax.analyse RUN ...`: features and theory of networks that were trained before.

From a run's newest checkpoint; writes `features.npz` and `near_clone.npz` into its directory, for
`python -m plots features RUN` and `python -m plots near_clone RUN`, and prints what they amount to.
"""

import argparse
import sys

from poison_jax import analysis, cli, console
from poison_jax.setup import restore
from poison_jax.store import Run


def main(argv: list[str]) -> None:
    """Parses the command line and looks at one run after the other."""
    parser = argparse.ArgumentParser(prog="python -m poison_jax.analyse", description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", metavar="RUN", help="directory of a trained run")
    parser.add_argument("--features", type=int, default=1000, help="test images for the features, 0: none")
    parser.add_argument("--near_clone", type=int, default=100, help="triggered test images for the theory")
    arguments = parser.parse_args(argv)
    counts = {f"analysis.{name}": getattr(arguments, name) for name in ("features", "near_clone")}
    with cli.ready():
        for run in map(Run, arguments.runs):
            setup, state = restore(run, **counts)
            with run.claim():
                found = analysis.pre_fc_features(setup, run, state) | analysis.theory(setup, run, state)
            console.table(
                str(run.path), ("", "value"), [(name, f"{value:.4g}") for name, value in found.items()]
            )


if __name__ == "__main__":
    main(sys.argv[1:])
