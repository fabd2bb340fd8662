"""The input Fisher F = E[g g'], g the input gradient of an example's loss (Section 3.5.2, App. A.6)."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from poison_jax import batches
from poison_jax.arrays import finite
from poison_jax.autodiff import value_and_input_gradient
from poison_jax.errors import UserError
from poison_jax.lanczos import Eigenpairs, top_eigenpairs
from poison_jax.losses import cross_entropy
from poison_jax.spectrum import checked, random_start


@jax.default_matmul_precision("highest")
def input_gradients(
    apply_fn: Callable[..., Any],
    variables: Any,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    batch_size: int | None = None,
    mesh: Mesh | None = None,
) -> jax.Array:
    """Every example's own input gradient `g_i = grad_x loss_i` of the softmax cross-entropy (eq. 29).

    Takes N * d * itemsize bytes on the host and as many on the first device, whatever the batch size: for
    CIFAR 12 kB an image, 12 MiB for 1,024. F is a mean over examples: for less, give fewer of them.

    Args:
        apply_fn: `(variables, images [B, ...]) -> logits [B, K]`, or a tuple that begins with them, in
            inference mode, where examples do not see each other. A named function (or `model.apply`) is
            compiled once, a new lambda each time.
        variables: first argument of `apply_fn`, any pytree.
        images: `[N, ...]` in the network's own, normalised, input space.
        labels: int `[N]`.
        batch_size: images at once, as for `spectrum.input_hessian`; changes memory, not the result.
        mesh: devices over which a batch is spread (`data` axis); `batch_size` is a multiple of them.

    Returns:
        `[N, d]` of the images' dtype, d = H * W * C, in the order of the images.

    Raises:
        UserError: as `spectrum.input_hessian`.
    """
    images, labels, batch_size = checked(apply_fn, variables, images, labels, batch_size, mesh)
    of_batch = functools.partial(_batch_gradients, apply_fn, mesh, variables)
    return jnp.asarray(batches.outputs(of_batch, images, labels, batch_size=batch_size, mesh=mesh))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _batch_gradients(apply_fn, mesh, variables, images, labels):
    loss = cross_entropy(apply_fn)
    _, gradient = value_and_input_gradient(loss.with_aux, variables, images, labels)
    gradient = gradient.reshape(len(images), -1)
    if mesh is not None:  # whole on every device, so that any process can read it
        gradient = jax.lax.with_sharding_constraint(gradient, NamedSharding(mesh, PartitionSpec()))
    return gradient


def input_fisher(
    apply_fn: Callable[..., Any],
    variables: Any,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    k: int,
    num_iters: int | None = None,
    key: jax.Array | int = 0,
    batch_size: int | None = None,
    mesh: Mesh | None = None,
) -> Eigenpairs:
    """Top eigenpairs of `F = mean_i g_i g_i'` (eq. 29), to be compared with `spectrum.input_hessian`.

    The gradients are computed once, `input_gradients` says in how much memory; a Lanczos step is then two
    products with them and costs 4 N d operations. The rank of F is at most N: pairs beyond it have value 0.

    Args:
        apply_fn, variables, images, labels, batch_size, mesh: as for `input_gradients`.
        k: eigenpairs wanted, at most `num_iters`.
        num_iters, key: as for `spectrum.input_hessian`.

    Returns:
        `Eigenpairs`; `vectors` are `[k, d]`, to be reshaped as an image.

    Raises:
        UserError: shapes that do not fit, `k` or `num_iters` out of range, values that are not finite.
    """
    gradients = input_gradients(apply_fn, variables, images, labels, batch_size=batch_size, mesh=mesh)
    start = random_start(key, gradients.shape[1], gradients.dtype)
    return top_eigenpairs(_product, start, k=k, num_iters=num_iters, args=(gradients,))


def _product(v, gradients):
    """F v. In full precision: GPUs and TPUs round a float32 matrix product to fewer bits unless told."""
    along = jnp.matmul(gradients, v, precision="highest")
    return jnp.matmul(along, gradients, precision="highest") / len(gradients)


def energies(gradients: jax.Array, directions: np.ndarray) -> np.ndarray:
    """`E_v = v'F v` (eq. 30) of every direction, scaled to unit length: the mean of `(v'g_i)^2`.

    Args:
        gradients: `[N, d]`, of `input_gradients`.
        directions: `[m, d]`, of any length: eigenvectors, or a trigger. Listing 7's overlap centres its
            vectors; whoever compares with it centres the trigger first.

    Returns:
        `[m]`, in squared loss per squared (normalised) pixel; NaN for a direction of zeros, which is none.

    Raises:
        UserError: shapes that do not fit.

    >>> print(energies(np.array([[3.0, 0.0], [1.0, 0.0]]), np.array([[2.0, 0.0], [0.0, 1.0]])))
    [5. 0.]
    """
    directions = np.asarray(directions)
    if np.ndim(gradients) != 2 or directions.ndim != 2 or directions.shape[1] != gradients.shape[1]:
        raise UserError(f"gradients {np.shape(gradients)} and directions {directions.shape} do not fit")
    length = np.linalg.norm(directions, axis=1, keepdims=True)
    unit = directions / np.where(length == 0, np.nan, length)
    gradients = jnp.asarray(gradients)
    return np.asarray(_energies(gradients, jnp.asarray(unit, gradients.dtype)))


@jax.jit
def _energies(gradients, unit):
    return jnp.mean(jnp.matmul(gradients, unit.T, precision="highest") ** 2, axis=0)


def trace(gradients: jax.Array) -> float:
    """`tr F = mean_i |g_i|^2` (eq. 34), the energy of all directions together.

    It is what training penalises: kappa * tr F with the reduction `per_example` of
    `losses.gradient_penalised`, kappa / 2 of it with `eq25`, kappa / B of it with `listing`
    in batches of B images, whatever N is here.
    """
    return float(jnp.sum(jnp.square(gradients)) / len(gradients))


def images_needed(eigenvalue: float, background: np.ndarray) -> float:
    """Theorem F: how many images a test needs, N* = sum_j lambda_j^2 / (alpha - lambda_j)^2.

    A poison's eigenvalue alpha of the population's F, above every other eigenvalue lambda_j, turns the top
    eigenvector of the mean over N images towards its direction iff N > N*; then by `expected_overlap`.
    Below the largest lambda_j it does so at no N; another eigenvector may turn, where alpha stands clear of
    its neighbours. *Proof.* For Gaussian gradients, as N and d grow, the sample's eigenvalue is psi(alpha) =
    alpha (1 + sum_j lambda_j / (alpha - lambda_j) / N), it leaves the bulk iff psi'(alpha) = 1 - N*/N is
    positive, and overlap^2 = alpha psi'(alpha) / psi(alpha) (Paul 2007; Bai and Yao 2012).

    Args:
        eigenvalue: alpha > 0.
        background: the other eigenvalues lambda_j of F `[d - 1]`, >= 0, zeros included or not.

    Returns:
        N*; infinite where an eigenvalue of the background reaches alpha.

    Raises:
        UserError: an eigenvalue that is negative, or alpha that is not positive.

    >>> images_needed(2.0, np.ones(100))
    100.0
    """
    background = _spectrum(eigenvalue, background)
    if background.max() >= eigenvalue:
        return float("inf")
    return float(np.sum((background / (eigenvalue - background)) ** 2))


def expected_overlap(eigenvalue: float, background: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Squared overlap of the sample's top eigenvector with the population's (Theorem F), zero up to N*.

        overlap^2 = (1 - N*/N) / (1 + sum_j lambda_j / (alpha - lambda_j) / N)

    Args:
        eigenvalue, background: as in `images_needed`.
        images: N > 0, of any shape.

    >>> print(expected_overlap(2.0, np.ones(100), np.array([50, 200, 1000])).round(3))
    [0.    0.333 0.818]
    """
    images, needed = finite("images", images), images_needed(eigenvalue, background)
    if not (images > 0).all():
        raise UserError(f"images = {images.min():g}: must be positive")
    if needed == float("inf"):
        return np.zeros(images.shape)
    background = np.asarray(background, float)
    pull = np.sum(background / (eigenvalue - background))
    return np.maximum(0, 1 - needed / images) / (1 + pull / images)


def sampling_constant(matrices: np.ndarray) -> float:
    """Theorem F without Gaussian gradients: C in `overlap^2 = 1 - C / N` for the mean of N matrices, N >> C.

    C = sum_j E[(v1'A v_j)^2] / (lambda_1 - lambda_j)^2, over the eigenpairs of the population's mean:
    second-order perturbation of its top eigenvector. For A = g g' and Gaussian g it is sum_j alpha lambda_j
    / (alpha - lambda_j)^2, the first order of `expected_overlap`. Steep images make it larger: for a
    network that knows its training images the spectrum alone promises too much.

    Args:
        matrices: of all images: Hessians, or outer products of gradients, symmetric `[N, d, d]`.

    Returns:
        C; infinite where the top eigenvalue is double.
    """
    matrices = finite("matrices", matrices, 3)
    values, vectors = np.linalg.eigh(matrices.mean(0))
    gaps = values[-1] - values[:-1]
    if not gaps.size or gaps.min() <= 0:
        return float("inf") if gaps.size else 0.0
    mixed = (matrices @ vectors[:, -1]) @ vectors[:, :-1]
    return float(np.sum(np.mean(mixed**2, 0) / gaps**2))


def visible_mean(background: np.ndarray, images: np.ndarray, *, deviations: float = 3.0) -> np.ndarray:
    """Theorem G, first-order visibility: squared length of a common part that N gradients show.

    Let gradients of a score at N images be h_i + q: what differs from image to image, of mean zero and
    covariance C, and what a backdoor adds to all. The squared length of their mean, less tr C / N, has the
    mean q'q, and the standard deviation sqrt(2 tr C^2) / N where q = 0 (Gaussian h_i): q shows, by so many
    deviations, from

        q'q = deviations * sqrt(2 tr C^2) / N

    on. The second-order threshold for the same gradients (Theorem F) is q'q ~ lambda sqrt(d / N) in a
    flat background, which is larger by sqrt(N / 2) / deviations: *a mean needs less than a variance*. It
    does not where clean classes' means differ by themselves: their covariance takes the place of C / N, and
    no N helps.

    Args:
        background: eigenvalues of C `[d]`, >= 0.
        images: N > 0, of any shape.
        deviations: how many standard deviations count as seen.

    >>> print(visible_mean(np.ones(8), np.array([4, 400])))
    [3.   0.03]
    """
    background, images = _spectrum(1.0, background), finite("images", images)
    if not (images > 0).all():
        raise UserError(f"images = {images.min():g}: must be positive")
    return deviations * np.sqrt(2 * np.sum(background**2)) / images


def _spectrum(eigenvalue: float, background: np.ndarray) -> np.ndarray:
    background = finite("background", background, 1)
    if not 0 < eigenvalue < float("inf"):
        raise UserError(f"eigenvalue = {eigenvalue}: must be positive and finite")
    if background.min() < 0:
        raise UserError(f"background has an eigenvalue of {background.min():.3g}: must be at least 0")
    return background
