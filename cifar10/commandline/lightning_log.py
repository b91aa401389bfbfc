"""What Lightning may say in a log: what was asked for, and not what it says of every run."""

import logging
import os
import time
import warnings

from cifar10.processes import JOB

ADVICE = (  # on things that are deliberate
    *("modules in eval mode", "smaller than the logging interval", "exists and is not empty", "LeafSpec"),
    "but have no logger configured",  # metrics are logged for anything that reads them
    "doesn't support sharding model layers",  # which `build_sharding` refuses
    "returned a view tensor",  # nothing changes it in place
    "Total length of `list` across ranks is zero",  # data.val_size=0
    "sync_dist=True",  # what is logged is already summed over the processes
)
REMARKS = (  # in every run, on what the log says anyway or nobody asked for
    *("GPU available", "TPU available", "HPU available", "LOCAL_RANK", "\N{ELECTRIC LIGHT BULB}", "Using "),
    *("Loading `train_dataloader`", "Trainer already configured", "Ignoring `Trainer(max_time", "You are using a CUDA"),
    *("Restoring states", "Restored all states", "Loaded model weights", "`Trainer.fit` stopped"),
)

# A thread that looks every five seconds whether another process has died, says so and kills this one.
OBSERVER = "lightning_fabric.strategies.launchers.subprocess_script"
SPEAKERS = (
    *(f"pytorch_lightning.{module}" for module in ("utilities.rank_zero", "callbacks", "profilers", "tuner")),
    OBSERVER,
)


def filter_lightning() -> None:
    """Let summaries, profiles and the reasons for stopping through, and leave out `ADVICE` and `REMARKS`.

    On the handlers of the log, for Lightning sets the levels of its loggers when it is imported. Imported before there
    was a log, as by a resumed run, it has handlers of its own.
    """
    for name in ("pytorch_lightning", "lightning_fabric"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    for advice in ADVICE:
        warnings.filterwarnings("ignore", message=f".*{advice}.*")
    for handler in logging.getLogger().handlers:
        handler.addFilter(is_wanted)
    logging.getLogger(OBSERVER).addFilter(wait_for_main_thread)


def is_wanted(record: logging.LogRecord) -> bool:
    if not record.name.startswith(("pytorch_lightning", "lightning")) or record.levelno > logging.INFO:
        return True
    return record.name.startswith(SPEAKERS) and not record.getMessage().strip().startswith(REMARKS)


def wait_for_main_thread(record: logging.LogRecord) -> bool:
    """Before the observer speaks and kills: time for the job to end with its own error, unless it hangs."""
    job = os.environ.get(JOB)
    time.sleep(10)
    if os.environ.get(JOB) != job:
        raise SystemExit  # the observer ends, and the sweep's next job goes on
    return True
