"""Does the audit work? Digits: clean references, held-out clean networks, and attacked ones.

python main.py --config=configs/sweeps/audit_digits.py

References have the seeds from 1000 on (`references` trains the same). Attacked networks have targets of their
own; those of Figure 6 are there too, for the map over theta and kappa. With kappa = 300 the attacker, and so
the recipe, has the penalty; with kappa = 10 the defender, who holds the training data and trains in order to
look. Clean networks of other recipes say what the wrong references do. The last ones' attacker trains against
the common gradient, with poison and without. 564 networks: 387 of
them took an hour and three quarters on two CPU cores, beside other work.
"""

from configs import common


def get_config(size=""):
    config = common.sweep("audit-digits", size, common.DIGITS)
    config.analysis.audit = 512
    theta, kappa = "poison.fraction", "penalty.kappa"
    recipes = ((12, 5e-4), (40, 1e-2), (80, 5e-3), (80, 2e-2), (160, 1e-2))
    config.sweep.grids = (
        common.clean_networks(99, 50),
        common.attacked_networks(10, common.ATTACKS, (0.01, 0.02, 0.05, 0.1)),
        common.clean_networks(39, 20, kappa=300.0),
        common.attacked_networks(6, common.ATTACKS[:3:2], (0.02, 0.05, 0.1), kappa=300.0),
        common.clean_networks(19, 20, kappa=10.0),
        common.attacked_networks(3, common.ATTACKS, (0.01, 0.02, 0.1), kappa=10.0),
        (
            ("seed", tuple(range(5))),
            ("train.epochs,train.weight_decay", recipes),
            (theta, (0.0,)),
            (kappa, (0.0,)),
        ),
        (("seed", (0, 1, 2)), (theta, (0.002, 0.005, 0.01, 0.02, 0.05, 0.1)), (kappa, (0.0, 300.0))),
        (*common.attacked_networks(6, common.ATTACKS[:3], (0.1,)), ("poison.hide", (1.0,))),
        (("seed", tuple(range(6))), (theta, (0.0,)), (kappa, (0.0,)), ("poison.hide", (1.0,))),
    )
    return config
