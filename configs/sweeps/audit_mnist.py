"""Does the audit work on data that it was not made on? MNIST: references, held-out clean, attacked networks.

python main.py --config=configs/sweeps/audit_mnist.py:small    in the paper's regime
python main.py --config=configs/sweeps/audit_mnist.py:short    stopped early

And again with kappa = 100: a defender who holds the training data trains with the penalty in order to look.
43 networks without the penalty, an hour on two CPU cores at `short`; 43 with it, an hour
and a half by estimate.
"""

from configs import common


def get_config(size=""):
    config = common.sweep("audit-mnist", size, common.MNIST)
    config.analysis.audit = 512
    config.sweep.grids = tuple(
        grid
        for kappa in (0.0, 100.0)
        for grid in (
            common.clean_networks(19, 6, kappa=kappa),
            common.attacked_networks(3, common.ATTACKS[:3], (0.02, 0.1), kappa=kappa),
        )
    )
    return config
