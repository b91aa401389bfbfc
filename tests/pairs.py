"""What works with what: choices of a run, rows of them that cover every pair, and the table of docs/.

`pytest --promises` writes the table from the outcome of `test_pairs.py`. Rows of many choices at once cover all pairs
with few runs (pairwise testing: Cohen et al. 1997, "The AETG system").
"""

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import pytest

from tests.conftest import TINY_BACKBONE

TABLE = Path(__file__).parent.parent / "docs" / "what-works-together.md"
B0 = ["model=efficientnet_b0", f"model.backbone={TINY_BACKBONE}", "model.pretrained=false", "data.image_size=32",
      "callbacks.two_phase.head_epochs=1", "callbacks.two_phase.unfreeze_fraction=0.5"]  # fmt: skip
CHOICES: dict[str, list[str]] = {
    "CNN": ["model.network.dropout=0.2", "data.flip=true"],
    "fast CNN": ["model=fast_cnn", "model.network.widths=[4,4,4]"],
    "two phases": B0,
    "cached features": ["callbacks.feature_caching.views=2"],
    "closed-form head": [
        "+callbacks.closed_form_head._target_=cifar10.callbacks.closed_form_head.ClosedFormHead",
        "+callbacks.closed_form_head.shrinkage=0.1",
    ],
    "distillation": [
        "+callbacks.distillation._target_=cifar10.callbacks.distillation.Distillation",
        "+callbacks.distillation.teacher=TEACHER",  # a finished run's folder
    ],
    "EMA": ["average=ema", "callbacks.ema.decay=0.7"],
    "SWA": ["average=swa", "callbacks.swa.start=0.3"],
    "accumulation": ["trainer.accumulate_grad_batches=3"],
    "clipping": ["trainer.gradient_clip_val=0.5"],
    "mixup, cutmix": ["data.mixup_alpha=0.4", "data.cutmix_alpha=1"],
    "balanced sampler": ["data.sampler=balanced"],
    "class weights": ["model.class_weights=balanced"],
    "64-true": ["trainer.precision=64-true"],
    "bf16-mixed": ["trainer.precision=bf16-mixed"],
    "16-mixed": ["trainer.precision=16-mixed"],
    "saves in mid-epoch": ["trainer.checkpoint_every_n_steps=1"],
    "resume in mid-epoch": [],  # a run that is stopped there, and resumed
    "two processes": ["trainer.accelerator=cpu", "trainer.devices=2"],
    "TTA": [],  # when it is evaluated
}
EXCLUSIVE = [{"CNN", "fast CNN", "two phases"}, {"EMA", "SWA"}, {"64-true", "bf16-mixed", "16-mixed"}]
NO_PAIR = {frozenset(pair) for group in EXCLUSIVE for pair in combinations(group, 2)}
REFUSED = {
    frozenset({"CNN", "cached features"}): "callbacks.feature_caching",
    frozenset({"fast CNN", "cached features"}): "callbacks.feature_caching",
    frozenset({"CNN", "closed-form head"}): "callbacks.closed_form_head",
    frozenset({"fast CNN", "closed-form head"}): "callbacks.closed_form_head",
    frozenset({"cached features", "distillation"}): "callbacks.distillation: the teacher needs images",
    frozenset({"cached features", "mixup, cutmix"}): "callbacks.feature_caching.views=2: data.mixup_alpha needs",
    frozenset({"balanced sampler", "class weights"}): "model.class_weights=balanced: data.sampler=balanced does",
}
NEEDS = {"cached features": "two phases", "closed-form head": "two phases"}
# rows that start processes take longest, and so are as few as they can be
IN_TWO_PROCESSES = [
    ["CNN", "distillation", "EMA", "accumulation", "clipping", "mixup, cutmix", "balanced sampler", "64-true",
     "saves in mid-epoch", "resume in mid-epoch", "two processes", "TTA"],
    ["two phases", "cached features", "closed-form head", "SWA", "class weights", "bf16-mixed", "two processes", "TTA"],
    ["fast CNN", "16-mixed", "two processes"],
]  # fmt: skip
ALONE = [name for name in CHOICES if name != "two processes"]


def pairs_of(row: list[str]) -> Iterator[frozenset[str]]:
    return (frozenset(pair) for pair in combinations(row, 2))


def fits(row: list[str], choice: str) -> bool:
    needed = NEEDS.get(choice)
    return choice not in row and (needed is None or needed in row) and not any(
        pair in NO_PAIR or pair in REFUSED for pair in pairs_of([*row, choice]))  # fmt: skip


def covering_rows() -> list[list[str]]:
    """Rows of choices that together cover every pair that can be had, each as long as it can be: greedily."""
    rows: list[list[str]] = []
    missing = {pair for pair in pairs_of(ALONE) if pair not in NO_PAIR and pair not in REFUSED}
    while missing:
        pair = min(missing, key=lambda one: sorted(map(ALONE.index, one)))
        row = [*pair]
        if not pair & {"CNN", "fast CNN", "two phases"}:
            row.append("two phases" if pair & set(NEEDS) or len(rows) % 2 else "CNN")
        while options := [choice for choice in ALONE if fits(row, choice)]:
            row.append(max(options, key=lambda choice: sum(pair in missing for pair in pairs_of([*row, choice]))))
        rows.append(row)
        missing -= set(pairs_of(row))
    return [sorted(row, key=ALONE.index) for row in rows]


kept: dict[frozenset[str], bool] = {}  # by pair, whether every test of it has passed


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped or (report.when != "call" and report.passed):
        return
    for key, text in report.user_properties:
        if key == "pair":
            pair = frozenset(text.split(" x "))
            kept[pair] = kept.get(pair, True) and report.passed


def pytest_terminal_summary(config: pytest.Config) -> None:
    if config.getoption("--promises") and kept:
        TABLE.write_text(table(kept), encoding="utf-8")


def table(outcome: dict[frozenset[str], bool]) -> str:
    def cell(one: str, other: str) -> str:
        pair = frozenset({one, other})
        if pair in NO_PAIR:
            return ""
        if pair not in outcome:
            return "?"
        return ("no" if pair in REFUSED else "✓") if outcome[pair] else "**fails**"

    names = list(CHOICES)
    lines = ["| | " + " | ".join(f"{number}" for number in range(1, len(names))) + " |", "|---" * len(names) + "|"]
    for number, name in enumerate(names, 1):
        cells = [cell(name, other) for other in names[: number - 1]]
        lines.append(f"| {number} {name} | " + " | ".join(cells + [""] * (len(names) - 1 - len(cells))) + " |")
    rows = [*covering_rows(), *IN_TWO_PROCESSES]
    return f"""# What works with what

`pytest --promises tests/test_pairs.py` makes this table. Its {len(rows)} runs of a few steps cover every pair. Each
must finish; `best.ckpt`, evaluated, must give the accuracy that training logged; a run that is stopped in mid-epoch and
resumed must end in the bits of one that was not; two processes must end where one does, unless the network has batch
normalisation.

✓ works; no: refused in one line; empty: there is only one choice of the two.

{chr(10).join(lines)}
"""
