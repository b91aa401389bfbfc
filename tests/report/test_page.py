"""The report's files, without runs: what they hold, and that they hold together."""

import json
import re
from html import unescape
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from cifar10.report import page, scores
from cifar10.report.comparison import evaluate, relabel
from cifar10.report.document import Paragraph, Table
from cifar10.report.groups import Run, group_runs
from cifar10.report.numbers import SPACE
from cifar10.report.page import write

NAMES = ["cat", "dog & <wolf>", "ship $1|2"]
LABELS = np.arange(60) % 3


def make_run(name: str, seed: int = 0, synthetic: bool = False) -> Run:
    rng = np.random.default_rng([len(name), seed])
    logits, val_logits = (rng.normal(size=(60, 3)) + 2 * np.eye(3)[LABELS] for _ in range(2))
    phases = [{"phase": 1, "epochs": 2, "seconds": 3.0, "trained_parameters": 10, "flops_per_epoch": 1000}]
    cost = {"parameters": 1234567, "bytes": 4938268, "forward_flops": 2.5e9, "phases": phases, "train_flops": 1.5e15}
    facts = {
        **{"data": "three classes", "synthetic": synthetic, "data_sha256": "one", "hardware": "an abacus"},
        **{"image_size": 32, "images_per_second": 1234.5, "commit": "abc", "versions": {"torch": "2"}, "cost": cost},
        "summary": {"train_images": 100, "seconds": 200.0, "hardware": "a slide rule", "commit": f"def{seed}"},
    }
    rows = [{"epoch": e, "seconds": 1.5, "val/loss": 1 / (e + 1), "val/acc": 0.5, "phase": 1.0 + e} for e in range(2)]
    return Run(name, seed, f"runs/{name}_{seed}", {"n": name}, NAMES, logits, LABELS, val_logits, LABELS, facts, rows)


IMAGES = np.random.default_rng(0).integers(0, 256, (60, 3, 8, 8), dtype=np.uint8)


def report(folder, *runs, images=IMAGES, left_out=(), **more):
    groups = group_runs(runs)
    results = evaluate(groups) | {key: value(groups) if callable(value) else value for key, value in more.items()}
    write(folder, groups, results, images, left_out)
    return (folder / "report.html").read_text(), (folder / "report.md").read_text(), results


class Page(HTMLParser):
    """Every id, link and open element of a page."""

    def __init__(self, html: str):
        super().__init__()
        self.ids, self.links, self.open, self.void = [], [], [], {"meta", "br", "img", "link", "input", "hr"}
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.ids += [values["id"]] if "id" in values else []
        self.links += [values[key] for key in ("href", "src", "xlink:href") if key in values]
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in self.void:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """A report of two groups with everything in it."""
    folder = tmp_path_factory.mktemp("report")
    labels = LABELS.copy()
    labels[:3] = -1, 0, 1
    robust = {"images": 60, "corruptions": ["fog", "jpeg_compression"], "severities": [1, 2], "groups": [
        {"name": name, "clean": 0.9, "acc": [[0.8, 0.7], [0.6, 0.5]], "mean": 0.65} for name in ("cnn", "b0")
    ]}  # fmt: skip
    sizes = [{"name": name, "sizes": [10, 100], "accs": [[0.3], [0.5, 0.6]]} for name in ("cnn", "b0")]
    runs = [make_run("cnn", 0), make_run("cnn", 1), make_run("b0", 0), make_run("b0", 1)]
    corrected = {"corrected": lambda groups: relabel(groups, labels) | {"file": "labels.npy"}}
    html, markdown, results = report(
        folder, *runs, robustness=robust, efficiency=sizes, left_out=["run=x: gone"], **corrected
    )
    return folder, html, markdown, results


def test_the_page_needs_no_network_and_no_other_file(full):
    _, html, _, _ = full
    assert all(link.startswith(("#", "data:")) for link in Page(html).links)
    assert "@import" not in html and "<script" not in html and not re.search(r"url\((?!#)", html)


def test_the_page_is_well_formed_and_no_id_stands_twice(full):
    page = Page(full[1])
    assert page.open == [] and len(page.ids) == len(set(page.ids))
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)


def test_every_figure_has_its_caption_and_its_files(full):
    folder, html, markdown, _ = full
    names = re.findall(r'<figure id="figure-([^"]+)"', html)
    assert html.count("<figcaption>") == len(names) > 12
    assert len(re.findall(r'<div class="(?:wide|narrow)"><svg', html)) == 2 * len(names), "for a page and for a phone"
    for name in names:
        assert (folder / "figures" / f"{name}.pdf").read_bytes().startswith(b"%PDF")
        assert min(Image.open(folder / "figures" / f"{name}.png").size) > 150
        assert f"(figures/{name}.png)" in markdown


def test_names_are_text_whatever_stands_in_them(full):
    _, html, markdown, _ = full
    assert "dog &amp; &lt;wolf&gt;" in html and "<wolf>" not in html
    assert "ship $1\\|2" in markdown and "dog & \\<wolf>" in markdown and " <wolf>" not in markdown


def test_every_row_of_a_markdown_table_has_as_many_cells_as_its_header(full):
    tables = re.findall(r"(?:^\|.*\n?)+", full[2], flags=re.MULTILINE)
    assert len(tables) > 6
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1, table


def test_page_and_markdown_say_what_the_numbers_say(full):
    _, html, markdown, results = full
    for text in (html, markdown):
        for group in results["groups"]:
            assert f"{100 * group['acc']['mean']:.2f} ± {100 * group['acc']['std']:.2f} %" in text.replace(SPACE, " ")
        assert results["comparisons"][0]["verdict"].replace(SPACE, " ") in text.replace(SPACE, " ")
        trained = "Training of cnn: commit def0, a slide rule; commit def1, a slide rule."
        for word in ("1,234,567", "1.5 PFLOP", trained, "3.3 min"):
            assert word in text.replace(SPACE, " ")
        assert "labels.npy" in text and "run=x: gone" in text and "jpeg compression" in text


def test_the_numbers_are_there_for_machines(full):
    folder, _, _, results = full
    stored = json.loads((folder / "metrics.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert stored["groups"][1]["acc"] == results["groups"][1]["acc"]
    assert stored["comparisons"][0]["mcnemar"] == results["comparisons"][0]["mcnemar"]


def test_a_single_run_has_its_own_report_without_comparison(tmp_path):
    html, _, results = report(tmp_path, make_run("cnn"))
    assert "Is the difference real?" not in html and 'id="difference"' not in html and "first seed" not in html
    stored = json.loads((tmp_path / "metrics.json").read_text())
    assert stored["test/acc"] == results["groups"][0]["acc"]["mean"]


def test_without_images_the_page_says_so(tmp_path):
    html, _, _ = report(tmp_path, make_run("cnn"), images=None)
    assert "not available" in html and 'id="figure-mistakes_0"' not in html


def test_synthetic_images_are_called_so(tmp_path):
    assert "not CIFAR-10" in report(tmp_path, make_run("cnn", synthetic=True))[0]


def test_a_metric_is_one_function_and_one_row(tmp_path, monkeypatch):
    def example(run: Run) -> float:
        return 0.25 + run.seed / 100 + len(run.name) / 10

    monkeypatch.setattr(scores, "METRICS", [*scores.METRICS, scores.Metric("example", "an example", example)])
    html, markdown, _ = report(tmp_path, make_run("cnn", 0), make_run("cnn", 2), make_run("b0"))
    first, second = json.loads((tmp_path / "metrics.json").read_text())["groups"]
    assert first["example"] == pytest.approx({"mean": 0.56, "std": 0.02 / 2**0.5, "n": 2})
    assert second["runs"][0]["example"] == 0.45
    cells = ["an example", "0.5600 ± 0.0141", "0.4500", "\N{MINUS SIGN}0.1100"]
    assert "".join(f"<td>{cell}</td>" for cell in cells) in html.replace(SPACE, " ")
    assert f"| {' | '.join(cells)} |" in markdown.replace(SPACE, " ")


def test_a_section_is_one_function_and_one_row(tmp_path, monkeypatch):
    def example(found):
        yield Paragraph(f"{len(found.groups)} models were trained.")
        yield Table(["what"], [["nothing"]])

    sections = [("example", "An example", example), ("empty", "Not there", lambda found: iter(()))]
    monkeypatch.setattr(page, "SECTIONS", sections)
    html, markdown, _ = report(tmp_path, make_run("cnn"), make_run("b0"))
    assert '<a href="#example">An example</a>' in html and '<h2 id="example">An example</h2>' in html
    assert "<p>2 models were trained.</p>" in html and "<td>nothing</td>" in html and "Not there" not in html
    assert "## An example\n\n2 models were trained.\n\n| what |\n| --- |\n| nothing |\n" in markdown


def test_html_and_markdown_say_the_same(full):
    _, html, markdown, _ = full
    assert html.count("<table>") == len(re.findall(r"^\| ---", markdown, flags=re.MULTILINE)) > 6
    html = re.sub(r"<svg.*?</svg>|<style.*?</style>", "", html, flags=re.DOTALL)
    said = re.findall(r"<(?:p|h1|h2|h3|li|figcaption)\b[^>]*>(.*?)</(?:p|h1|h2|h3|li|figcaption)>", html)
    assert len(said) > 40
    shown = re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", markdown).replace(SPACE, " ")  # CommonMark's backslash escapes
    for words in said:
        assert unescape(words).replace(SPACE, " ") in shown


def test_the_first_group_is_the_baseline_everywhere(full):
    _, html, _, results = full
    (comparison,) = results["comparisons"]
    assert "<h1>b0 compared with cnn</h1>" in html and "<h3>b0 compared with cnn</h3>" in html
    assert comparison["verdict"].startswith("b0 ") and "b0 minus cnn" in html
    assert not any(f"cnn {word}" in html for word in ("compared with", "minus", "against"))


def caption(html: str, name: str) -> str:
    found = re.search(rf'id="figure-{name}".*?<figcaption>(.*?)</figcaption>', html, flags=re.DOTALL)
    return found.group(1).replace(SPACE, " ")


def test_captions_follow_the_verdict_and_say_what_is_shown(full):
    _, html, _, results = full
    assert results["comparisons"][0]["verdict"].replace(SPACE, " ") in caption(html, "accuracy")
    assert "one standard deviation over seeds" in caption(html, "cost")
    assert all(run in caption(html, "only_other_1") for run in ("cnn (seed 0)", "b0 (seed 0)"))
    assert "cnn (seed 0)" in caption(html, "reliability_0")


def test_the_speed_of_a_single_pass_over_the_test_images_is_left_out(full):
    assert not any("test images/s" in text or "1,234" in text.replace("1,234,567", "") for text in full[1:3])


def test_no_unit_and_no_spread_stands_on_a_line_of_its_own(full):
    html = re.sub(r"<svg.*?</svg>|<style.*?</style>", "", full[1], flags=re.DOTALL)
    assert f"95{SPACE}%" in html and f"{SPACE}±{SPACE}" in html
    assert not re.search(r"[0-9] (?:%|±)|± [0-9]", html)


def test_nothing_half_written_stays_behind(full):
    assert not [path for path in full[0].rglob("*") if path.name.startswith(".") or path.suffix == ".tmp"]
