"""The strongest wave in an image: the grid that a warp leaves in an eigenvector (Figure 12)."""

from typing import NamedTuple

import numpy as np

from poison_jax.errors import UserError


class SpectralPeak(NamedTuple):
    """The strongest wave in an image."""

    frequency: np.ndarray  # [2]: cycles per image down the rows and along the columns
    share: float  # of the image's power, its mean taken off, that is at +-frequency
    prominence: float  # power at the peak over the median power of the waves as fine as it


def spectral_peak(image: np.ndarray) -> SpectralPeak:
    """Return the strongest wave in an image, such as the grid that a warp leaves in an eigenvector.

    Power is that of the discrete Fourier transform, summed over the channels, so that a change of sign
    between channels does not hide a wave. The median is over the ring of frequencies whose radius, in
    cycles per longer side, is within 1/2 of the peak's. In white noise the largest of about H W / 2
    exponential variables stands over their median, about (ln(H W / 2) + 0.58) / ln 2: at 32x32 pixels 10,
    and over 23 in one of a hundred; with three channels 4, and over 6.6 in one of a hundred.

    A prominent wave is not yet a warp: a network's own strides leave a grid of their period (4 pixels, 8
    cycles in 32, for two stages of stride 2), so that a clean run of the same network is the baseline.

    Args:
        image: `[H, W]` or `[H, W, C]`, real and finite.

    Returns:
        `SpectralPeak`. Of the two frequencies f and -f of a wave the one with its last entry positive is
        given (or with that zero, the first positive). Prominence is at most 1 / the float64 epsilon, 4.5e15,
        which a pure wave reaches. An image of constant channels has frequency, share and prominence 0.

    Raises:
        UserError: another shape, or values that are not finite.
    """
    image = np.asarray(image, np.float64)
    if image.ndim not in (2, 3) or not image.size or not np.isfinite(image).all():
        raise UserError(f"an image of shape {image.shape}: give finite values [H, W] or [H, W, C]")
    height, width = image.shape[:2]
    image = image.reshape(height, width, -1)
    # Off with the first pixel, not the mean: the mean of equal numbers need not be that number.
    power = (np.abs(np.fft.fft2(image - image[:1, :1], axes=(0, 1))) ** 2).sum(-1)
    power[0, 0] = 0
    total = power.sum()
    if total == 0:
        return SpectralPeak(np.zeros(2, int), 0.0, 0.0)
    rows, columns = (np.rint(np.fft.fftfreq(n) * n).astype(int) for n in (height, width))
    radius = np.hypot(*np.meshgrid(rows / height, columns / width, indexing="ij")) * max(height, width)
    i, j = np.unravel_index(power.argmax(), power.shape)
    ring = power[np.abs(radius - radius[i, j]) <= 0.5]
    frequency = np.array([rows[i], columns[j]])
    if frequency[1] < 0 or (frequency[1] == 0 and frequency[0] < 0):
        frequency = -frequency
    if 2 * abs(frequency[0]) == height:  # the same wave with either sign
        frequency[0] = height // 2
    pair = {(i, j), (-i % height, -j % width)}  # one where the wave is the finest there is
    floor = np.finfo(np.float64).eps * power[i, j]  # the rounding of the transform
    return SpectralPeak(
        frequency,
        float(sum(power[index] for index in pair) / total),
        float(power[i, j] / max(np.median(ring), floor)),
    )
