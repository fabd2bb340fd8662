"""Model FLOPs, counted by hand: a multiply-add of a convolution or matrix product is two.

With F the forward pass and F1 its first convolution (whose input, the images, needs no gradient):

- inference: F
- plain step: forward, gradients of the inputs and of the filters: 3 F - F1
- penalised step: forward; input gradient; of that pass the gradients with respect to what comes in and to
  the filters; of the forward pass the gradients with respect to inputs and filters: 6 F - F1
- n Hessian products: the input gradient once, 2 F; its tangent n times, 2 F each: 2 F (1 + n)

Nothing else is counted: no normalisation, no elementwise operation, and no pass that a program repeats. The
listing's second forward pass, and an input gradient computed anew for every Hessian product, are work that
the model does not ask for: they lower the fraction of peak, as they should.
"""


def convolution(height: int, width: int, kernel: int, channels_in: int, channels_out: int) -> int:
    """Multiply-adds, times two, of a convolution with an output of `height` x `width`.

    >>> convolution(32, 32, 3, 3, 16)
    884736
    """
    return 2 * height * width * kernel**2 * channels_in * channels_out


def preresnet_forward(
    depth: int, num_classes: int, image_shape: tuple[int, int, int], *, block: str = "basic", width: int = 16
) -> tuple[int, int]:
    """FLOPs of one image's forward pass, and of the first convolution in it."""
    h, w, channels = image_shape
    first = total = convolution(h, w, 3, channels, width)
    channels = width
    for stage in range(3):
        inner = width * 2**stage
        out = inner if block == "basic" else 4 * inner
        for index in range((depth - 2) // (6 if block == "basic" else 9)):
            stride = 2 if stage > 0 and index == 0 else 1
            before = (h, w)
            h, w = -(-h // stride), -(-w // stride)
            if block == "basic":
                total += convolution(h, w, 3, channels, inner) + convolution(h, w, 3, inner, inner)
            else:
                total += convolution(*before, 1, channels, inner) + convolution(h, w, 3, inner, inner)
                total += convolution(h, w, 1, inner, out)
            if stride != 1 or channels != out:
                total += convolution(h, w, 1, channels, out)
            channels = out
    return total + 2 * channels * num_classes, first


def plain_step(forward: int, first: int) -> int:
    """FLOPs of one image in a plain training step, from those of its forward pass and of the first layer."""
    return 3 * forward - first


def penalised_step(forward: int, first: int) -> int:
    """FLOPs of one image in a penalised training step (double backprop)."""
    return 6 * forward - first


def hessian_products(forward: int, count: int) -> int:
    """FLOPs of one image in `count` Hessian products that share a linearised gradient."""
    return 2 * forward * (1 + count)
