"""The bar counts as the log does."""

import pytorch_lightning as pl

from cifar10.callbacks.progress_bar import ProgressBar
from cifar10.models.scratch import ScratchClassifier


def test_epochs_count_from_one_and_nothing_but_metrics_stands_behind_the_bar(datamodule, capsys, tmp_path):
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=2, callbacks=[ProgressBar()], default_root_dir=tmp_path,
        logger=pl.loggers.CSVLogger(tmp_path), enable_checkpointing=False, enable_model_summary=False,
        num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(ScratchClassifier(datamodule.class_names), datamodule)
    shown = capsys.readouterr().out
    assert "epoch 1/2:" in shown and "epoch 2/2:" in shown
    assert "train/loss=" in shown and "val/acc=" in shown
    assert not any(name in shown for name in ("v_num", "macro_f1", "balanced_acc"))
