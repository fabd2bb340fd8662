"""Every config key, declared once: default, meaning and unit, choices, bounds, and what it determines.

`config.default()`, `config.check()`, `config.describe()` and `config.identity()` are derived from `KEYS`.
"""

from typing import Any

from poison_jax.config.keys import RUNS, Group, Key

EXPERIMENTS = ("train", "compare", "krr_theory", "mnist_linear", "sweep")
LABEL_MAPS = ("all_to_one", "all_to_all", "source_specific", "clean_label")  # as in `poison.label_map`
# What is looked at in a trained network, in this order; `analysis.<stage>` = 0 leaves one out.
STAGES = ("attack", "regime", "spectrum", "fisher", "features", "near_clone", "audit")
EIGENPAIRS = ("spectrum", "fisher")
TRIGGERS = ("l", "square", "mask", "blend", "warp", "none")

RUN = {
    "experiment": Key(
        "train",
        "what is done; compare: train for each of compare.arms; sweep: for each cell of sweep.grids",
        choices=EXPERIMENTS,
    ),
    "name": Key("run", "run directories are <workdir>/<name>-<hash of the config>", determines=()),
    "seed": Key(
        0,
        "of everything random: initial weights, batch order, augmentation, poison draws",
        low=0,
        high=2**32 - 1,
        determines=("train", "krr_theory"),
    ),
}
COMPARE = {
    "key": Key("penalty.kappa", "the key in which the arms differ; or several, 'a,b'"),
    "arms": Key((0.0,), "its value in each arm; of several keys, tuples of values: ((0.0, 0.5), ...)"),
}
SWEEP = {
    "name": Key("sweep", "<workdir>/sweeps/<name>.json says what its cells are"),
    "of": Key("train", "the experiment of a cell", choices=RUNS),
    "grids": Key(((),), "each a tuple of axes (key, values): all combinations, of all grids, are cells"),
    "engine": Key("local", "processes of this machine, or tasks of a Ray cluster", choices=("local", "ray")),
    "workers": Key(
        1, "engine=local: processes, each with its share of the cores or of the GPUs", low=1, high=1000
    ),
    "gpus": Key(0.0, "engine=ray: GPUs that a cell takes", low=0),
    "cpus": Key(1.0, "engine=ray: cores that a cell takes", low=0),
    "attempts": Key(3, "a cell whose process dies this often has failed", low=1),
}
DATA = {
    "name": Key("cifar10", "digits, mnist, fashion_mnist, cifar10, cifar100, or a path to your own"),
    "dir": Key(None, "of tensorflow-datasets; None: $TFDS_DATA_DIR, else its own default", determines=()),
    "n_train": Key(None, "training images, the first in stored order", low=1, all_is_none=True),
    "n_test": Key(
        None,
        "test images, the first in stored order",
        low=1,
        all_is_none=True,
        determines=("mnist_linear",),
        stages=("attack", "regime", "features", "near_clone", "audit"),
    ),
    "augment": Key("none", "crop_flip: random crop, random horizontal flip", choices=("none", "crop_flip")),
    "normalise": Key(
        "",
        "mean and standard deviation of the channels, as .5/.5 or .5,.5,.5/.2,.2,.2; '': those of the data",
        determines=("train",),
    ),
    "crop": Key(
        "pad4",
        "pad4: padded by 4 pixels, cropped to size (Listing 3); crop28: 28x28 of 32x32 (Section 5)",
        choices=("pad4", "crop28"),
    ),
}
MODEL = {
    "name": Key(
        "preresnet",
        "the architecture, or a function that makes one",
        choices=("preresnet", "foreign"),
        or_function=True,
    ),
    "architecture": Key("", "name=foreign: one of poison_jax.foreign's, or a description, a line a layer"),
    "depth": Key(110, "layers: 6n + 2 with basic blocks, 9n + 2 with bottleneck blocks"),
    "block": Key(
        "bottleneck",
        "at depth 110 bottleneck has 1,146,842 parameters, basic 1,730,522",
        choices=("bottleneck", "basic"),
    ),
    "width": Key(16, "channels of the first stage", low=1, high=10_000),
    "dtype": Key(
        "float32",
        "of the computation; float64 needs JAX_ENABLE_X64=1",
        choices=("float32", "bfloat16", "float64"),
    ),
    "precision": Key(
        "default",
        "of float32 products in training; default: the device's own, on recent NVIDIA GPUs TF32, on "
        "TPUs bfloat16; highest: float32, as on CPUs and for whatever is looked at in a trained network",
        choices=("default", "highest"),
    ),
    "convolutions": Key(
        "auto",
        "on CPUs: kernels are the project's own, xla XLA's; auto: kernels where they can be built",
        choices=("auto", "kernels", "xla"),
    ),
}
POISON = {
    "trigger": Key(
        "l",
        "l (Listing 2), square (lower right), mask or blend (a file), or a function of images",
        choices=TRIGGERS,
        or_function=True,
    ),
    "mask": Key("", "trigger=mask: .npy file, bool [H, W] or [H, W, C]"),
    "picture": Key(
        "", "trigger=blend: image file, of the data's size or smaller (lower right); '': random pixels"
    ),
    "alpha": Key(1.0, "trigger=blend: opacity of the picture, above 0; 1 sets the pixels", low=0, high=1),
    "mode": Key(
        "stochastic",
        "who is poisoned: a new draw at every visit, or fixed by the image's index",
        choices=("stochastic", "deterministic"),
    ),
    "fraction": Key(
        0.01,
        "theta: probability that a non-target image is poisoned (per visit)",
        low=0,
        high=1,
        determines=("train",),
    ),
    "target": Key(0, "class that poisoned images are labelled as", low=0),
    "labels": Key("all_to_one", "label of a poisoned image; all_to_all: y + 1", choices=LABEL_MAPS),
    "source": Key(1, "labels=source_specific: the class whose images are poisoned", low=0),
    "margin": Key(3, "distance of the trigger from the edges, pixels", low=0),
    "size": Key(2, "side of the trigger's box, pixels", low=1),
    "value": Key(1.0, "what the pixels under the mask are set to, black 0 to white 1", low=0, high=1),
    "when": Key(
        "after_augment",
        "after_augment (Listing 3) leaves the trigger in its place, before_augment moves it",
        choices=("after_augment", "before_augment"),
    ),
    "hide": Key(
        0.0,
        "an attacker who trains against the audit: strength of a term that lowers how alike the images' "
        "gradients of the target's log-odds are",
        low=0,
        determines=("train",),
    ),
}
WARP = {
    "k": Key(4, "points of noise along each side of the image", low=1, high=1000),
    "strength": Key(0.5, "of the displacement, in warp.unit", low=0),
    "unit": Key(
        "s",
        "s: WaNet's, a displacement of s / H on a grid that spans 2; fraction: s = strength * H",
        choices=("s", "fraction"),
    ),
    "grid_rescale": Key(1.0, "factor on the grid", low=1e-3),
    "cross_ratio": Key(
        0.0, "noise mode: images warped at random, labels kept, for each one poisoned (WaNet: 2)", low=0
    ),
}
PENALTY = {
    "kappa": Key(0.0, "strength of the gradient penalty; 0 trains without double backprop", low=0),
    "reduction": Key(
        "listing",
        "what kappa times mean_i |grad_x L_i|^2 is multiplied by: listing 1/B for B images a batch, "
        "per_example 1, eq25 1/2",
        choices=("listing", "per_example", "eq25"),
    ),
    "batch_norm": Key(
        "train", "statistics in the penalty: the batch's (Listing 1), or running", choices=("train", "frozen")
    ),
    "epsilon": Key(0.0, "instead of kappa: L2 radius of adversarial training, in normalised pixels", low=0),
    "steps": Key(1, "of the adversarial perturbation: 1 is FGSM, more are PGD", low=1, high=1000),
}
TRAIN = {
    "epochs": Key(90, "passes over the training images", low=1, high=1_000_000),
    "batch_size": Key(128, "images a step, over all devices", low=1),
    "learning_rate": Key(0.1, "at the start", low=0),
    "momentum": Key(0.9, "of the updates", low=0, high=1),
    "weight_decay": Key(5e-4, "times every parameter, added to its gradient", low=0),
    "decay_factor": Key(0.1, "of the learning rate, at each decay", low=0),
    "decay_times": Key(
        2,
        "decays, evenly spaced: 2 means after every third of the epochs; those on one epoch count once",
        low=0,
        high=1000,
    ),
    "deterministic": Key(
        False,
        "on NVIDIA GPUs: sums in one order, so that a run gives the same bits each time; slower",
        determines=("train",),
    ),
    "remat": Key(
        False,
        "on GPUs and TPUs: a third of a penalised step's memory for more time; what is inside a block is "
        "computed again in the gradients (a network of your own: what is inside its flax.linen.remat)",
        determines=("train",),
    ),
    "init_from": Key(
        "", "run directory whose network the training starts from; '': fresh weights", determines=("train",)
    ),
}
SPECTRUM = {
    "k": Key(5, "eigenpairs reported", low=1, stages=EIGENPAIRS),
    "num_iters": Key(
        10, "Lanczos steps; the paper's 10 are often too few: see the residuals", low=1, stages=EIGENPAIRS
    ),
    "num_examples": Key(
        1024, "training images averaged over, at most", low=1, stages=(*EIGENPAIRS, "near_clone")
    ),
    "data": Key(
        "clean",
        "images as the stochastic defender (clean) or the deterministic one (poisoned) has them",
        choices=("clean", "poisoned"),
        stages=EIGENPAIRS,
    ),
    "batch_size": Key(128, "images at once; memory grows with it, the result does not change", low=1),
    "per_class": Key(False, "the top eigenpairs of each class's Hessian, too", stages=EIGENPAIRS),
}
ANALYSIS = {
    "features": Key(
        1000,
        "test images whose features are looked at (Figures 1 to 3, Table 3)",
        low=0,
        stages=("features",),
    ),
    "near_clone": Key(
        0,
        "triggered test images at which the theory is compared with the network",
        low=0,
        stages=("near_clone",),
    ),
    "collapse": Key(0, "training images for NC1 to NC4 after every epoch of training", low=0),
    "fisher": Key(
        0,
        "training images for the input Fisher (eq. 29): after every epoch, and its eigenvectors",
        low=0,
        stages=("fisher",),
    ),
    "audit": Key(0, "test images for the statistics of the audit", low=0, stages=("audit",)),
}
KRR = {
    "data": Key(("mnist", "cifar10"), "data sets that the laws are measured on; () for none", each=str),
    "num_points": Key(5000, "clean training points, the first in stored order", low=2),
    "num_triggered": Key(100, "triggered test points x0, the first non-target ones", low=1),
    "lengthscales": Key(
        (0.5, 1.0, 2.0), "of the Gaussian kernel, in units of the median distance", low=1e-3, each=float
    ),
    "ridges": Key((0.01, 0.1, 1.0, 10.0), "c = n lambda, the full diagonal term", low=1e-9, each=float),
    "lengthscale": Key(1.0, "of the approach to a clone and of the penalised fits", low=1e-3),
    "ridge": Key(0.1, "c of these", low=1e-9),
    "clones": Key(
        (1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100), "m: copies of the poison", low=1, high=10**9, each=int
    ),
}
LINEAR = {
    "fractions": Key(
        (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3),
        "theta, for poison.fraction",
        low=0,
        high=1,
        each=float,
    ),
    "picture": Key(0.1, "theta of the weights in Figure 4, one of linear.fractions", low=0, high=1),
    "seeds": Key((0, 1, 2), "of who is poisoned and of the SGD's order", low=0, high=9999, each=int),
    "ridges": Key(
        (400.0, 1600.0, 12800.0),
        "c, added to the diagonal of X'X; the exact fit comes besides",
        low=1e-9,
        each=float,
    ),
}

GROUPS = (
    Group("", "the run", RUN, RUNS),
    Group("compare", "experiment=compare", COMPARE, ()),
    Group("sweep", "experiment=sweep", SWEEP, ()),
    Group("data", "images", DATA, ("train", "mnist_linear")),
    Group("model", "the network", MODEL, ("train",)),
    Group("poison", "the attack", POISON, RUNS),
    Group("poison.warp", "poison.trigger=warp (WaNet)", WARP, RUNS),
    Group("penalty", "the defence", PENALTY, ("train",)),
    Group("train", "SGD", TRAIN, ("train", "mnist_linear")),
    Group("spectrum", "the input Hessian of a trained network", SPECTRUM, ()),
    Group("analysis", "what else is looked at in a trained network, in images; 0: not at all", ANALYSIS, ()),
    Group("krr", "experiment=krr_theory", KRR, ("krr_theory",)),
    Group("linear", "experiment=mnist_linear", LINEAR, ("mnist_linear",)),
)
# By dotted name.
KEYS = {
    f"{group.name}.{name}".lstrip("."): (
        key if key.determines is not None else key._replace(determines=group.determines)
    )
    for group in GROUPS
    for name, key in group.keys.items()
}
# A key whose default changes gets a line here with the default that it was added with, for good: a run's name
# is made of the keys that differ from that one, and finished runs keep their names.
FIRST_DEFAULTS: dict[str, Any] = {}
# Keys of older versions that changed no result: a stored config may still hold them.
GONE = ("train.together", "model.remat")
