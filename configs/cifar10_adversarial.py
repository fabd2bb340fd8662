"""CIFAR-10, L trigger: the gradient penalty beside L2 adversarial training (Remark 3.14).

    python main.py --config=configs/cifar10_adversarial.py          the paper's scale, for a GPU or TPU
    python main.py --config=configs/cifar10_adversarial.py:small    4,000 images, PreResNet-20, 45 epochs
    python main.py --config=configs/cifar10_adversarial.py:short    5,000 images, PreResNet-8, 8 epochs

To first order the one penalises the squared input-gradient norm, the other the norm (eqs. 33 and 34). The
arms trace the frontier of both: clean accuracy against attack success. `python -m plots frontier RUN ...`
draws it.
"""

from configs import common


def get_config(size=""):
    config = common.network(common.CIFAR10, size)
    config.name = "cifar10_adversarial"
    config.experiment = "compare"
    config.compare.key = "penalty.kappa,penalty.epsilon"
    config.poison.fraction = 0.1 if size else 0.02
    kappas = (15.0, 50.0) if size else (100.0, 1000.0, 10_000.0)
    epsilons = (0.25, 1.0) if size else (0.1, 0.25, 0.5, 1.0)
    config.compare.arms = ((0.0, 0.0), *((k, 0.0) for k in kappas), *((0.0, e) for e in epsilons))
    return config
