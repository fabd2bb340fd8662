"""Does the audit work on data that it was not made on? MNIST: references, held-out clean, attacked networks.

python main.py --config=configs/sweeps/audit_mnist.py:small    in the paper's regime
python main.py --config=configs/sweeps/audit_mnist.py:short    stopped early

43 networks: two hours on two CPU cores, at `short` half an hour, by the estimates of --dry_run.
"""

from configs import common


def get_config(size=""):
    config = common.sweep("audit-mnist", size, common.MNIST)
    config.analysis.audit = 512
    config.sweep.grids = (
        common.clean_networks(19, 6),
        common.attacked_networks(3, common.ATTACKS[:3], (0.02, 0.1)),
    )
    return config
