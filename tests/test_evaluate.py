"""evaluate.py from the command line: what it writes, and how it answers mistakes."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from cifar10.data.sources.shapes import Shapes, write_cifar10_files
from cifar10.inference.finished_runs import FinishedRun, find

PROJECT = Path(__file__).parent.parent


@pytest.fixture
def run(command, tiny, tmp_path):
    assert command("train.py", *tiny, "hydra.run.dir=outputs/cnn/run") == 0
    return tmp_path / "outputs" / "cnn" / "run"


def test_an_evaluation_writes_results_for_people_and_for_machines(command, run, shapes_root):
    assert command("evaluate.py", "run=outputs/cnn/run") == 0
    folder = run / "evaluation"
    results = json.loads((folder / "metrics.json").read_text())
    saved = np.load(folder / "predictions.npz")
    _, labels = Shapes(shapes_root).load("test")
    assert np.array_equal(saved["labels"], labels.numpy()), "in the source's order"
    assert saved["logits"].shape == (40, 10) and saved["logits"].dtype == np.float32
    assert results["test/acc"] == pytest.approx((saved["logits"].argmax(1) == saved["labels"]).mean())
    assert np.array(results["confusion_matrix"]).sum() == results["n"] == 40
    assert [row["class"] for row in results["per_class"]] == list(Shapes.class_names)
    assert results["synthetic"] is True and "not CIFAR-10" in results["data"]
    for name in ("confusion_0.png", "learning_curves.png", "mistakes_0.png"):
        assert min(Image.open(folder / "figures" / name).size) > 300
    assert "<svg" in (folder / "report.html").read_text() and "# cnn" in (folder / "report.md").read_text()
    assert results["low"] < results["acc"] < results["high"] and results["temperature"] > 0
    assert results["cost"]["parameters"] == 160_202 and results["summary"]["seconds"] > 0
    assert f"test accuracy {results['test/acc']:.4f}" in command.out and "evaluation" in command.out


def test_without_a_name_the_newest_run_is_evaluated(command, run):
    assert command("evaluate.py") == 0
    assert (run / "evaluation" / "metrics.json").is_file()


def test_evaluating_twice_gives_the_same_logits(command, run):
    logits = []
    for _ in range(2):
        (run / "evaluation" / "predictions.npz").unlink(missing_ok=True)
        assert command("evaluate.py", "run=outputs/cnn/run") == 0
        logits.append(np.load(run / "evaluation" / "predictions.npz")["logits"])
    assert np.array_equal(*logits)


def test_stored_predictions_are_used_until_the_checkpoint_changes(command, run):
    assert command("evaluate.py", "run=outputs/cnn/run") == 0 and "predicting with" in command.out
    assert command("evaluate.py", "run=outputs/cnn/run") == 0 and "predicting with" not in command.out
    checkpoint = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    checkpoint["state_dict"]["network.classifier.4.bias"] += torch.arange(10.0)
    torch.save(checkpoint, run / "checkpoints" / "best.ckpt")
    assert command("evaluate.py", "run=outputs/cnn/run") == 0 and "predicting with" in command.out


def test_other_data_is_not_answered_with_stored_predictions(command, run, tmp_path):
    assert command("evaluate.py", "run=outputs/cnn/run") == 0
    other = tmp_path / "data" / "shapes" / "cifar-10-batches-py"
    other.mkdir(parents=True)
    write_cifar10_files(other, images_per_batch=50)
    assert command("evaluate.py", "run=outputs/cnn/run", "data_root=data") == 0
    assert json.loads((run / "evaluation" / "metrics.json").read_text())["n"] == 50


def test_other_weights_to_start_from_are_another_recipe_wherever_they_lie(run):
    cfg = OmegaConf.load(run / ".hydra" / "config.yaml")
    recipes = []
    for place, digest in (("a.pth", 64 * "1"), ("b.pth", 64 * "1"), ("a.pth", 64 * "2")):
        cfg.model.weights = place
        recipes.append(FinishedRun(run, cfg, {"weights_sha256": digest}).recipe)
    assert recipes[0] == recipes[1] != recipes[2]


def test_a_damaged_temperature_is_fitted_anew(command, run):
    assert command("evaluate.py", "run=outputs/cnn/run") == 0
    file = run / "evaluation" / "calibration.json"
    whole = file.read_text()
    file.write_text(whole[:20])
    assert command("evaluate.py", "run=outputs/cnn/run") == 0, command.err
    assert file.read_text() == whole


def test_damaged_predictions_are_made_anew(command, run):
    (run / "evaluation").mkdir()
    (run / "evaluation" / "predictions.npz").write_bytes(b"half an arch")
    assert command("evaluate.py", "run=outputs/cnn/run") == 0 and "predicting again" in command.out


def test_stored_predictions_outlive_the_checkpoint(command, run):
    assert command("evaluate.py", "run=outputs/cnn/run") == 0
    (run / "checkpoints" / "best.ckpt").unlink()
    assert command("evaluate.py", "run=outputs/cnn/run") == 0
    assert "using its stored predictions" in command.out


def test_the_data_may_have_moved(command, run, shapes_root, tmp_path):
    shutil.copytree(shapes_root, tmp_path / "moved")
    config = OmegaConf.load(run / ".hydra" / "config.yaml")
    config.data.root = str(tmp_path / "gone" / "without" / "leave")
    OmegaConf.save(config, run / ".hydra" / "config.yaml")
    assert command("evaluate.py", "run=outputs/cnn/run", f"data_root={tmp_path / 'moved'}") == 0
    assert not (tmp_path / "gone").exists()


def refuse(command, *arguments):
    assert command("evaluate.py", *arguments) == 1
    assert command.err.startswith("error: ") and len(command.err.splitlines()) == 1, command.err
    return command.err


def test_a_folder_that_is_no_run_is_refused(command, tmp_path):
    assert "run=nowhere" in refuse(command, "run=nowhere")
    assert list(tmp_path.iterdir()) == []


def test_no_run_at_all_says_how_to_make_one(command):
    assert "python train.py" in refuse(command)


def test_a_missing_checkpoint_names_those_that_are_there(command, run):
    assert "best, last" in refuse(command, "run=outputs/cnn/run", "checkpoint=epoch7")
    assert not (run / "evaluation").exists()


def test_a_checkpoint_of_another_kind_is_refused(command, run):
    torch.save({"state_dict": {}}, run / "checkpoints" / "best.ckpt")
    assert "best.ckpt" in refuse(command, "run=outputs/cnn/run")
    (run / "checkpoints" / "best.ckpt").write_bytes(b"half a checkpo")
    assert "best.ckpt" in refuse(command, "run=outputs/cnn/run")


def test_a_configuration_that_names_a_foreign_class_builds_nothing(command, run, tmp_path):
    config = OmegaConf.load(run / ".hydra" / "config.yaml")
    config.model._target_ = "pathlib.Path.touch"
    OmegaConf.save(config, run / ".hydra" / "config.yaml")
    assert "pathlib.Path.touch" in refuse(command, "run=outputs/cnn/run")


def test_a_misspelt_setting_is_refused(command):
    assert "did you mean run" in refuse(command, "rum=outputs/cnn/run")


def test_labels_that_do_not_fit_are_refused(command, run, tmp_path):
    np.save(tmp_path / "short.npy", np.zeros(39, dtype=int))
    np.save(tmp_path / "floats.npy", np.zeros(40))
    np.save(tmp_path / "high.npy", np.full(40, 10))
    np.save(tmp_path / "none.npy", np.full(40, -1))
    np.save(tmp_path / "objects.npy", np.array([print] * 40), allow_pickle=True)
    (tmp_path / "text.npy").write_text("0 1 2")
    for name in ("short", "floats", "high", "none", "objects", "text", "absent"):
        assert f"labels={name}.npy" in refuse(command, "run=outputs/cnn/run", f"labels={name}.npy")


def test_other_labels_are_reported_beside_the_original_ones(command, run, shapes_root, tmp_path):
    _, labels = Shapes(shapes_root).load("test")
    labels[0] = -1
    np.save(tmp_path / "labels.npy", labels.numpy())
    assert command("evaluate.py", "run=outputs/cnn/run", "labels=labels.npy") == 0
    results = json.loads((run / "evaluation" / "metrics.json").read_text())
    assert "with the labels of labels.npy: " in command.out
    assert results["n"] == 40 and results["corrected"]["images"] == 39 and results["corrected"]["left_out"] == 1


def test_an_accelerator_that_there_is_not_is_refused_even_where_it_is_not_needed(command, run):
    assert command("evaluate.py", "run=outputs/cnn/run") == 0
    assert "accelerator=abacus" in refuse(command, "run=outputs/cnn/run", "accelerator=abacus")
    if not torch.cuda.is_available():
        assert refuse(command, "run=outputs/cnn/run", "accelerator=gpu").startswith("error: accelerator=gpu")


@pytest.fixture(scope="module")
def sweep(shapes_root, tmp_path_factory):
    """Two recipes, one of them with two seeds, trained once for this file."""
    folder = tmp_path_factory.mktemp("sweep")
    for job, more in enumerate((["seed=0"], ["seed=1"], ["model.lr=1e-2"])):
        arguments = [f"data.root={shapes_root}", "data=shapes", "data.batch_size=80", "trainer.max_epochs=1", *more]
        subprocess.run(
            [sys.executable, PROJECT / "train.py", *arguments, f"hydra.run.dir={folder}/sweep/{job}"],
            check=True,
            capture_output=True,
        )
    return folder / "sweep"


@pytest.fixture
def jobs(sweep, tmp_path):
    shutil.copytree(sweep, tmp_path / "sweep")
    return tmp_path / "sweep"


def comparison(tmp_path):
    (folder,) = (tmp_path / "outputs" / "comparisons").iterdir()
    return json.loads((folder / "metrics.json").read_text()), (folder / "report.html").read_text()


def test_a_sweep_is_compared_by_recipe_with_its_seeds_together(command, jobs, tmp_path):
    assert command("evaluate.py", "runs=[sweep]") == 0
    results, html = comparison(tmp_path)
    assert [group["seeds"] for group in results["groups"]] == [[0, 1], [0]]
    assert results["groups"][1]["name"] == "cnn (lr=0.01)"
    verdict = results["comparisons"][0]["verdict"]
    assert verdict in command.out and "report.html" in command.out and "Is the difference real?" in html
    assert (jobs / "0" / "evaluation" / "predictions.npz").is_file()


def test_a_second_run_of_a_seed_is_named_and_does_not_count(command, jobs, tmp_path):
    shutil.copytree(jobs / "0", tmp_path / "again")
    assert command("evaluate.py", "runs=[sweep,again]") == 0
    assert "again: not counted, as it has the recipe and the seed of sweep/0; other seeds" in command.out
    assert [group["seeds"] for group in comparison(tmp_path)[0]["groups"]] == [[0, 1], [0]]


def test_a_sweep_stands_for_its_jobs_in_their_order(jobs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (jobs / "2").rename(jobs / "10")
    wanted = [Path("sweep/0"), Path("sweep/1"), Path("sweep/10")]
    for run, runs in (("sweep", None), (None, "sweep"), (None, "sweep/*"), (None, ["sweep/0", "sweep", "sweep/1"])):
        assert find(run, runs) == wanted
    assert find(None, f"{tmp_path}/sweep/1*") == wanted[1:]


def test_what_cannot_be_reported_is_named_and_the_others_are(command, jobs, tmp_path):
    (jobs / "1" / "run.json").unlink()
    (jobs / "2" / "checkpoints" / "best.ckpt").unlink()
    assert command("evaluate.py", "runs=[sweep,nowhere]") == 1
    assert len(command.err.splitlines()) == 1
    for words in ("sweep/1: has not finished", "resume=sweep/1", "sweep/2", "best.ckpt does not exist", "run=nowhere"):
        assert words in command.err
    results, html = comparison(tmp_path)
    assert [group["seeds"] for group in results["groups"]] == [[0]] and "has not finished" in html


def test_runs_on_other_test_images_are_left_out(command, jobs, tmp_path, shapes_root):
    other = tmp_path / "data" / "shapes" / "cifar-10-batches-py"
    other.mkdir(parents=True)
    write_cifar10_files(other, images_per_batch=50)
    config = OmegaConf.load(jobs / "2" / ".hydra" / "config.yaml")
    config.data.root = str(tmp_path / "data")
    OmegaConf.save(config, jobs / "2" / ".hydra" / "config.yaml")
    assert command("evaluate.py", "runs=[sweep]") == 1
    assert "sweep/2: was tested on different images" in command.err and "50 images" in command.err
    assert [group["seeds"] for group in comparison(tmp_path)[0]["groups"]] == [[0, 1]]


def test_nothing_is_written_where_no_run_can_be_reported(command, jobs, tmp_path):
    for job in range(3):
        (jobs / str(job) / "run.json").unlink()
    assert "none of 3 runs" in refuse(command, "runs=[sweep]")
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run=sweep/0", "runs=[sweep/1]"], "not both"),
        (["runs=[]"], "names no run"),
        (["runs=3"], "runs=3: must be text or a list of texts or null"),
        (["run=[sweep/0]"], "run=['sweep/0']: must be text or null"),
        (["names=a"], "names=a: must be a list"),
        (["checkpoint=2"], "checkpoint=2: must be text"),
        (["output=3"], "output=3: must be text or null"),
        (["labels=3"], "labels=3: must be text or null"),
        (["batch_size=0"], "batch_size=0: must be at least one image"),
        (["batch_size=1.5"], "batch_size=1.5: must be a whole number or null"),
        (["+corruption=3"], "+corruption=3: Config group override must be a string"),
        (["run=sweep/0", "+corruption=noise", "corruption.severities=1"], "severities=1: must be lists"),
        (["run=sweep/0", "+corruption=noise", "corruption.names=fog"], "names=fog, severities="),
        (["run=sweep/0", "+corruption=noise", "corruption.severities=[true]"], "severities=[True]: must be lists"),
        (["runs=elsewhere/*"], "runs=elsewhere/*"),
        (["runs=[sweep]", "names=[A,B,C]"], "3 for 2 groups"),
        (["runs=[sweep]", "+corruption.names=[rain]", "+corruption.severities=[1]"], "names=rain: no such corruption"),
        (["runs=[sweep]", "+corruption=noise", "corruption.severities=[6]"], "from 1 to 5"),
        (["runs=[sweep]", "+corruption=noise", "corruption.images=0"], "corruption.images=0"),
        (["run=sweep/0", "data=cifar101", "data.root=nowhere"], "CIFAR-10.1 has airplane"),
        (["run=sweep/0", "data=cifar10c", "data.root=nowhere"], "nowhere"),
    ],
)
def test_mistakes_are_answered_in_a_line(command, jobs, arguments, words):
    assert words in refuse(command, *arguments)


def test_a_configuration_of_another_version_is_named(command, jobs):
    config = OmegaConf.load(jobs / "0" / ".hydra" / "config.yaml")
    config.data.colour = "sepia"
    OmegaConf.save(config, jobs / "0" / ".hydra" / "config.yaml")
    assert "run=sweep/0: data.colour" in refuse(command, "run=sweep/0")
    (jobs / "0" / ".hydra" / "config.yaml").write_text("model: [")
    assert "is not a configuration" in refuse(command, "run=sweep/0")
    (jobs / "0" / ".hydra" / "config.yaml").write_text("model: 3")
    assert "is not a configuration" in refuse(command, "run=sweep/0")


def test_corruptions_are_measured_kept_and_reported(command, jobs, tmp_path):
    arguments = ["+corruption=noise", "corruption.severities=[1,5]", "corruption.images=20"]
    assert command("evaluate.py", "runs=[sweep]", *arguments) == 0
    results, html = comparison(tmp_path)
    found = results["robustness"]
    assert found["corruptions"] == ["gaussian_noise", "shot_noise", "impulse_noise"] and found["images"] == 20
    assert np.array(found["groups"][0]["acc"]).shape == (3, 2) and "On corrupted images" in html
    shutil.rmtree(tmp_path / "outputs")
    assert command("evaluate.py", "runs=[sweep]", *arguments) == 0
    assert "using the stored accuracies" in command.out
    assert comparison(tmp_path)[0]["robustness"] == found


def test_published_corruptions_are_read_from_their_folder(command, jobs, tmp_path, monkeypatch):
    rng, folder = np.random.default_rng(0), tmp_path / "c"
    folder.mkdir()
    for name in ("fog", "frost"):
        np.save(folder / f"{name}.npy", rng.integers(0, 256, (50, 32, 32, 3), dtype=np.uint8))
    np.save(folder / "labels.npy", np.tile(np.arange(10), 5))
    assert "was not trained on CIFAR-10's classes" in refuse(command, "run=sweep/0", "data=cifar10c", "data.root=c")
    monkeypatch.setattr("cifar10.evaluation.robustness.CIFAR10.class_names", Shapes.class_names)
    assert command("evaluate.py", "run=sweep/0", "data=cifar10c", "data.root=c") == 0
    found = json.loads((jobs / "0" / "evaluation" / "metrics.json").read_text())["cifar10c"]
    assert sorted(found["corruptions"]) == ["fog", "frost"] and np.array(found["groups"][0]["acc"]).shape == (2, 5)


def test_other_test_images_have_a_folder_of_their_own(command, shapes_root, jobs, tmp_path):
    arguments = ["run=sweep/0", "data=shapes", f"data.root={shapes_root}"]
    assert command("evaluate.py", *arguments) == 0 and (jobs / "0" / "evaluation_shapes" / "report.html").is_file()
    assert not (jobs / "0" / "evaluation").exists()


def test_the_number_of_training_images_becomes_an_axis(command, tiny, tmp_path):
    for size in (40, 80):
        assert command("train.py", *tiny, f"data.train_size={size}", f"hydra.run.dir=runs/{size}") == 0
    assert command("evaluate.py", "runs=runs/*") == 0
    results, html = comparison(tmp_path)
    assert results["efficiency"][0]["sizes"] == [40, 80] and len(results["groups"]) == 1
    assert "How much data does it take?" in html


def test_how_often_a_run_is_saved_is_no_part_of_its_recipe():
    cfg = OmegaConf.create({"seed": 1, "trainer": {"checkpoint_every_n_steps": 5, "max_epochs": 2}})
    assert FinishedRun(Path("run"), cfg, {}).recipe == {"trainer.max_epochs": 2}
