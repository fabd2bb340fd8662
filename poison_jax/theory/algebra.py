"""Lemma F.1 and Algorithm 1: the linear algebra that the experiments rest on."""

from collections.abc import Iterator

import numpy as np

from poison_jax import data, lanczos, linear
from poison_jax.theory.entry import Entry, fails, holds


def lemma_f_1() -> Iterator[Entry]:
    """The update against a direct fit, on real images: digits with a trigger pixel as the new column."""
    digits = data.load("digits", "train")
    images = digits.images.reshape(len(digits.labels), -1) / 255.0
    R = np.linalg.qr(images, mode="r")
    X = images[
        :, np.abs(np.diagonal(R)) > 1e-9 * np.linalg.norm(images, axis=0)
    ]  # the first independent ones
    poisoned = np.arange(len(X)) % 20 == 0
    y = np.where(poisoned, 1.0, digits.labels == 0)
    direct = np.linalg.lstsq(np.column_stack([X, poisoned]), y, rcond=None)[0]
    beta = linear.least_squares(X, y)
    update = linear.add_feature(X, y, beta, poisoned.astype(float))
    fitted = np.column_stack([X, poisoned]) @ direct
    drop = np.sum((y - X @ beta) ** 2) - np.sum((y - fitted) ** 2)
    errors = [
        np.abs(update.beta_old - direct[:-1]).max() / np.abs(direct).max(),
        abs(float(update.beta_new) / direct[-1] - 1),
        abs(update.rss_drop / drop - 1),
    ]
    yield holds(
        "Lemma F.1: adding a column changes the least-squares fit by beta_new = x'e / x'M x",
        f"{len(X)} digits, {X.shape[1]} independent pixel columns, a trigger indicator as the new one; "
        "beta_new by the lemma and by a direct fit; worst error of beta_new, beta_old and the drop in RSS",
        float(update.beta_new),
        direct[-1],
        "For a full-rank X and a column outside its span. Images have columns that are zero throughout "
        f"(these digits: rank {np.linalg.matrix_rank(images)} of {images.shape[1]}; MNIST has 67), where X'X "
        "has no inverse: with the pseudo-inverse it gives the minimum-norm fit still. For a column in the "
        "span it reads 0 / 0 and the fit takes another form; linear.add_feature has both, and blocks of "
        "collinear columns.",
        worst=max(errors),
        tolerance=1e-8,
    )


def lanczos_as_printed(matvec, start: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Algorithm 1, which does not reorthogonalise: Ritz values descending, vectors and basis `[steps, d]`.

    Without its test for a breakdown.
    """
    q, before, beta = start / np.linalg.norm(start), 0.0, 0.0
    basis, diagonal, off = [], [], []
    for _ in range(steps):
        basis.append(q)
        r = matvec(q)
        diagonal.append(q @ r)
        r = r - diagonal[-1] * q - beta * before
        before, beta = q, np.linalg.norm(r)
        off.append(beta)
        q = r / beta
    T = np.diag(diagonal) + np.diag(off[:-1], 1) + np.diag(off[:-1], -1)
    values, vectors = np.linalg.eigh(T)
    return values[::-1], vectors.T[::-1] @ np.array(basis), np.array(basis)


def algorithm_1() -> Iterator[Entry]:
    """Copies of an eigenvalue that Lanczos finds once with reorthogonalisation: spikes over a bulk."""
    rng = np.random.default_rng(0)
    values = np.concatenate([[100.0, 50.0, 20.0], rng.uniform(0, 1, 397)]).astype(np.float32)
    start = rng.normal(size=400).astype(np.float32)
    few, _, basis = lanczos_as_printed(lambda q: values * q, start, 10)
    many, (top, *_), _ = lanczos_as_printed(lambda q: values * q, start, 60)
    error_of_v1 = np.linalg.norm(top[1:]) / np.linalg.norm(top)  # the eigenvector is the first axis
    ours = lanczos.top_eigenpairs(lambda q, d: d * q, start, k=6, num_iters=60, args=(values,))
    lost = np.abs(basis @ basis.T - np.eye(len(basis))).max()
    yield fails(
        "Algorithm 1: Lanczos without reorthogonalisation yields the top eigenpairs",
        "diagonal matrix with eigenvalues 100, 50, 20 over a bulk in [0, 1], float32, 60 steps; how often "
        "the eigenvalue 100 is found",
        1,
        np.sum(np.abs(many - 100) < 0.1),
        f"True of v1, which stays right (|sin| of its angle {error_of_v1:.0e} after 60 steps). Copies of "
        "converged eigenvalues appear, and displace the pairs that come next: lambda_2 is a copy of "
        "lambda_1, and the gap, which Algorithm 2 reports as well, is zero. With full reorthogonalisation "
        f"it is found {np.sum(np.abs(ours.values - 100) < 0.1)} time. After the 10 steps that the paper "
        f"takes there are {np.sum(np.abs(few - 100) < 0.1)}, and the basis is off orthonormal by {lost:.0e} "
        "already. (Listing 6 calls a library's routine, not Algorithm 1.)",
    )
