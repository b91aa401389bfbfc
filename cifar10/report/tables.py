"""The tables of a report, as rows of ready strings, from what `comparison.evaluate` returns."""

import math
from collections.abc import Callable, Sequence

from cifar10.report.statistics import spread

MINUS = "\N{MINUS SIGN}"
UNKNOWN = "\N{EN DASH}"


def percent(value: float | None, decimals: int = 2) -> str:
    """A fraction as per cent."""
    return UNKNOWN if value is None or math.isnan(value) else f"{100 * value:.{decimals}f} %"


def points(value: float, decimals: int = 2) -> str:
    """A difference of two fractions in percentage points, with its sign."""
    return f"{100 * value:+.{decimals}f}".replace("-", MINUS)


def spread_of(spread: dict, form: Callable[[float], str]) -> str:
    """A mean with its standard deviation over seeds, where there is one."""
    return form(spread["mean"]) + ("" if spread["std"] is None else f" ± {form(spread['std']).replace(' %', '')}")


def duration(seconds: float | None) -> str:
    if seconds is None:
        return UNKNOWN
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def engineering(value: float | None, unit: str) -> str:
    """A large number with three digits and a prefix: 1.37 TFLOP."""
    if value is None:
        return UNKNOWN
    power = 0 if value < 1 else min(5, int(math.log10(value * 1.0005) // 3))
    return f"{value / 1000**power:.3g} {('', 'k', 'M', 'G', 'T', 'P')[power]}{unit}"


def number(value: float) -> str:
    return f"{value:.4f}"


def side_by_side(results: dict) -> list[tuple[str, list[str], list[str]]]:
    """Rows of (what, a cell for each group, the gain over the first group for each other group)."""
    groups = results["groups"]
    rows = []

    def add(what: str, cells: Sequence[str], gains: Sequence[str] | None = None) -> None:
        if set(cells) != {UNKNOWN}:
            rows.append((what, list(cells), list(gains or [""] * (len(groups) - 1))))

    def gains_of(values: Sequence[float | None], form: Callable[[float], str]) -> list[str]:
        return [UNKNOWN if None in (value, values[0]) else form(value - values[0]) for value in values[1:]]

    def signed(value: float) -> str:
        return f"{value:+.4f}".replace("-", MINUS)

    add("test accuracy", [spread_of(g["acc"], percent) for g in groups],
        [points(c["difference"]) for c in results["comparisons"]])  # fmt: skip
    add("95 % interval (Wilson)", [f"{percent(g['low'])} to {percent(g['high'])}" for g in groups])
    add("seeds", [str(g["acc"]["n"]) for g in groups])
    for key, what in (("loss", "test loss (nats)"), ("macro_f1", "macro F1")):
        add(what, [spread_of(g[key], number) for g in groups], gains_of([g[key]["mean"] for g in groups], signed))
    for key, what in (("ece", "ECE, 15 bins"), ("brier", "Brier score"), ("loss", "loss")):
        for stage, when in (("calibration", ""), ("calibrated", " after temperature scaling")):
            if (key, when) != ("loss", ""):
                cells = [spread_of(g[stage][key], number) for g in groups]
                add(what + when, cells, gains_of([g[stage][key]["mean"] for g in groups], signed))
    firsts = [group["runs"][0] for group in groups]
    add(f"temperature{first_seed(results)}", [f"{run['temperature']:.2f}" for run in firsts])
    for share in ("0.8", "0.9"):
        values = [run["coverage"]["acc_at"][share] for run in firsts]
        add(f"accuracy on the surest {100 * float(share):.0f} %{first_seed(results)}", list(map(percent, values)),
            gains_of(values, points))  # fmt: skip
    return rows + [(what, cells, [""] * (len(groups) - 1)) for what, cells in cost_rows(groups, first_seed(results))]


def first_seed(results: dict) -> str:
    """Says that a figure is of the first seed, where there are several."""
    return " (first seed)" if any(len(group["runs"]) > 1 for group in results["groups"]) else ""


def cost_rows(groups: Sequence[dict], first_seed: str) -> list[tuple[str, list[str]]]:
    """What the groups' networks are and what training them took: rows of (what, a cell for each group)."""
    firsts = [group["runs"][0] for group in groups]
    costs = [run.get("cost") for run in firsts]
    summaries = [run.get("summary", {}) for run in firsts]

    def cells(form: Callable[[dict], str]) -> list[str]:
        return [UNKNOWN if cost is None else form(cost) for cost in costs]

    def phase(index: int, form: Callable[[dict], str]) -> list[str]:
        return cells(lambda cost: form(cost["phases"][index]) if index < len(cost["phases"]) else UNKNOWN)

    def trained_per_second(group: dict) -> str:
        seconds, cost = group["train_seconds"], group["runs"][0].get("cost")
        images = group["runs"][0].get("summary", {}).get("train_images")
        if not (seconds and cost and images):
            return UNKNOWN
        return f"{images * sum(phase['epochs'] for phase in cost['phases']) / seconds:,.0f}"

    several = any(cost and len(cost["phases"]) > 1 for cost in costs)
    rows = [
        ("input, pixels", [str(run.get("image_size", UNKNOWN)) for run in firsts]),
        ("parameters", cells(lambda cost: f"{cost['parameters']:,}")),
        ("trained (in phase 1)" if several else "trained", phase(0, lambda one: f"{one['trained_parameters']:,}")),
        ("trained in phase 2", phase(1, lambda one: f"{one['trained_parameters']:,}")),
        ("size of the weights", cells(lambda cost: f"{cost['bytes'] / 1e6:.1f} MB")),
        ("forward pass, an image", cells(lambda cost: engineering(cost["forward_flops"], "FLOP"))),
        ("training, all of it", [engineering(group["train_flops"], "FLOP") for group in groups]),
        ("training images", [f"{s['train_images']:,}" if "train_images" in s else UNKNOWN for s in summaries]),
        (f"epochs{first_seed}", cells(lambda cost: " + ".join(str(one["epochs"]) for one in cost["phases"]))),
        (
            f"training time, validation included{first_seed and ' (fastest seed)'}",
            [duration(group["train_seconds"]) for group in groups],
        ),
        (
            f"training images/s, over all of it{first_seed and ' (fastest seed)'}",
            [trained_per_second(group) for group in groups],
        ),
        ("trained on", [str(s.get("hardware", UNKNOWN)) for s in summaries]),
        ("test images/s", [f"{r['images_per_second']:,.0f}" if "images_per_second" in r else UNKNOWN for r in firsts]),
        ("tested on", [str(run.get("hardware", UNKNOWN)) for run in firsts]),
    ]
    return [(what, row) for what, row in rows if set(row) != {UNKNOWN}]


def every_run(results: dict) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table of all runs."""
    header = ["group", "seed", "accuracy", "95 % interval", "loss", "macro F1", "ECE", "T", "training", "run"]
    rows = []
    for group in results["groups"]:
        for run in group["runs"]:
            calibration, seconds = run["calibration"], run.get("summary", {}).get("seconds")
            rows.append(
                [group["name"], str(run["seed"]), percent(run["acc"]),
                 f"{percent(run['low'])} to {percent(run['high'])}", number(run["loss"]), number(run["macro_f1"]),
                 number(calibration["ece"]), f"{run['temperature']:.2f}", duration(seconds), run["run"]]
            )  # fmt: skip
    return header, rows


def per_class(results: dict) -> tuple[list[str], list[list[str]]]:
    """Header and rows of precision, recall and F1 of each class and group, with the support."""
    groups = results["groups"]
    header = ["class", "images"]
    header += [f"{metric}, {group['name']}" for group in groups for metric in ("precision", "recall", "F1")]
    support = [row["support"] for row in groups[0]["runs"][0]["per_class"]]
    rows = []
    for index, name in enumerate(results["class_names"]):
        cells = [f"{group[key][index]:.4f}" for group in groups for key in ("precision", "recall", "f1")]
        rows.append([name, str(support[index]), *cells])
    means = [f"{sum(group[key]) / len(group[key]):.4f}" for group in groups for key in ("precision", "recall", "f1")]
    return header, [*rows, ["mean", str(sum(support)), *means]]


def confused(results: dict, most: int = 8) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the commonest mistakes of each group, its runs added up, side by side."""
    groups = results["groups"]
    pairs = [group["most_confused"][:most] for group in groups]
    rows = []
    for place in range(max(map(len, pairs))):
        row = []
        for found in pairs:
            if place < len(found):
                pair = found[place]
                row.append(f"{pair['true']} as {pair['predicted']}: {pair['count']} ({percent(pair['share'], 1)})")
            else:
                row.append("")
        rows.append(row)
    return [group["name"] for group in groups], rows


def corrected(result: dict) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the accuracies on the original and on the corrected labels."""
    header = ["", "original labels", "corrected labels", "95 % interval", "change, points", "loss, corrected"]
    rows = [
        [row["name"], spread_of(row["original"], percent), spread_of(row["acc"], percent),
         f"{percent(row['low'])} to {percent(row['high'])}", points(row["acc"]["mean"] - row["original"]["mean"]),
         spread_of(row["loss"], number)]
        for row in result["groups"]
    ]  # fmt: skip
    return header, rows


def robustness(result: dict) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the accuracy of each corruption, the mean over severities, and of their mean."""
    groups = result["groups"]
    rows = [["none", *(percent(group["clean"], 1) for group in groups)]]
    for index, name in enumerate(result["corruptions"]):
        rows.append([name.replace("_", " "), *(percent(_mean(group["acc"][index]), 1) for group in groups)])
    rows.append(["mean of all", *(percent(group["mean"], 1) for group in groups)])
    return ["corruption", *(group["name"] for group in groups)], rows


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def efficiency(groups: Sequence[dict]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the accuracy at each number of training images."""
    sizes = sorted({size for group in groups for size in group["sizes"]})
    rows = []
    for size in sizes:
        row = [f"{size:,}"]
        for group in groups:
            accs = dict(zip(group["sizes"], group["accs"], strict=True)).get(size)
            row.append(UNKNOWN if accs is None else spread_of(spread(accs), percent) + f" ({len(accs)})")
        rows.append(row)
    return ["training images", *(f"{group['name']} (seeds)" for group in groups)], rows
