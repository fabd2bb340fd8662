"""`python -m poison_jax.visibility RUN ...`: Theorems A and F on trained networks; nothing is trained.

Theorem A for every poisoned run whose clean twin (same penalty and seed, fraction 0) is among the runs: the
efficacy of the poison, what the input gradients of the twins' difference see of it, the bound on the kappa
that halves it and the kappa that does; how far E = delta' Delta f(X) falls up to the first penalty, and how
far by the theorem. Theorem F for the poisoned runs: how many images the Hessian must be averaged over.
The runs are of one recipe: what differs in more than fraction, penalty and seed is refused.
"""

import argparse
import sys

import numpy as np

from poison_jax import cli, console
from poison_jax.experiments import visibility
from poison_jax.runs.store import Run


def main(argv: list[str]) -> None:
    """Parses the command line and prints the two tables."""
    parser = argparse.ArgumentParser(
        prog="python -m poison_jax.visibility", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="directories of trained runs, clean twins too")
    parser.add_argument("--hessians", type=int, default=3, help="poisoned runs whose Hessians are sampled")
    arguments = parser.parse_args(argv)
    with cli.ready():
        networks = visibility.load([Run(folder) for folder in arguments.runs])
        paths = visibility.penalty_paths(networks)
        head = (
            "theta",
            "seed",
            "kappa (eq. 25)",
            "efficacy",
            "visibility",
            "bound on kappa_half",
            "kappa_half",
            "E falls by",
            "the integral of V",
        )
        rows = [
            (
                f"{path.fraction:g}",
                str(path.seed),
                ", ".join(f"{kappa:.3g}" for kappa in path.kappas),
                ", ".join(f"{E:.2f}" for E in path.efficacy),
                ", ".join(f"{V:.3g}" for V in path.visibility),
                f"{path.bound:.2g}",
                f"> {path.kappas[-1]:.3g}" if path.half == np.inf else f"{path.half:.2g}",
                f"{path.fall:.2g}",
                f"{path.predicted:.2g}",
            )
            for path in paths
        ]
        console.table("Theorem A on networks", head, rows)
        poisoned = [network for network in networks if network.fraction][: arguments.hessians]
        head = ("theta, kappa, seed", "N*", "constant C", "N: squared overlap, 1 - C/N, Gaussian law")
        rows = [
            (
                f"{network.fraction:g}, {network.kappa:.3g}, {network.seed}",
                f"{found.needed:.1f}",
                f"{found.constant:.1f}",
                "; ".join(
                    f"{n}: {o:.2f}, {max(0, 1 - found.constant / n):.2f}, {g:.2f}"
                    for n, o, g in zip(found.images, found.overlap, found.gaussian, strict=True)
                ),
            )
            for network in poisoned
            for found in (visibility.sampling(network),)
        ]
        console.table("Theorem F on networks: v1 of the mean Hessian over N images", head, rows)


if __name__ == "__main__":
    main(sys.argv[1:])
