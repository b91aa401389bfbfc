"""A run's `evaluation/` folder: figures, tables and machine-readable results."""

import csv
import json
from pathlib import Path

import numpy as np

from cifar10.evaluation.figures import confusion_matrix_figure, learning_curves_figure, save_figure
from cifar10.evaluation.metrics import format_per_class


def write_evaluation(run: Path, logits: np.ndarray, labels: np.ndarray, scores: dict, provenance: dict) -> Path:
    """Write everything that is known of a run's test predictions into `run/evaluation` and return that folder.

    logits: float (N, C). labels: int (N,). scores: of `classification_metrics`. provenance: what was evaluated, on
    what, with "name" (the run's), "data" (the source's name) and "synthetic" (whether its images are drawn).
    """
    folder = run / "evaluation"
    folder.mkdir(exist_ok=True)
    class_names = [row["class"] for row in scores["per_class"]]
    subject = f"{provenance['name']} on {provenance['data']}"
    note = f"{subject}, test split: accuracy {scores['acc']:.4f}"
    confusion = confusion_matrix_figure(scores["confusion_matrix"], class_names, note)
    save_figure(confusion, folder / "confusion_matrix.png")
    rows = read_epochs(run / "metrics.csv")
    if rows:
        switch = next((row["epoch"] for row in rows if row.get("phase") == 2), None)
        save_figure(learning_curves_figure(rows, switch, subject), folder / "learning_curves.png")
    (folder / "per_class.txt").write_text(f"{note}\n\n{format_per_class(scores)}\n")
    np.savez_compressed(
        folder / "predictions.npz", logits=logits.astype(np.float32), labels=labels, class_names=np.array(class_names)
    )
    results = provenance | {"test/acc": scores["acc"], "test/loss": scores["loss"]} | scores
    (folder / "metrics.json").write_text(json.dumps(results, indent=2) + "\n")
    return folder


def read_epochs(path: Path) -> list[dict[str, float]]:
    """The rows of a run's metrics.csv, an epoch each, without their empty cells; none if there is no such file."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        rows = [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]
    return [row | {"epoch": int(row["epoch"])} for row in rows]
