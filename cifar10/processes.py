"""Several processes that train together: Lightning starts the command again for each further GPU."""

import os
import time

IS_FURTHER = os.environ.get("LOCAL_RANK", "0") != "0"  # not the first, which speaks and writes for all
PARENT = os.getppid()
REPLAYED = "CIFAR10_REPLAYED"  # the environment variable that says: these arguments are a run's own already
SWEEP = "CIFAR10_SWEEP_FOLDER"  # the environment variable in which the first tells the others where its sweep is


def first_process_ends(seconds: float = 5.0) -> bool:
    """Whether this process is a further one, and the first, which started it, ends as well: it has said why."""
    until = time.monotonic() + seconds
    while IS_FURTHER and os.getppid() == PARENT and time.monotonic() < until:
        time.sleep(0.05)
    return IS_FURTHER and os.getppid() != PARENT


def sweep_arguments() -> list[str]:
    """What makes a further process's sweep the first one's: in its folder, and silent."""
    if not IS_FURTHER or SWEEP not in os.environ:
        return []
    return [f"hydra.sweep.dir='{os.environ[SWEEP]}'", "hydra/hydra_logging=disabled"]
