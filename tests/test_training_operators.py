"""Exporting and training from the App and the command line: real folders, processes, networks."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
import pytest
from fiftyone.operators.delegated import DelegatedOperationService
from fiftyone.operators.executor import ExecutionError, ExecutionRunState
from noisy_digits import make_samples
from operators_at_work import context, form, module, requests, uri

import clipcleaner_plugin as cc
from clipcleaner_plugin import __main__ as cli
from clipcleaner_plugin import trainer
from clipcleaner_plugin.launch import command_lines
from clipcleaner_plugin.trainer import TrainerOptions
from training.bundle import read_bundle
from training.presets import PRESETS
from training.recipes import RECIPES

N = 120
# 8 x 8 pixels on a small network: an epoch takes no time, the start of torch all of it
SMALL = ["--network", "small-cnn", "--image-size", "8", "--resize", "8", "--padding", "1",
         "--augmentation", "crop", "--device", "cpu", "--workers", "0"]  # fmt: skip

Maker = Callable[..., fo.Dataset]


@pytest.fixture(autouse=True)
def plugin(monkeypatch: pytest.MonkeyPatch, repo_root: Path) -> None:
    monkeypatch.setattr(fo.config, "plugins_dir", str(repo_root))
    monkeypatch.setattr(fo.config, "show_progress_bars", False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture
def digits(dataset: Maker, tmp_path: Path) -> fo.Dataset:
    (tmp_path / "source").mkdir()
    made = dataset(make_samples(tmp_path / "source", N), persistent=True)
    made.apply_clipcleaner("ground_truth", embeddings="pixels", model=None)
    return made


@pytest.fixture
def service() -> Iterator[DelegatedOperationService]:
    service = DelegatedOperationService()
    yield service
    for operation in service.list_operations():
        service.delete_operation(operation.id)


def execute(name: str, samples: Any, params: dict[str, Any], **more: Any) -> Any:
    kind = "view" if isinstance(samples, fo.DatasetView) else "dataset"
    return foo.execute_operator(uri(name), {kind: samples}, params=params, **more)


# --- export


def test_the_app_exports_what_the_library_does(digits: fo.Dataset, tmp_path: Path) -> None:
    params = {"key": "clipcleaner", "export_dir": str(tmp_path / "app"), "media": "symlink",
              "trusted_field": "trusted"}  # fmt: skip
    sent = requests(execute("export_cleaned", digits, params))
    cc.export_cleaned(
        digits, "clipcleaner", tmp_path / "lib", export_media="symlink", trusted_field="trusted"
    )
    for name in ("manifest.jsonl", "bundle.json"):
        assert (tmp_path / "app" / name).read_bytes() == (tmp_path / "lib" / name).read_bytes()
    notice = dict(sent)["notify"]
    assert notice["variant"] == "success" and f"{N} samples" in notice["message"]
    assert [name for name, _ in sent][-2:] == ["set_progress", "notify"]


def test_the_app_exports_a_view_or_the_dataset(digits: fo.Dataset, tmp_path: Path) -> None:
    for target, n in (("CURRENT_VIEW", 40), ("DATASET", N)):
        out = tmp_path / target
        params = {"key": "clipcleaner", "export_dir": str(out), "view_target": target}
        execute("export_cleaned", digits.limit(40), params)
        assert len(read_bundle(out)) == n


def test_hidden_inputs_do_not_count(digits: fo.Dataset, tmp_path: Path) -> None:
    """The App sends what was typed before another format hid it."""
    name = f"{digits.name}-cleaned"
    params = {"key": "clipcleaner", "format": "dataset", "dataset_name": name, "media": "symlink",
              "export_dir": str(tmp_path / "b"), "trusted_field": "trusted"}  # fmt: skip
    try:
        execute("export_cleaned", digits, params)
        assert len(fo.load_dataset(name)) == cc.load_results(digits).counts()["clean"]
        assert not (tmp_path / "b").exists()
        taken = form("export_cleaned", digits, **params)["dataset_name"]
        assert taken["invalid"] and "earlier export" in taken["error_message"]
        again = form("export_cleaned", digits, **params, overwrite=True)["dataset_name"]
        assert not again["invalid"]
    finally:
        fo.delete_dataset(name)


def test_the_form_fits_the_format(digits: fo.Dataset) -> None:
    bundle = form("export_cleaned", digits)
    assert {"export_dir", "media", "split", "trusted_field"} <= set(bundle)
    assert "labels" not in bundle and bundle["trusted_field"]["type"]["values"] == ["trusted"]
    tree = form("export_cleaned", digits, format="image_tree", labels="suggested")
    assert {"labels", "min_confidence"} <= set(tree) and "trusted_field" not in tree
    assert tree["media"]["type"]["values"] == ["copy", "symlink"]
    made = form("export_cleaned", digits, format="dataset")
    assert "dataset_name" in made and "export_dir" not in made and "media" not in made
    digits.delete_brain_run("clipcleaner")
    for name in ("export_cleaned", "train_on_cleaned"):
        assert "no CLIPCleaner runs" in form(name, digits)["blocked"]["view"]["label"]


@pytest.mark.parametrize("name", ["export_cleaned", "train_on_cleaned"])
def test_a_folder_is_checked_while_it_is_typed(
    digits: fo.Dataset, tmp_path: Path, name: str
) -> None:
    proposed = form(name, digits)["export_dir"]
    assert os.path.isabs(proposed["default"]) and not proposed["invalid"]
    relative = form(name, digits, export_dir="here")["export_dir"]
    assert relative["invalid"] and "absolute" in relative["error_message"]
    foreign = form(name, digits, export_dir=str(tmp_path / "source"))
    assert "left alone" in foreign["export_dir"]["error_message"] and "overwrite" not in foreign
    cc.export_cleaned(digits, "clipcleaner", tmp_path / "b")
    ours = form(name, digits, export_dir=str(tmp_path / "b"))
    assert not ours["export_dir"]["invalid"] and "overwrite" in ours


def test_a_failed_export_is_said_in_words(digits: fo.Dataset, tmp_path: Path) -> None:
    cc.export_cleaned(digits.limit(50), "clipcleaner", tmp_path / "b")
    params = {"key": "clipcleaner", "export_dir": str(tmp_path / "b")}
    with pytest.raises(ExecutionError, match="holds an earlier export"):
        execute("export_cleaned", digits, params)
    execute("export_cleaned", digits, {**params, "overwrite": True})
    assert len(read_bundle(tmp_path / "b")) == N


def test_exports_can_be_scheduled(
    digits: fo.Dataset, tmp_path: Path, service: DelegatedOperationService
) -> None:
    operator = foo.get_operator(uri("export_cleaned"))
    operator(digits, export_dir=tmp_path / "q", export_media=False, delegate=True)
    service.execute_queued_operations()
    (done,) = service.list_operations()
    assert done.run_state == ExecutionRunState.COMPLETED, done.result.error
    assert len(read_bundle(tmp_path / "q", referenced=True)) == N
    assert done.result.result["path"] == str(tmp_path / "q")
    direct = operator(digits, export_dir=tmp_path / "d", split="random")
    assert direct.splits == {"train": 96, "val": 12, "test": 12}
    with pytest.raises(ValueError, match="export_media must be one of"):
        operator(digits, export_dir=tmp_path / "x", export_media="move", delegate=True)
    with pytest.raises(TypeError, match="colour"):
        operator(digits, export_dir=tmp_path / "x", colour="red", delegate=True)


# --- training


def test_a_scheduled_training_brings_its_predictions_back(
    digits: fo.Dataset, tmp_path: Path, service: DelegatedOperationService
) -> None:
    operator = foo.get_operator(uri("train_on_cleaned"))
    operator(
        digits, export_dir=tmp_path / "b", epochs=2, batch_size=16, trainer_args=SMALL,
        trusted_field="trusted", prediction_field="guess", delegate=True,
    )  # fmt: skip
    (operation,) = service.list_operations()
    assert operation.label == "Training on clipcleaner (mixfix)"
    service.execute_queued_operations()
    (done,) = service.list_operations()
    assert done.run_state == ExecutionRunState.COMPLETED, done.result.error
    assert done.status.label.startswith("Done")
    run_dir = Path(done.result.result["run_dir"])
    assert run_dir.parent == tmp_path / "b" / "runs"
    config = json.loads((run_dir / "config.json").read_text())
    assert (config["recipe"], config["epochs"], config["batch_size"]) == ("mixfix", 2, 16)
    digits.reload()
    lines = (run_dir / "predictions.jsonl").read_text().splitlines()
    predicted = {row["id"]: row["label"] for row in map(json.loads, lines)}
    assert dict(zip(*digits.values(["id", "guess.label"]), strict=True)) == predicted
    evaluation = digits.evaluate_classifications("guess", gt_field="trusted", eval_key="eval")
    assert 0 <= evaluation.metrics()["accuracy"] <= 1

    # The same again: nothing is exported or trained anew
    before = (run_dir / "metrics.jsonl").read_bytes()
    service.rerun_operation(operation.id)
    service.execute_queued_operations()
    states = [op.run_state for op in service.list_operations()]
    assert states == [ExecutionRunState.COMPLETED] * 2
    assert (run_dir / "metrics.jsonl").read_bytes() == before


class _Stop(Exception):
    pass


def test_a_training_marked_as_failed_stops_and_goes_on_later(
    digits: fo.Dataset, tmp_path: Path, service: DelegatedOperationService
) -> None:
    operator = foo.get_operator(uri("train_on_cleaned"))
    options = {"epochs": 5000, "batch_size": 16, "trainer_args": SMALL}
    operator(digits, export_dir=tmp_path / "b", **options, delegate=True)
    (operation,) = service.list_operations()
    params = operation.context.request_params["params"]
    ctx = context(digits, params, delegated=True, run_doc=operation.id)

    def work(report: Callable[[Any], None]) -> Any:
        def fail_after_three(bar: Any) -> None:
            if bar.total == 5000 and bar.iteration >= 3:
                service.set_failed(operation.id)
            report(bar)

        return module("train_on_cleaned")._train(ctx, fail_after_three)

    with pytest.raises(RuntimeError, match="Cancelled; what was computed so far is kept"):
        module("running").run_delegated(ctx, work)
    (run_dir,) = (tmp_path / "b" / "runs").iterdir()
    done = _epochs(run_dir)
    assert 3 <= done < 5000 and not _processes(run_dir)

    def stop_later(bar: Any) -> None:
        if bar.total == 5000 and bar.iteration > done:
            raise _Stop

    with pytest.raises(_Stop):
        operator(digits, export_dir=tmp_path / "b", progress=stop_later, **options)
    assert list((tmp_path / "b" / "runs").iterdir()) == [run_dir]
    assert "Going on after epoch" in (run_dir / "trainer.log").read_text()
    assert not _processes(run_dir) and not digits.has_sample_field("clipcleaner_prediction")


def test_a_training_does_not_outlive_a_killed_worker(
    digits: fo.Dataset, tmp_path: Path, repo_root: Path
) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(repo_root)!r})\n"
        "import fiftyone as fo, clipcleaner_plugin as cc\n"
        f"cc.train_on_cleaned(fo.load_dataset({digits.name!r}), 'clipcleaner', "
        f"{str(tmp_path / 'b')!r}, epochs=5000, batch_size=16, trainer_args={SMALL!r})\n"
    )
    worker = subprocess.Popen([sys.executable, "-c", code])
    runs = tmp_path / "b" / "runs"
    try:
        _wait_until(lambda: any(_epochs(p) for p in runs.glob("*")))
        (run_dir,) = runs.iterdir()
        assert _processes(run_dir)
        with pytest.raises(FileExistsError, match="another process is training into"):
            trainer.train(tmp_path / "b", run_dir, SMALL, False)
    finally:
        worker.send_signal(signal.SIGKILL)
        worker.wait()
    _wait_until(lambda: not _processes(run_dir))


def test_a_failed_training_says_why(digits: fo.Dataset, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"no-such-network.*trainer\.log"):
        cc.train_on_cleaned(
            digits, "clipcleaner", tmp_path / "b", epochs=1,
            trainer_args=[*SMALL, "--network", "no-such-network"],
        )  # fmt: skip
    assert not digits.has_sample_field("clipcleaner_prediction")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"recipe": "magic"}, "recipe must be one of mixfix, ce,"),
        ({"preset": "mnist"}, "preset must be one of auto, cifar10,"),
        ({"epochs": 0}, "epochs must be a number of at least 1"),
        ({"prediction_field": "ground_truth"}, "field 'ground_truth' exists"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_exported(
    digits: fo.Dataset, tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        cc.train_on_cleaned(digits, "clipcleaner", tmp_path / "b", **options)
    assert not (tmp_path / "b").exists()


def test_the_form_offers_what_the_trainer_has(digits: fo.Dataset) -> None:
    inputs = form("train_on_cleaned", digits)
    assert inputs["preset"]["type"]["values"] == ["auto", *PRESETS]
    assert inputs["recipe"]["type"]["values"] == list(RECIPES)
    taken = form("train_on_cleaned", digits, prediction_field="ground_truth")["prediction_field"]
    assert taken["invalid"] and "does not hold predictions" in taken["error_message"]
    assert not foo.get_operator(uri("train_on_cleaned")).config.allow_immediate_execution


def test_the_form_shows_commands_to_copy(
    digits: fo.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = {"epochs": 3, "recipe": "ce", "export_dir": "/data/my photos", "media": "reference",
              "trusted_field": "trusted", "split": "random"}  # fmt: skip
    text = form("train_on_cleaned", digits, **params)["commands"]["default"]
    for line in command_lines(
        digits.name, "clipcleaner", "/data/my photos", TrainerOptions("ce", epochs=3),
        media="reference", trusted_field="trusted", split="random",
    ):  # fmt: skip
        assert f"`{line}`" in text
    assert "--referenced" in text and "--trusted-field trusted" in text
    assert "fiftyone delegated launch" in text
    monkeypatch.setattr(fo.config, "allow_legacy_orchestrators", False)
    text = form("train_on_cleaned", digits, **params)["commands"]["default"]
    assert "FIFTYONE_ALLOW_LEGACY_ORCHESTRATORS" in text and "'/data/my photos'" in text


def test_the_commands_do_what_they_say(
    digits: fo.Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = command_lines(
        digits.name, "clipcleaner", str(tmp_path / "my photos"),
        TrainerOptions("ce-clean", epochs=1, batch_size=16, more=tuple(SMALL)), "guess",
        media="reference", trusted_field="trusted", split="random",
    )  # fmt: skip
    export, train, load = (shlex.split(line) for line in lines)
    program = [sys.executable, "-m", "clipcleaner_plugin"]
    assert export[:3] == load[:3] == program
    assert cli.main(export[3:]) == 0
    done = subprocess.run(train, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert cli.main(load[3:]) == 0
    digits.reload()
    assert digits.count("guess.label") == N
    assert f"{N} predictions in 'guess'" in capsys.readouterr().out


# --- command line


def test_export_from_the_command_line(
    digits: fo.Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    digits.save_view("some", digits.limit(50))
    command = ["export", digits.name, str(tmp_path / "b"), "--media", "reference"]
    assert cli.main([*command, "--view", "some", "--trusted-field", "trusted"]) == 0
    assert "50 samples" in capsys.readouterr().out
    assert len(read_bundle(tmp_path / "b", referenced=True)) == 50
    assert cli.main(command) == 1
    assert "holds an earlier export" in capsys.readouterr().err
    name = f"{digits.name}-cleaned"
    try:
        assert cli.main(["export", digits.name, name, "--format", "dataset"]) == 0
        assert len(fo.load_dataset(name)) == cc.load_results(digits).counts()["clean"]
    finally:
        fo.delete_dataset(name)
    assert cli.main(["predictions", digits.name, str(tmp_path)]) == 1
    assert "a training run that has finished" in capsys.readouterr().err


# --- helpers


def _epochs(run_dir: Path) -> int:
    path = run_dir / "metrics.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


def _processes(run_dir: Path) -> list[str]:
    """Trainers that work in a folder."""
    found = subprocess.run(["ps", "-eww", "-o", "stat,args"], capture_output=True, text=True).stdout
    return [
        line
        for line in found.splitlines()
        if "train.py" in line and str(run_dir) in line and not line.startswith("Z")
    ]


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "waited for a minute"
        time.sleep(0.1)
