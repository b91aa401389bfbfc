"""Several processes that train together: Lightning starts the command again for each additional device."""

import os
import time

from cifar10.run_folder import quoted

RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID")  # as torchrun, Lightning and srun set them
is_worker = any(os.environ.get(name, "0") != "0" for name in RANKS)  # not rank 0, which speaks and writes for all
PARENT = os.getppid()
SWEEP = "CIFAR10_SWEEP_FOLDER"  # the environment variable in which rank 0 tells its workers where its sweep is


def rank_zero_ends(seconds: float = 5.0) -> bool:
    """Whether this is a worker whose rank 0, which started it, is ending too: rank 0 has reported why."""
    until = time.monotonic() + seconds
    while is_worker and os.getppid() == PARENT and time.monotonic() < until:
        time.sleep(0.05)
    return is_worker and os.getppid() != PARENT


def sweep_arguments() -> list[str]:
    """The arguments that make a worker's sweep that of rank 0: in its folder, and silent."""
    if not is_worker or SWEEP not in os.environ:
        return []
    return [f"hydra.sweep.dir={quoted(os.environ[SWEEP])}", "hydra/hydra_logging=disabled"]
