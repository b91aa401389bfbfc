"""How long a run trains, over all its parts, and how long it may."""

from pytorch_lightning.callbacks import Timer


class TrainingTimer(Timer):
    """Lightning's Timer, whose limit counts from the start of the process: a run that used up its time can be resumed.

    duration: as in `trainer.max_time`, "DD:HH:MM:SS"; None: no limit. Training then stops at the next step,
    validates and saves.
    """

    changes_training = False

    def __init__(self, duration: str | None = None):
        super().__init__(duration)
        self.earlier = 0.0  # seconds of training in earlier parts

    @property
    def training_seconds(self) -> float:
        """Of all parts of the run."""
        return self.earlier + self.time_elapsed()

    def state_dict(self) -> dict:
        return {"training_seconds": self.training_seconds}

    def load_state_dict(self, state_dict: dict) -> None:
        self.earlier = state_dict.get("training_seconds", 0.0)
