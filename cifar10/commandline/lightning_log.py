"""What Lightning may say in a log: what was asked for, and not what it says of every run."""

import logging
import warnings

ADVICE = (  # on things that are deliberate
    *("modules in eval mode", "smaller than the logging interval", "exists and is not empty", "LeafSpec"),
    "but have no logger configured",  # metrics are logged for anything that reads them
    "sync_dist=True",  # what is logged is already summed over the processes
)
REMARKS = (  # in every run, on what the log says anyway or nobody asked for
    *("GPU available", "TPU available", "HPU available", "LOCAL_RANK", "\N{ELECTRIC LIGHT BULB}", "Using "),
    *("Loading `train_dataloader`", "Trainer already configured", "Ignoring `Trainer(max_time", "You are using a CUDA"),
    *("Restoring states", "Restored all states", "Loaded model weights", "`Trainer.fit` stopped"),
)


def filter_lightning() -> None:
    """Let summaries, profiles and the reasons for stopping through, and leave out `ADVICE` and `REMARKS`."""
    for advice in ADVICE:
        warnings.filterwarnings("ignore", message=f".*{advice}.*")
    for library in ("pytorch_lightning", "lightning_fabric", "lightning.fabric"):
        logging.getLogger(library).setLevel(logging.WARNING)
    for module in ("utilities.rank_zero", "callbacks", "profilers", "tuner"):
        logging.getLogger(f"pytorch_lightning.{module}").setLevel(logging.INFO)
    logging.getLogger("pytorch_lightning.utilities.rank_zero").addFilter(is_wanted)


def is_wanted(record: logging.LogRecord) -> bool:
    return record.levelno > logging.INFO or not record.getMessage().strip().startswith(REMARKS)
