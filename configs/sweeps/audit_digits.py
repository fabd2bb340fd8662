"""Does the audit work? Digits: clean references, held-out clean networks, and attacked ones.

python main.py --config=configs/sweeps/audit_digits.py

References have the seeds from 1000 on (`references` trains the same). Attacked networks have targets of their
own; those of Figure 6 are there too, for the map over theta and kappa. With kappa = 300 the attacker, and so
the recipe, has the penalty. Clean networks of other recipes say what the wrong references do. 465 networks:
two hours on two CPU cores by the estimate of --dry_run.
"""

from configs import common

ATTACKS = (  # trigger, labels, opacity
    ("l", "all_to_one", 1.0),
    ("blend", "all_to_one", 0.3),
    ("warp", "all_to_one", 1.0),
    ("l", "clean_label", 1.0),
)


def get_config(size=""):
    config = common.sweep("audit-digits", size, common.DIGITS)
    config.analysis.audit = 512
    theta, kappa, seed = "poison.fraction", "penalty.kappa", "seed"
    attacker, attack = "seed,poison.target", "poison.trigger,poison.labels,poison.alpha"

    def clean(references, held_out, strength):
        seeds = (*range(1000, 1000 + references), *range(held_out))
        return (seed, seeds), (theta, (0.0,)), (kappa, (strength,))

    def attacked(seeds, attacks, thetas, strength):
        targets = tuple((100 + s, (3 * s + 1) % 10) for s in range(seeds))
        return (attacker, targets), (attack, attacks), (theta, thetas), (kappa, (strength,))

    config.sweep.grids = (
        clean(99, 50, 0.0),
        attacked(10, ATTACKS, (0.01, 0.02, 0.05, 0.1), 0.0),
        clean(39, 20, 300.0),
        attacked(6, (ATTACKS[0], ATTACKS[2]), (0.02, 0.05, 0.1), 300.0),
        (
            (seed, tuple(range(5))),
            (
                "train.epochs,train.weight_decay",
                ((12, 5e-4), (40, 1e-2), (80, 5e-3), (80, 2e-2), (160, 1e-2)),
            ),
            (theta, (0.0,)),
            (kappa, (0.0,)),
        ),
        ((seed, (0, 1, 2)), (theta, (0.002, 0.005, 0.01, 0.02, 0.05, 0.1)), (kappa, (0.0, 300.0))),
    )
    return config
