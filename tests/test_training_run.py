"""Whole runs: what the recipes learn, what comes out, and bundles that are odd."""

from __future__ import annotations

import json
import runpy
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training_bundles import (
    DIGITS,
    SCRIPT,
    command,
    make_bundle,
    metrics,
    one_thread,
    read_rows,
    train,
    weights,
    write_bundle,
)

from training import checkpoint
from training import train as program
from training.bundle import read_bundle
from training.plan import Plan, plan_epoch
from training.recipes import choose_recipe
from training.report import epoch_line

SHORT = ("--epochs", "2", "--lr", "0.1")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("run") / "bundle")


def test_mixfix_beats_cross_entropy_at_40_percent_noise(tmp_path: Path) -> None:
    """Last against last and best against best; selection 90 % precise, validation as noisy."""
    folder = make_bundle(tmp_path / "b", train=400, val=100, test=500, selected=0.6, precision=0.9)
    options = ["--epochs", "40", "--lr", "0.05", "--batch-size", "20", "--augmentation", "none"]
    found = {
        recipe: train(folder, tmp_path / recipe, "--recipe", recipe, *options)
        for recipe in ("ce", "mixfix")
    }
    for which, margin in (("last", 0.15), ("best", 0.06)):
        ce, mixfix = (found[recipe][which]["test_accuracy"] for recipe in ("ce", "mixfix"))
        assert mixfix > ce + margin, which
    end = metrics(tmp_path / "mixfix")[-1]
    assert end["set_size"] > metrics(tmp_path / "mixfix")[0]["set_size"] + 100
    assert end["relabelled_right"] > 0.8 * end["relabelled_known"] > 50


def test_what_a_run_writes(bundle: Path, tmp_path: Path) -> None:
    results = train(bundle, tmp_path, *SHORT)
    rows = read_rows(bundle)
    assert json.loads((tmp_path / "results.json").read_text()) == results
    assert results["best_chosen_on"] == "val" and results["unreadable"] == []

    predictions = [json.loads(line) for line in (tmp_path / "predictions.jsonl").open()]
    assert [p["id"] for p in predictions] == [r["id"] for r in rows]
    assert all(p.keys() == {"id", "label", "confidence"} for p in predictions)
    assert all(p["label"] in DIGITS and 0.1 <= p["confidence"] <= 1 for p in predictions)
    pairs = list(zip(predictions, rows, strict=True))
    right = [p["label"] == r["trusted"] for p, r in pairs if r["split"] == "test"]
    assert np.mean(right) == pytest.approx(results["best"]["test_accuracy"])
    agree = [p["label"] == r["label"] for p, r in pairs if r["split"] == "val"]
    assert np.mean(agree) == pytest.approx(results["best"]["val_accuracy"])

    confusion = json.loads((tmp_path / "confusion.json").read_text())
    matrix = np.array(confusion["test"]["best"])
    assert matrix.sum() == len(right) and np.trace(matrix) == sum(right)
    truth = [DIGITS.index(r["trusted"]) for r in rows if r["split"] == "test"]
    assert matrix.sum(axis=1).tolist() == np.bincount(truth, minlength=10).tolist()

    lines = metrics(tmp_path)
    assert [line["epoch"] for line in lines] == [1, 2]
    selected = [r for r in rows if r["selected"]]
    assert lines[0]["set_size"] == lines[0]["set_known"] == len(selected)
    assert lines[0]["set_right"] == sum(r["label"] == r["trusted"] for r in selected)
    assert lines[-1]["test_accuracy"] == results["last"]["test_accuracy"]
    assert lines[0]["val_accuracy"] is not None and lines[0]["lr"] == 0.1
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["preset"], config["recipe"], config["seed"]) == ("auto", "mixfix", 3047)


def test_the_best_on_validation_are_the_weights_of_that_epoch(tmp_path: Path) -> None:
    """At a rate so high that accuracies jump; of equal epochs the later one."""
    folder = make_bundle(tmp_path / "b", val=12)
    options = ("--epochs", "8", "--lr", "0.3", "--milestones", "8")
    for seed in range(1, 20):
        out = tmp_path / str(seed)
        results = train(folder, out, *options, "--seed", str(seed))
        rows = metrics(out)
        val, test = ([row[f"{split}_accuracy"] for row in rows] for split in ("val", "test"))
        tops = [i for i, accuracy in enumerate(val) if accuracy == max(val)]
        if len(tops) > 1 and tops[-1] < 7 and test[tops[-1]] != test[-1]:
            break
    else:
        pytest.fail("no seed has two best epochs before the last one")
    best = rows[tops[-1]]
    assert results["best"] == {
        name: best[name] for name in ("epoch", "val_accuracy", "test_accuracy")
    }
    assert results["last"]["epoch"] == 8 and results["last"]["test_accuracy"] == test[-1]


def test_who_joins_is_counted_and_how_many_rightly(tmp_path: Path) -> None:
    """Against the set in the checkpoint, with trusted labels for every other sample."""
    folder = make_bundle(tmp_path / "b", selected=0.5)
    rows = read_rows(folder)
    for row in rows[::2]:
        row["trusted"] = None
    write_bundle(folder, rows)
    options = ("--epochs", "8", "--lr", "0.1", "--theta-r", "0.2", "--theta-r2", "0.2")
    said: list[str] = []
    train(folder, tmp_path / "out", *options, on_epoch=lambda r: said.append(epoch_line(r, 8)))
    found = torch.load(tmp_path / "out" / "last.pt", weights_only=True)["set"]
    selected = np.array([row["selected"] for row in rows])
    right = np.array(
        [DIGITS[k] == r["trusted"] for k, r in zip(found["labels"], rows, strict=True)]
    )
    known = np.array([row["trusted"] is not None for row in rows])
    end = metrics(tmp_path / "out")[-1]
    absorbed, relabelled = found["absorbed"].numpy() & ~selected, found["relabelled"].numpy()
    for name, joined in (("absorbed", absorbed), ("relabelled", relabelled)):
        assert end[name] == joined.sum() > end[f"{name}_known"] == (joined & known).sum()
        assert end[f"{name}_right"] == (joined & right).sum() > 0
        share = end[f"{name}_right"] / end[f"{name}_known"]
        assert f"{name} {end[name]} ({share:.0%} right)" in said[-1]


def test_tensorboard_where_it_is_installed(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every number of metrics.jsonl is there once, also of an epoch that had to be repeated."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    save_last = checkpoint.save_last

    def interrupted(folder: Path, state: dict[str, Any]) -> None:
        if state["epoch"] == 2:  # its numbers are written, and it does not count yet
            raise KeyboardInterrupt
        save_last(folder, state)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(checkpoint, "save_last", interrupted)
        train(bundle, tmp_path, *SHORT)
    train(bundle, tmp_path, *SHORT)
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    rows = metrics(tmp_path)
    for name in rows[0].keys() - {"epoch"}:
        shown = [(event.step, event.value) for event in board.Scalars(name)]
        assert shown == [(row["epoch"], pytest.approx(row[name])) for row in rows], name


def test_without_tensorboard_the_rest_is_written(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    train(bundle, tmp_path, *SHORT)
    assert len(metrics(tmp_path)) == 2 and not (tmp_path / "tensorboard").exists()


def test_a_run_repeats_to_the_bit_and_a_seed_matters(bundle: Path, tmp_path: Path) -> None:
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        train(bundle, tmp_path / name, *SHORT, "--seed", seed)
    a, b, c = (weights(tmp_path / name / "last.pt") for name in "abc")
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert not all(torch.equal(a[key], c[key]) for key in a)


def test_what_the_recipes_train_on(bundle: Path) -> None:
    read, rows = read_bundle(bundle), read_rows(bundle)
    in_train = np.array([r["split"] == "train" for r in rows])
    selected = np.array([r["selected"] for r in rows])
    scores = np.array([r["clean_score"] for r in rows])
    found = {name: choose_recipe(name, read) for name in ("mixfix", "ce", "ce-clean", "weighted")}
    assert np.array_equal(found["ce"].members, in_train)
    assert np.array_equal(found["weighted"].members, in_train & (scores > 0))
    for name in ("mixfix", "ce-clean"):
        assert np.array_equal(found[name].members, in_train & selected)
    assert [recipe.mixfix for recipe in found.values()] == [True, False, False, False]
    weighted = found["weighted"]
    assert weighted.weights[weighted.members].mean() == pytest.approx(1, rel=1e-5)
    assert (found["ce"].weights == 1).all()


@pytest.mark.parametrize("recipe", ["mixfix", "ce", "ce-clean", "weighted"])
def test_an_epoch_is_as_long_as_the_whole_training_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: str
) -> None:
    """Not as the part of it that the recipe trains on: all see equally many images."""
    folder = make_bundle(tmp_path / "b", train=165, val=11, test=11, selected=0.5)
    plans: list[Plan] = []

    def noted(*args: Any, **options: Any) -> Plan:
        plans.append(plan_epoch(*args, **options))
        return plans[-1]

    monkeypatch.setattr(program, "plan_epoch", noted)
    train(folder, tmp_path / "out", *SHORT, "--batch-size", "16", "--recipe", recipe)
    rows = read_rows(folder)
    for plan in plans:
        assert plan.indices.shape == (10, 16) and plan.lambdas.shape == (10,)
        assert {rows[i]["split"] for i in plan.indices.flat} == {"train"}
    first = [rows[i] for i in plans[0].indices.flat]
    assert all(r["selected"] for r in first) == (recipe in ("mixfix", "ce-clean"))
    if recipe == "mixfix":  # every class as often as the largest one, pass after pass
        largest = max(Counter(r["label"] for r in rows if r["selected"]).values())
        assert set(Counter(r["label"] for r in first[: 10 * largest]).values()) == {largest}
    else:  # nobody again before everybody has been drawn
        size = int(choose_recipe(recipe, read_bundle(folder)).members.sum())
        once = plans[0].indices.flat[:size]
        assert len(set(once.tolist())) == len(once) == min(size, 160)


def test_a_weight_of_zero_leaves_a_sample_out(tmp_path: Path) -> None:
    """Whatever the label of a sample without a score is, the weights come out the same."""
    folder = make_bundle(tmp_path / "b", train=40, val=0, test=10)
    rows = read_rows(folder)
    for name, label in (("a", "one"), ("b", "two")):
        rows[0] |= {"clean_score": None, "label": label}
        write_bundle(folder, rows)
        train(folder, tmp_path / name, *SHORT, "--recipe", "weighted")
    a, b = (weights(tmp_path / name / "last.pt") for name in "ab")
    assert all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("cache", ["on", "off"])
def test_an_unreadable_image_costs_one_sample(
    tmp_path: Path, cache: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = make_bundle(tmp_path / "b")
    rows = read_rows(folder)
    bad = next(r for r in rows if r["selected"])
    (folder / bad["image"]).write_bytes(b"no image")
    tested = next(r for r in rows if r["split"] == "test")
    (folder / tested["image"]).unlink()
    results = train(folder, tmp_path / "out", *SHORT, "--cache", cache)
    assert set(results["unreadable"]) == {bad["id"], tested["id"]}
    assert bad["image"] in caplog.text and "2 images could not be read" in caplog.text
    predictions = {
        p["id"]: p for p in map(json.loads, (tmp_path / "out" / "predictions.jsonl").open())
    }
    assert predictions[bad["id"]] == {"id": bad["id"], "label": None, "confidence": None}
    sizes = [line["set_size"] for line in metrics(tmp_path / "out")]
    initial = sum(r["selected"] for r in rows)
    # Without a cache it is found in the first epoch, and gets no weight there
    assert sizes[0] == initial - (cache == "on") and sizes[1] >= initial - 1
    matrix = json.loads((tmp_path / "out" / "confusion.json").read_text())["test"]["last"]
    assert np.sum(matrix) == 59
    with pytest.raises(ValueError, match=Path(bad["image"]).name):
        train(folder, tmp_path / "strict", *SHORT, "--cache", cache, "--strict")


def test_images_that_are_all_absent_are_said_at_once(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "b", train=20, val=2, test=2)
    shutil.rmtree(folder / "images")
    with pytest.raises(ValueError, match=r"check where the bundle's images are"):
        train(folder, tmp_path / "out", "--preset", "cifar10")


def test_a_class_that_the_selection_leaves_empty(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = make_bundle(tmp_path / "b")
    rows = read_rows(folder)
    ones = [r for r in rows if r["label"] == "one" and r["split"] == "train"]
    twos = [r for r in rows if r["label"] == "two" and r["split"] == "train"]
    for r in ones + twos:
        r["selected"] = r is twos[0]
    write_bundle(folder, rows)
    train(folder, tmp_path / "out", *SHORT)
    assert "1 of 10 classes have no sample in the selection: one" in caplog.text
    assert "1 of 10 classes have only one: two" in caplog.text
    for r in rows:
        r["selected"] = False
    write_bundle(folder, rows)
    for recipe in ("mixfix", "ce-clean"):
        with pytest.raises(ValueError, match="no sample of the training split is selected"):
            train(folder, tmp_path / recipe, "--recipe", recipe)
    for r in rows:
        r["clean_score"] = None
    write_bundle(folder, rows)
    with pytest.raises(ValueError, match="no training sample has a clean score"):
        train(folder, tmp_path / "weighted", "--recipe", "weighted")


def test_without_val_the_last_weights_are_the_best(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = make_bundle(tmp_path / "b", val=0)
    results = train(folder, tmp_path / "out", *SHORT)
    assert results["best"] == results["last"] and results["best_chosen_on"] is None
    assert "the last also count as the best" in caplog.text
    assert not (tmp_path / "out" / "best.pt").exists()


def test_without_val_and_test_it_trains_and_predicts(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "b", train=30, val=0, test=0)
    results = train(folder, tmp_path / "out", *SHORT, "--batch-size", "64")
    assert results["last"] == {"epoch": 2, "val_accuracy": None, "test_accuracy": None}
    assert len((tmp_path / "out" / "predictions.jsonl").read_text().splitlines()) == 30


def test_an_epoch_may_be_a_part_of_the_samples(bundle: Path, tmp_path: Path) -> None:
    train(bundle, tmp_path, *SHORT, "--epoch-samples", "64", "--theta-r", "0", "--theta-r2", "0")
    first, second = metrics(tmp_path)
    selected = sum(r["selected"] for r in read_rows(bundle))
    assert 0 < first["set_size"] < selected
    # Everything that is predicted joins at thresholds of 0: the whole draw of the next epoch
    assert second["set_size"] == 64


def test_a_loss_that_is_not_finite_is_said(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"the loss is .*smaller --lr"):
        train(bundle, tmp_path, "--epochs", "3", "--lr", "1e6", "--network", "squeezenet1_1",
              "--image-size", "32")  # fmt: skip


def test_half_precision_needs_cuda(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--amp bf16 needs a CUDA device"):
        train(bundle, tmp_path, "--amp", "bf16")


def test_errors_reach_people_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main([str(tmp_path)]) == 1
    assert "error:" in (said := capsys.readouterr().err) and "bundle.json" in said
    folder = make_bundle(tmp_path / "b", train=20, val=2, test=2)
    (tmp_path / "file").write_text("")
    assert program.main([str(folder), "--device", "cpu", "--out", str(tmp_path / "file")]) == 1
    assert "the same command goes on from the newest checkpoint" in capsys.readouterr().err
    assert program.main([str(folder), "--network", "x", "--device", "cpu"]) == 1
    assert "'x' is unknown" in capsys.readouterr().err


def test_the_folder_alone_runs_elsewhere(bundle: Path, tmp_path: Path) -> None:
    """Copied under another name, without FiftyOne and the library in reach."""
    copy = tmp_path / "my trainer-2"
    shutil.copytree(SCRIPT.parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    barrier = tmp_path / "barrier"
    barrier.mkdir()
    for name in ("fiftyone", "clipcleaner_plugin", "training"):
        (barrier / f"{name}.py").write_text("raise ImportError('out of reach')")
    arguments = command(bundle, "--out", tmp_path / "out", *SHORT, "--workers", "2")
    arguments[1] = str(copy / "train.py")
    environment = {**one_thread(), "PYTHONPATH": str(barrier)}
    done: Any = subprocess.run(
        [*arguments, "--device", "cpu"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "epoch 2/2 | loss" in done.stderr
    train(bundle, tmp_path / "here", *SHORT)
    a, b = weights(tmp_path / "out" / "last.pt"), weights(tmp_path / "here" / "last.pt")
    assert all(torch.equal(a[key], b[key]) for key in b)


def test_the_installed_package_has_the_trainer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As ``python -m clipcleaner_plugin.training.train --help``."""
    monkeypatch.setattr(sys, "argv", ["train", "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("clipcleaner_plugin.training.train", run_name="__main__")
    assert ended.value.code == 0 and "--recipe" in capsys.readouterr().out
