"""What the paper's sweeps share. Cells of one config are one run, whichever figures show them."""

from poison_jax import config as config_lib
from poison_jax.errors import UserError

CIFAR10, CIFAR100 = "cifar10", "cifar100"
SEEDS = ("seed", (0, 1, 2))
THETAS = (0.001, 0.002, 0.003, 0.004, 0.005, 0.006, 0.007, 0.008, 0.009, 0.01, 0.02, 0.03)
KAPPAS = (0.0, 1e2, 1e3, 1e4, 3e4, 1e5)
# At the small size a penalty of 100 has removed the attack, and below theta = 0.05 there is none yet.
SMALL_SEEDS = ("seed", (0, 1))
SMALL_THETAS = (0.05, 0.07, 0.1, 0.3)
SMALL_KAPPAS = (0.0, 15.0, 50.0)


def sweep(figure, size, data=CIFAR10):
    """A sweep over CIFAR runs: the paper's PreResNet-110 for 90 epochs, or a network of minutes."""
    config = config_lib.default()
    config.experiment = "sweep"
    config.sweep.name = f"{figure}-{size}" if size else figure
    config.name = data
    config.data.name = data
    config.spectrum.num_iters = 20
    config.penalty.reduction = "listing"  # the paper's experiments use Listing 1's penalty
    return resize(config, size)


def resize(config, size):
    """The one place that says what a size means for a network on CIFAR: `""` is the paper's own.

    `small`: 5,000 images, PreResNet-8, 8 epochs: a run takes two minutes on a CPU core. `medium`: 10,000
    images, PreResNet-20, 10 epochs: eight minutes on two.
    """
    check_size(size, "small", "medium")
    if size == "small":
        config.data.n_train, config.data.n_test = 5_000, 1_000
        config.model.depth, config.model.block = 8, "basic"
        config.train.epochs, config.train.decay_times = 8, 1
        config.train.batch_size, config.train.learning_rate = 32, 0.05
        config.spectrum.num_iters, config.spectrum.num_examples = 20, 256
    elif size == "medium":
        config.data.n_train, config.data.n_test = 10_000, 2_000
        config.model.depth, config.model.block = 20, "basic"
        config.train.epochs = 10
        config.spectrum.num_iters, config.spectrum.num_examples = 20, 512
    return config


def check_size(size, *known):
    """Refuses a size that an experiment has not."""
    if size and size not in known:
        use = f"leave it out, or use {' or '.join(known)}" if known else "there is only one, leave it out"
        raise UserError(f"unknown size {size!r}: {use}")


def deterministic(config):
    """Who is poisoned is fixed by the image's index, and the defender holds the poisoned data."""
    config.poison.mode, config.spectrum.data = "deterministic", "poisoned"
    return config


def augmented(config):
    """Random 28x28 crops and flips (Section 5)."""
    config.data.augment, config.data.crop = "crop_flip", "crop28"
    return config


def warped(config):
    """WaNet's warp; the paper's "strength 0.02" read as a fraction of the image (s = 0.64)."""
    config.poison.trigger = "warp"
    config.poison.warp.strength, config.poison.warp.unit = 0.02, "fraction"
    return config


def plane(size, thetas=None, kappas=None, seeds=None):
    """Grids over theta and kappa for several seeds, and clean networks: the overlap that no attack has."""
    theta = ("poison.fraction", thetas or (SMALL_THETAS if size else THETAS))
    kappa = ("penalty.kappa", kappas or (SMALL_KAPPAS if size else KAPPAS))
    seeds = seeds or (SMALL_SEEDS if size else SEEDS)
    return (seeds, theta, kappa), (("seed", seeds[1][:1]), ("poison.fraction", (0.0,)), kappa)
