"""Least squares, and its update for one more block of features (Section 4, Lemma F.1).

NumPy on the host, in float64 whatever JAX is set to: the statements checked with it hold to ten digits,
and LAPACK's QR of 60,000 x 785 numbers takes two seconds there.
"""

import math
from typing import NamedTuple

import numpy as np
import scipy.linalg
from scipy.linalg import lapack

from poison_jax.arrays import finite
from poison_jax.errors import UserError

_EPS = np.finfo(np.float64).eps


class Factorisation(NamedTuple):
    """`X = Q U diag(s) V'` by QR, then SVD of R; singular values that are rounding errors are left out.

    Q, orthonormal `[n, k]` with k = min(n, p), is kept as LAPACK's reflectors: forming it takes longer
    than all the rest.

    `least_squares` and `add_feature` take one in the place of X, which spares them the cost of making it.
    """

    X: np.ndarray  # float64 [n, p]
    reflectors: np.ndarray  # [n, p], R above them
    tau: np.ndarray  # [k]
    U: np.ndarray  # [k, rank]
    s: np.ndarray  # [rank], descending
    Vt: np.ndarray  # [rank, p]

    @property
    def rank(self) -> int:
        """The number of singular values above eps * max(n, p) * the largest."""
        return len(self.s)


class Update(NamedTuple):
    """The fit on `[X, x_new]`, see `add_feature`."""

    beta_old: np.ndarray  # [p] or [p, K]: coefficients of X's columns
    beta_new: np.ndarray  # [] or [q], with [K] appended where Y is [n, K]
    rss_drop: np.ndarray  # [] or [K]


def factorise(X: np.ndarray) -> Factorisation:
    """Factorises a design, of any rank, once for many fits.

    Args:
        X: real `[n, p]`.

    Raises:
        UserError: wrong shape or type, values that are not finite.

    >>> factorise(np.array([[1.0, 2.0], [2.0, 4.0], [0.0, 0.0]])).rank
    1
    """
    X = finite("X", X, 2)
    (reflectors, tau), _ = scipy.linalg.qr(X, mode="raw", check_finite=False)
    return _with_svd(X, reflectors, tau)


def leading(X: Factorisation, columns: int) -> Factorisation:
    """The factorisation of X's first columns, which is part of its own: costs an SVD of R.

    Raises:
        UserError: X has not so many columns.
    """
    if not 0 < columns <= X.X.shape[1]:
        raise UserError(f"columns = {columns}: X has {X.X.shape[1]}")
    return _with_svd(X.X[:, :columns], X.reflectors[:, :columns], X.tau[:columns])


def least_squares(X: np.ndarray | Factorisation, Y: np.ndarray, *, ridge: float = 0.0) -> np.ndarray:
    """The minimiser of |Y - X b|^2 + ridge |b|^2; of several, the one of minimum norm.

    Args:
        X: real `[n, p]` of any rank, or its `factorise(X)`.
        Y: real `[n]`, or `[n, K]` for K fits at once.
        ridge: what is added to the diagonal of X'X, not divided by n.

    Returns:
        float64 `[p]` or `[p, K]`.

    Raises:
        UserError: wrong shapes or types, values that are not finite, negative ridge.

    >>> print(least_squares([[1, 1], [1, 1]], [1, 3]))
    [1. 1.]
    """
    X = _factorised(X)
    Y = _rows_of("Y", Y, X)
    if not 0 <= ridge < math.inf:
        raise UserError(f"ridge = {ridge}: must be finite and at least 0")
    coordinates = _coordinates(X, Y.reshape(len(Y), -1))
    return _solve(X, coordinates, ridge).reshape(-1, *Y.shape[1:])


def add_feature(X: np.ndarray | Factorisation, Y: np.ndarray, beta: np.ndarray, x_new: np.ndarray) -> Update:
    """Lemma F.1 (Frisch-Waugh-Lovell): the fit on `[X, x_new]` from the fit on X.

    With M the projection off the columns of X and e = Y - X beta, the lemma has

        beta_new = x_new' e / x_new' M x_new,    beta_old' = beta - X^+ x_new beta_new,
        rss_drop = (x_new' e)^2 / x_new' M x_new.

    Here x_new may be a block Z of columns, and nothing need have full rank. With C = M Z, every

        beta_new = C^+ e + N w,    N an orthonormal basis of the null space of C,

    fits equally well; w is chosen such that |beta_old'|^2 + |beta_new|^2 is smallest, so that the result
    is the minimum-norm fit of the whole design where beta is that of X (Greville's case included: a
    column in the span of X).

    Args:
        X: real `[n, p]` of any rank, or its `factorise(X)`.
        Y: real `[n]` or `[n, K]`.
        beta: `least_squares(X, Y)`, `[p]` or `[p, K]`.
        x_new: real `[n]` or `[n, q]`, the new column or columns.

    Returns:
        `beta_old` (the lemma's beta_old'), `beta_new` and `rss_drop`, the fall of the residual sum of
        squares; all float64.

    Raises:
        UserError: wrong shapes or types, values that are not finite, a beta that does not fit Y.

    >>> X, Y = np.array([[1.0], [1.0]]), np.array([1.0, 3.0])
    >>> update = add_feature(X, Y, least_squares(X, Y), np.array([0.0, 1.0]))
    >>> print(update.beta_old.round(6), update.beta_new.round(6), update.rss_drop.round(6))
    [1.] 2.0 2.0
    """
    X = _factorised(X)
    Y, Z = _rows_of("Y", Y, X), _rows_of("x_new", x_new, X)
    beta = finite("beta", beta, 1, 2)
    wanted = X.X.shape[1:] + Y.shape[1:]
    if beta.shape != wanted:
        raise UserError(f"beta is {list(beta.shape)}, must be {list(wanted)}: a coefficient a column of X")
    shapes = wanted, Z.shape[1:] + Y.shape[1:], Y.shape[1:]
    Y, beta, Z = (array.reshape(len(array), -1) for array in (Y, beta, Z))

    e = Y - X.X @ beta
    largest = X.s[0] if X.rank else 0.0
    scale = largest * (np.linalg.norm(Y) + largest * np.linalg.norm(beta))
    if np.linalg.norm(X.X.T @ e) > 1e-8 * scale:  # the normal equations
        raise UserError("beta is not the fit of Y on X: pass least_squares(X, Y)")
    coordinates = _coordinates(X, Z)
    D, C = _solve(X, coordinates, 0.0), Z - _span(X, coordinates)
    C = C - _span(X, _coordinates(X, C))  # once more: orthogonal even where little is left
    more = (0, len(D) + len(Z.T)), (0, 0)  # rows of zeros, so that there are no fewer than columns
    C, e = np.pad(C, more), np.pad(e, more)
    U, s, Vt = scipy.linalg.svd(C, full_matrices=False, check_finite=False)
    # C is computed with rounding errors in proportion to Z, not to C.
    rank = int(np.sum(s > 10 * _EPS * max(C.shape) * np.linalg.norm(Z)))
    explained = U[:, :rank].T @ e
    beta_new = Vt[:rank].T @ (explained / s[:rank, None])

    if rank < len(s):
        N = Vt[rank:].T
        moved = np.concatenate([D @ N, np.eye(N.shape[1])])
        missing = np.concatenate([beta - D @ beta_new, np.zeros((N.shape[1], Y.shape[1]))])
        beta_new = beta_new + N @ scipy.linalg.lstsq(moved, missing, check_finite=False)[0]
    results = beta - D @ beta_new, beta_new, np.sum(explained**2, axis=0)
    return Update(*(result.reshape(shape) for result, shape in zip(results, shapes, strict=True)))


def _with_svd(X: np.ndarray, reflectors: np.ndarray, tau: np.ndarray) -> Factorisation:
    R = np.triu(reflectors[: len(tau)])
    U, s, Vt = scipy.linalg.svd(R, full_matrices=False, check_finite=False)
    rank = int(np.sum(s > _EPS * max(X.shape) * s[0]))
    return Factorisation(X, reflectors, tau, U[:, :rank], s[:rank], Vt[:rank])


def _solve(X: Factorisation, coordinates: np.ndarray, ridge: float) -> np.ndarray:
    """V diag(s / (s^2 + ridge)) times the coordinates."""
    scale = X.s + ridge / X.s  # s^2 alone could underflow
    return X.Vt.T @ (coordinates.T / scale).T


def _coordinates(X: Factorisation, Y: np.ndarray) -> np.ndarray:
    """(QU)' Y: of Y's projection on X's column space, in the orthonormal basis Q U."""
    return X.U.T @ _apply_q(X, "T", Y)[: len(X.tau)]


def _span(X: Factorisation, coordinates: np.ndarray) -> np.ndarray:
    """Q U times the coordinates."""
    padded = np.zeros((len(X.X), coordinates.shape[1]))
    padded[: len(X.tau)] = X.U @ coordinates
    return _apply_q(X, "N", padded)


def _apply_q(X: Factorisation, transposed: str, array: np.ndarray) -> np.ndarray:
    """The square `[n, n]` Q, or its transpose, times an array."""
    workspace = 64 * (array.shape[1] + 65)  # what LAPACK's largest block size needs
    return lapack.dormqr("L", transposed, X.reflectors[:, : len(X.tau)], X.tau, array, workspace)[0]


# --- arguments ------------------------------------------------------------------------------------


def _factorised(X: np.ndarray | Factorisation) -> Factorisation:
    return X if isinstance(X, Factorisation) else factorise(X)


def _rows_of(name: str, value: np.ndarray, X: Factorisation) -> np.ndarray:
    array = finite(name, value, 1, 2)
    if len(array) != len(X.X):
        raise UserError(f"{name} has {len(array)} rows, X has {len(X.X)}: they must be the same examples")
    return array
