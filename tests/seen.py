"""A callback that notes which images a process has seen, for tests of several processes."""

import hashlib
import json
from collections import Counter
from pathlib import Path

import pytorch_lightning as pl

from cifar10.data.feature_cache import Features


class Seen(pl.Callback):
    """Writes `folder`/RANK.json: a digest of every input of each stage and epoch, and the process's final metrics."""

    def __init__(self, folder: str):
        self.folder, self.inputs = Path(folder), {}

    def note(self, trainer: pl.Trainer, stage: str, batch) -> None:
        images = batch[0].values if isinstance(batch[0], Features) else batch[0]
        digests = [hashlib.md5(image.contiguous().numpy().tobytes()).hexdigest() for image in images]
        self.inputs.setdefault(f"{stage} {trainer.current_epoch}", []).extend(digests)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        self.note(trainer, "train", batch)

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        if trainer.state.fn == "fit":
            self.note(trainer, "val", batch)

    def on_validation_end(self, trainer, pl_module) -> None:
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        written = {"inputs": self.inputs, "metrics": metrics, "counted": int(pl_module.val_metrics.confusion.sum())}
        self.folder.mkdir(exist_ok=True)
        (self.folder / f"{trainer.global_rank}.json").write_text(json.dumps(written))


def read(folder: Path, processes: int) -> tuple[dict[str, Counter], list[dict]]:
    """How often all processes together saw each input, by stage and epoch, and what each process wrote."""
    written = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(processes)]
    assert len(list(folder.iterdir())) == processes
    return {
        key: sum((Counter(each["inputs"][key]) for each in written), Counter()) for key in written[0]["inputs"]
    }, written
