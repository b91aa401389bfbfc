"""One training run: compose -> seed -> build -> fit -> validate the best checkpoint.

python train.py                                            the CNN from scratch
python train.py model=efficientnet_b0 trainer.devices=1    a pretrained backbone in two phases
python train.py -m model=cnn,efficientnet_b0 seed=0,1,2    a sweep
python train.py resume=outputs/cnn/2026-01-31_12-00-00     resume an interrupted run
"""

from omegaconf import DictConfig

from cifar10.commandline.command import Command


def train(cfg: DictConfig) -> float:
    """Train as configured; returns the best checkpoint's validation accuracy, for sweepers to maximise."""
    import pytorch_lightning as pl

    from cifar10.training import build, checks, run

    checks.check_settings(cfg)
    if cfg.trainer.get("fast_dev_run"):
        run.keep_nothing(cfg)
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    datamodule = build.build_data(cfg)
    model = build.build_model(cfg, datamodule)
    trainer = build.build_trainer(cfg)
    if cfg.trainer.get("fast_dev_run"):
        trainer.fit(model, datamodule)
        return float(trainer.callback_metrics.get("val/acc", float("nan")))
    checkpoint = run.restore_point(cfg, trainer)
    run.announce(cfg, model, datamodule, trainer)
    build.check_interval(trainer, datamodule)
    trainer.fit(model, datamodule, ckpt_path=checkpoint, weights_only=True)
    seconds = run.training_seconds(trainer)
    metrics = run.validate_best(model, datamodule, trainer)
    run.conclude(cfg, model, datamodule, trainer, metrics, seconds)
    return metrics.get("val/acc", float("nan"))


if __name__ == "__main__":
    Command("train", train).run()
