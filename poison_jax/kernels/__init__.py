"""Speed-ups that may be absent: convolutions in C++ for CPUs, and memory that is kept between steps."""

from poison_jax.kernels.allocator import keep_memory
from poison_jax.kernels.convolution import CHOICES, chosen, conv_general_dilated, keep_whole, slow_because

__all__ = ["CHOICES", "chosen", "conv_general_dilated", "keep_memory", "keep_whole", "slow_because"]
