"""What the experiments share: data sets, sizes, grids.

Cells of one config are one run, whichever figures show them. A size means the same for every network:

- none: the paper's own, for a GPU or TPU (PreResNet-110, 90 epochs).
- `small`: the paper's *regime* at the size of two CPU cores. At kappa = 0 the network is trained to the end
  (99 % of the training images), with the paper's decay time T = sum_t lr_t * weight_decay = 0.65, or as near
  to it as that allows. With few steps that takes more weight decay, which makes networks smoother.
- `short`: a quick look that stops early, on CIFAR at half the accuracy: what is seen there need not be so in
  the regime.
- `medium`: the same with a deeper network and twice the images.
"""

from poison_jax import config as config_lib
from poison_jax.errors import UserError

CIFAR10, CIFAR100, MNIST, DIGITS = "cifar10", "cifar100", "mnist", "digits"
SEEDS = ("seed", (0, 1, 2))
THETAS = (0.001, 0.002, 0.003, 0.004, 0.005, 0.006, 0.007, 0.008, 0.009, 0.01, 0.02, 0.03)
KAPPAS = (0.0, 1e2, 1e3, 1e4, 3e4, 1e5)
DECAYS = (0.0, 1e-4, 2e-4, 5e-4, 1e-3)  # weight decays at 90 epochs, then other epochs with their own
OTHER_DECAYS = ((30, 5e-4), (180, 5e-4), (30, 1.5e-3), (180, 2.5e-4))
SMALL_THETAS = (0.02, 0.05, 0.1)
SMALL_KAPPAS = (0.0, 50.0)
# In a short training a penalty of 100 has removed the attack, and below theta = 0.05 there is none yet.
SHORT_SEEDS = ("seed", (0, 1))
SHORT_THETAS = (0.05, 0.07, 0.1, 0.3)
SHORT_KAPPAS = (0.0, 15.0, 50.0)


def network(data=CIFAR10, size=""):
    """A network on a data set: the paper's PreResNet-110 for 90 epochs, or that of another size."""
    config = config_lib.default()
    config.name = config.data.name = data
    config.spectrum.num_iters = 20
    config.penalty.reduction = "listing"  # the paper's experiments use Listing 1's penalty
    if data == DIGITS:  # 8x8 pixels: a corner that is always black hides the trigger
        config.poison.margin = 2
    return resize(config, size)


def arms(config, name, fraction, kappas):
    """A comparison over kappa at one theta, with what is looked at after each epoch."""
    config.name, config.experiment = name, "compare"
    config.poison.fraction, config.compare.arms = fraction, kappas
    config.analysis.collapse, config.analysis.near_clone = 1000, 100
    return config


def sweep(figure, size, data=CIFAR10):
    """A sweep over networks on a data set."""
    config = network(data, size)
    config.experiment = "sweep"
    config.sweep.name = f"{figure}-{size}" if size else figure
    return config


def resize(config, size):
    """The one place that says what a size means."""
    data, model, train = config.data, config.model, config.train
    check_size(size, *(("small", "short") if data.name == DIGITS else ("small", "short", "medium")))
    if size or data.name == DIGITS:
        model.block = "basic"
    if size == "small" or (data.name == DIGITS and not size):
        small = {  # images, depth, epochs, learning rate, weight decay: T
            DIGITS: (None, 8, 80, 0.1, 1e-2),  # 0.65
            MNIST: (10_000, 8, 15, 0.05, 1.5e-2),  # 0.65
            CIFAR10: (4_000, 20, 45, 0.05, 5e-3),  # 0.26; with 1e-2 training ends below 99 %
            CIFAR100: (4_000, 20, 45, 0.05, 5e-3),
        }
        images, model.depth, train.epochs, train.learning_rate, train.weight_decay = small[data.name]
        train.batch_size = 64
        if images:
            data.n_train, data.n_test = images, 2_000
        config.spectrum.num_examples = 512
    elif size == "short":
        model.depth = 8
        if data.name == DIGITS:
            train.epochs, train.batch_size = 12, 64
            config.spectrum.num_examples = 512
        else:
            data.n_train, data.n_test = 5_000, 1_000
            train.epochs, train.decay_times = 8, 1
            train.batch_size, train.learning_rate = 32, 0.05
            config.spectrum.num_examples = 256
    elif size == "medium":
        data.n_train, data.n_test = 10_000, 2_000
        model.depth = 20
        train.epochs = 10
        config.spectrum.num_examples = 512
    return config


def check_size(size, *known):
    """Refuses a size that an experiment has not."""
    if size and size not in known:
        use = f"leave it out, or use {' or '.join(known)}" if known else "there is only one, leave it out"
        raise UserError(f"unknown size {size!r}: {use}")


def by_size(size, paper, small, short):
    """A value at the paper's size, at `small`, and in shorter trainings."""
    return paper if not size else small if size == "small" else short


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
    theta = ("poison.fraction", thetas or by_size(size, THETAS, SMALL_THETAS, SHORT_THETAS))
    kappa = ("penalty.kappa", kappas or by_size(size, KAPPAS, SMALL_KAPPAS, SHORT_KAPPAS))
    seeds = seeds or by_size(size, SEEDS, SEEDS, ("seed", (0,)))
    clean = seeds if size == "small" else ("seed", seeds[1][:1])
    return (seeds, theta, kappa), (clean, ("poison.fraction", (0.0,)), kappa)


def collapse(figure, size, data, fraction, *settings):
    """The law of collapse: features of triggered images over decay time, kappa = 0.

    A grid for each of `settings`: pairs of epochs and weight decay.
    """
    config = sweep(figure, size, data)
    config.poison.fraction = fraction
    config.analysis.near_clone = 100  # r / l
    config.sweep.grids = tuple((SEEDS, ("train.epochs,train.weight_decay", tuple(some))) for some in settings)
    return config


ATTACKS = (  # trigger, labels, opacity
    ("l", "all_to_one", 1.0),
    ("blend", "all_to_one", 0.3),
    ("warp", "all_to_one", 1.0),
    ("l", "clean_label", 1.0),
)


def clean_networks(references, held_out, kappa=0.0):
    """A grid for the audit: references, whose seeds are from 1000 on, and networks to try it on."""
    seeds = ("seed", (*range(1000, 1000 + references), *range(held_out)))
    return seeds, ("poison.fraction", (0.0,)), ("penalty.kappa", (kappa,))


def attacked_networks(seeds, attacks, thetas, kappa=0.0):
    """A grid for the audit: attacked networks, with a target of its own for each seed."""
    targets = tuple((100 + seed, (3 * seed + 1) % 10) for seed in range(seeds))
    attack = ("poison.trigger,poison.labels,poison.alpha", tuple(attacks))
    theta = ("poison.fraction", tuple(thetas))
    return ("seed,poison.target", targets), attack, theta, ("penalty.kappa", (kappa,))
