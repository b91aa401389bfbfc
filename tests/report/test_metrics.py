"""`cifar10.report.metrics` against hand computation, scikit-learn and the original notebook."""

import json
import math

import numpy as np
import pytest
import torch
from sklearn.metrics import classification_report

from cifar10.report.metrics import classification_metrics, format_per_class

CIFAR10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]

# test confusion matrices of the original Keras notebook, rows true
CNN = """
    754  15  67  16  21   7   7  12  56  45
     27 803   7   6   9   7   5   7  25 104
     64   4 625  43  70  93  49  27  12  13
     16   5  68 510  55 184  73  43  17  29
     19   4  92  68 630  32  64  80   5   6
      6   2  71 142  51 631  24  60   4   9
     11   3  49  82  37  19 770   5   6  18
     13   3  34  38  65  92   3 729   4  19
     78  32  16  14   7   8   6   2 793  44
     24  47  12  16   4   8   4  19  20 846"""
EFFICIENTNET = """
    960   0   4   3   2   0   1   1  20   9
      4 969   0   2   0   0   1   0   5  19
     13   0 928  13  21   9  11   4   1   0
      1   1  11 866  14  86  11   6   0   4
      4   0   8  11 944   6   8  18   1   0
      1   0   1  49   8 932   1   6   0   2
      1   0   7   8   1   2 979   0   2   0
      5   0   3   1  11  14   0 965   0   1
     16   3   2   0   1   0   0   0 976   2
      4  21   0   0   0   0   0   1   7 967"""


def parse(text: str) -> np.ndarray:
    return np.array(text.split(), dtype=int).reshape(10, 10)


def outcomes(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logits and labels whose confusion matrix is the given one."""
    true, predicted = np.indices(matrix.shape).reshape(2, -1)
    counts = matrix.ravel()
    return np.eye(len(matrix))[np.repeat(predicted, counts)], np.repeat(true, counts)


@pytest.mark.parametrize(
    ("text", "acc", "f1"),
    [
        (CNN, 0.7091, {"cat": 0.53, "bird": 0.61, "dog": 0.61}),
        (EFFICIENTNET, 0.9486, {"cat": 0.89, "dog": 0.91, "deer": 0.94}),
    ],
)
def test_the_original_matrices_give_the_original_figures(text, acc, f1):
    metrics = classification_metrics(*outcomes(parse(text)), CIFAR10)
    assert metrics["n"] == 10_000
    assert metrics["acc"] == pytest.approx(acc, abs=1e-12)
    assert metrics["confusion_matrix"] == parse(text).tolist()
    found = {row["class"]: row["f1"] for row in metrics["per_class"]}
    assert {name: round(found[name], 2) for name in f1} == f1
    assert sorted(found, key=found.get)[: len(f1)] == sorted(f1, key=found.get)


def test_a_small_case_agrees_with_hand_computation():
    logits = np.log([[3, 1, 1], [1, 3, 1], [1, 3, 1], [1, 1, 8]])  # probabilities 3/5 1/5 1/5, ..., 1/10 1/10 8/10
    metrics = classification_metrics(logits, np.array([0, 0, 1, 2]), ["a", "b", "c"])
    assert metrics["acc"] == 0.75
    assert metrics["loss"] == pytest.approx(-(math.log(0.6) + math.log(0.2) + math.log(0.6) + math.log(0.8)) / 4)
    assert metrics["confusion_matrix"] == [[1, 1, 0], [0, 1, 0], [0, 0, 1]]
    assert metrics["macro_f1"] == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    a, b, c = metrics["per_class"]
    assert a == {"class": "a", "precision": 1.0, "recall": 0.5, "f1": pytest.approx(2 / 3), "support": 2}
    assert b == {"class": "b", "precision": 0.5, "recall": 1.0, "f1": pytest.approx(2 / 3), "support": 1}
    assert c == {"class": "c", "precision": 1.0, "recall": 1.0, "f1": 1.0, "support": 1}


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_loss_is_torchs_cross_entropy_in_float64_whatever_the_logits_dtype(dtype):
    rng = np.random.default_rng(0)
    logits = (rng.normal(size=(20_000, 10)) * 5).astype(dtype)
    labels = rng.integers(0, 10, 20_000)
    expected = torch.nn.functional.cross_entropy(torch.tensor(logits).double(), torch.tensor(labels)).item()
    assert classification_metrics(logits, labels, CIFAR10)["loss"] == pytest.approx(expected, rel=1e-12)


def test_huge_logits_do_not_overflow():
    logits = np.array([[60_000, 0], [0, 60_000]], dtype=np.float16)
    assert classification_metrics(logits, np.array([0, 1]), ["a", "b"])["loss"] == 0.0
    wrong = np.array([1, 0])
    loss = classification_metrics(logits, wrong, ["a", "b"])["loss"]
    assert loss == pytest.approx(float(logits[0, 0]))


def test_a_tie_goes_to_the_first_class():
    assert classification_metrics(np.zeros((1, 3)), np.array([0]), ["a", "b", "c"])["acc"] == 1.0


@pytest.mark.filterwarnings("error")
def test_classes_without_images_or_predictions_keep_their_place():
    metrics = classification_metrics(np.eye(4)[[1, 1]], np.array([1, 1]), ["a", "b", "c", "d"])
    assert [row["class"] for row in metrics["per_class"]] == ["a", "b", "c", "d"]
    assert [row["support"] for row in metrics["per_class"]] == [0, 2, 0, 0]
    assert [row["f1"] for row in metrics["per_class"]] == pytest.approx([np.nan, 1.0, np.nan, np.nan], nan_ok=True)
    assert metrics["macro_f1"] == metrics["balanced_acc"] == 1.0
    assert np.shape(metrics["confusion_matrix"]) == (4, 4)
    (line,) = [line for line in format_per_class(metrics).splitlines() if "macro avg" in line]
    assert line.split()[2:5] == ["1.00", "1.00", "1.00"]


def test_the_result_goes_through_json_unchanged():
    metrics = classification_metrics(*outcomes(parse(CNN)), CIFAR10)
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics


def test_the_inputs_stay_as_they_were():
    logits, labels = outcomes(parse(CNN))
    before = logits.copy(), labels.copy()
    classification_metrics(logits, labels, CIFAR10)
    assert np.array_equal(logits, before[0]) and np.array_equal(labels, before[1])


@pytest.mark.parametrize(
    ("logits", "labels", "names", "message"),
    [
        (np.zeros((3, 2)), np.zeros(4, int), ["a", "b"], r"\(3, 2\) and \(4,\)"),
        (np.zeros(3), np.zeros(3, int), ["a", "b"], r"must be \(N, C\)"),
        (np.zeros((3, 2)), np.zeros((3, 1), int), ["a", "b"], r"and \(N,\)"),
        (np.zeros((0, 2)), np.zeros(0, int), ["a", "b"], "N > 0"),
        (np.zeros((3, 2)), np.zeros(3, int), ["a", "b", "c"], "class_names: there are 3, but logits of 2 classes"),
        (np.zeros((3, 2)), np.zeros(3), ["a", "b"], "labels: must be integers from 0 to 1"),
        (np.zeros((3, 2)), np.array([0, 1, 2]), ["a", "b"], "labels: must be integers from 0 to 1"),
        (np.zeros((3, 2)), np.array([0, -1, 1]), ["a", "b"], "labels: must be integers from 0 to 1"),
        (np.array([[0, 1], [np.nan, 1], [0, 1]]), np.zeros(3, int), ["a", "b"], "1 of 3 images are NaN"),
        (np.array([[0, np.inf], [0, 1], [0, 1]]), np.zeros(3, int), ["a", "b"], "1 of 3 images are NaN or infinite"),
    ],
)
def test_inputs_that_do_not_fit_are_refused_in_one_line(logits, labels, names, message):
    with pytest.raises(ValueError, match=message) as caught:
        classification_metrics(logits, labels, names)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", [CNN, EFFICIENTNET])
def test_the_table_is_scikit_learns(text):
    logits, labels = outcomes(parse(text))
    report = classification_report(labels, logits.argmax(axis=1), target_names=CIFAR10)
    assert format_per_class(classification_metrics(logits, labels, CIFAR10)) == report.rstrip()


@pytest.mark.parametrize("names", [["a", "b"], ["a", "an articulated lorry with a trailer and a long name"]])
def test_the_table_is_aligned_for_names_of_any_length(names):
    table = format_per_class(classification_metrics(np.eye(2), np.array([0, 1]), names))
    lines = [line for line in table.splitlines() if line]
    assert len({len(line) for line in lines}) == 1
    for name, line in zip(names, lines[1:], strict=False):
        assert line.lstrip().startswith(f"{name} ")
        assert line.index("1.00") + 4 == lines[0].index("precision") + len("precision")
