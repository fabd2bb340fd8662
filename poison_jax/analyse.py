"""`python -m poison_jax.analyse RUN ...`: look again at trained networks; nothing is trained.

From each run's last checkpoint: other numbers of eigenpairs, features, the kernel theory, or a trigger of
yours beside the run's own. What is found is kept beside what was found before, and the run's `result.json` is
from then on about it; `python -m plots eigenvectors RUN` draws it.
"""

import argparse
import sys

from poison_jax import cli, console
from poison_jax import config as config_lib
from poison_jax.errors import UserError
from poison_jax.experiments import results
from poison_jax.runs.store import Run

OPTIONS = {  # option -> config key, meaning
    "k": ("spectrum.k", "eigenpairs of the input Hessian"),
    "num_iters": ("spectrum.num_iters", "Lanczos steps"),
    "num_examples": ("spectrum.num_examples", "training images that the Hessian is averaged over"),
    "features": ("analysis.features", "test images whose features are looked at; 0: none"),
    "near_clone": ("analysis.near_clone", "triggered test images for the kernel theory; 0: none"),
    "fisher": ("analysis.fisher", "training images for the input Fisher; 0: none"),
    "audit": ("analysis.audit", "test images for the statistics of the audit; 0: none"),
}


def main(argv: list[str]) -> None:
    """Parses the command line and looks at one run after the other."""
    parser = argparse.ArgumentParser(
        prog="python -m poison_jax.analyse", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="directory of a trained run")
    for name, (_, meaning) in OPTIONS.items():
        parser.add_argument(f"--{name}", type=int, help=meaning)
    parser.add_argument(
        "--trigger",
        action="append",
        default=[],
        metavar="FILE",
        help="compare eigenvectors with this picture",
    )
    parser.add_argument(
        "--own_code",
        action="store_true",
        help="import the modules that a run's config names (module:function)",
    )
    arguments = parser.parse_args(argv)
    changes = {key: getattr(arguments, name) for name, (key, _) in OPTIONS.items()}
    changes = {key: value for key, value in changes.items() if value is not None}
    with cli.ready():
        for folder in arguments.runs:
            run = Run(folder)
            if not run.checkpoints.is_dir():
                raise UserError(f"{folder} holds no checkpoints of a trained network: name a run's folder")
            config = config_lib.from_json(run.config(), folder)
            config.update_from_flattened_dict(changes)
            config_lib.check(config)
            cli.check_own_code(config, folder, allowed=arguments.own_code)
            results.look_again(run, config, triggers=arguments.trigger)
            found = run.result()
            console.table(
                folder,
                ("", "value"),
                [(name, f"{value:.4g}") for name, value in found.items() if isinstance(value, float)],
            )


if __name__ == "__main__":
    main(sys.argv[1:])
