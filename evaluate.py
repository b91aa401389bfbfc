"""A finished run on the test split: predict -> score -> figures; the only place that opens the test images.

python evaluate.py                                  the newest run under outputs/
python evaluate.py run=outputs/cnn/2026-01-31_12-00-00
"""

import logging

from omegaconf import DictConfig

from cifar10.cli import command

log = logging.getLogger("evaluate")


@command("evaluate")
def main(cfg: DictConfig) -> None:
    """Rebuild the run's data and model, predict the test split, and write the run's `evaluation/` folder."""
    from cifar10 import runs
    from cifar10.evaluation import metrics, report

    run = runs.load_run(cfg.run, cfg.checkpoint, cfg.data_root, cfg.batch_size)
    log.info(f"{run.folder}: {cfg.checkpoint}.ckpt on the test images of {run.datamodule.source.name}")
    logits, labels = runs.predict(run, cfg.accelerator)
    scores = metrics.classification_metrics(logits, labels, run.model.class_names)
    folder = report.write_evaluation(run.folder, logits, labels, scores, runs.provenance(run, cfg.checkpoint))
    log.info(metrics.format_per_class(scores))
    log.info(
        f"test accuracy {scores['acc']:.4f}, loss {scores['loss']:.4f} on {scores['n']:,} images of"
        f" {run.datamodule.source.name}\n{', '.join(sorted(path.name for path in folder.iterdir()))} are in {folder}"
    )


if __name__ == "__main__":
    main()
