"""The command line on real datasets: results, messages, exit statuses, Ctrl-C."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import fiftyone as fo
import pytest

from clipcleaner_plugin import TINY_CLIP, __version__
from clipcleaner_plugin import __main__ as cli
from clipcleaner_plugin.digits import load_half, render

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TINY = ["--model", TINY_CLIP, "--num-workers", "0"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str]]:
    """Paths and true names of 200 digits that the embedded model was not trained on."""
    folder = tmp_path_factory.mktemp("digits")
    scans, labels, _ = load_half("held-out")
    made = []
    for i, (scan, label) in enumerate(zip(scans[:200], labels[:200], strict=True)):
        render(scan).save(folder / f"{i}.png")
        made.append((str(folder / f"{i}.png"), DIGITS[label]))
    return made


@pytest.fixture
def digits(dataset: Callable[..., fo.Dataset], pictures: list[tuple[str, str]]) -> fo.Dataset:
    """The pictures with every tenth label wrong, tagged "wrong"; persistent."""
    samples = []
    for i, (path, name) in enumerate(pictures):
        wrong = i % 10 == 0
        label = DIGITS[(DIGITS.index(name) + 3) % 10] if wrong else name
        tags = ["wrong"] if wrong else []
        ground_truth = fo.Classification(label=label)
        samples.append(fo.Sample(filepath=path, ground_truth=ground_truth, tags=tags))
    return dataset(samples, persistent=True)


def test_score_finds_planted_errors_and_prints_a_summary(
    digits: fo.Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["score", digits.name, "--key", "cc", *TINY]) == 0
    out = capsys.readouterr().out
    assert "mislabeled" in out
    assert f"fiftyone app launch {digits.name}" in out
    digits.reload()
    flagged = digits.load_saved_view("cc: mislabeled")
    wrong, found = set(digits.match_tags("wrong").values("id")), set(flagged.values("id"))
    assert len(wrong & found) >= 18 and len(found - wrong) <= 2  # of 20 that are wrong


def test_embed_keeps_vectors_and_works_on_a_saved_view(
    digits: fo.Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    digits.save_view("some", digits.limit(50))
    field = ["--embeddings-field", "vectors"]
    assert cli.main(["embed", digits.name, "--view", "some", *field, *TINY]) == 0
    assert "50 computed, 0 reused, 0 unreadable" in capsys.readouterr().out
    assert cli.main(["embed", digits.name, *TINY]) == 0
    assert "150 computed, 50 reused" in capsys.readouterr().out
    digits.reload()
    assert len(digits.exists("vectors")) == 50


def test_embed_lists_what_it_could_not_read(
    digits: fo.Dataset, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    bad = [fo.Sample(filepath=str(tmp_path / f"absent-{i}.png")) for i in range(12)]
    digits.add_samples(bad, progress=False)
    assert cli.main(["embed", digits.name, *TINY]) == 0
    out = capsys.readouterr().out
    assert "200 computed, 0 reused, 12 unreadable" in out
    assert out.count("absent-") == 10
    assert "and 2 more" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["score", "no-such-dataset"], "No dataset is named 'no-such-dataset'"),
        (["embed", "{name}", "--view", "nope"], "has no saved view 'nope'; it has: none"),
        (["score", "{name}", "--label-field", "lables", *TINY], "lables"),
        (["score", "{name}", "--theta-gmm", "7", *TINY], "theta_gmm"),
        (["score", "{name}", "--model", "ViT-B-3000"], "ViT-B-3000"),
        (["score", "{name}", "--device", "gpu9", *TINY], "device='gpu9'"),
        (["embed", "{name}", "--device", "gpu9", *TINY], "device='gpu9'"),
    ],
)
def test_errors_are_words(
    digits: fo.Dataset, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([a.format(name=digits.name) for a in arguments]) == 1
    err = capsys.readouterr().err
    assert "error: " in err
    assert words in err
    assert "Traceback" not in err


def test_a_dataset_with_a_similar_name_is_suggested(
    digits: fo.Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["score", digits.name[:-1] + "-"]) == 1
    assert f"there are: {digits.name}" in capsys.readouterr().err


def test_verbose_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["score", "no-such-dataset", "--verbose"]) == 1
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.strip() == __version__
    with pytest.raises(SystemExit) as stop:
        cli.main([])
    assert stop.value.code == 2


@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C cannot be sent to one process there")
def test_ctrl_c_stops_and_the_same_command_resumes(
    digits: fo.Dataset, tmp_path: Path, repo_root: Path
) -> None:
    store = tmp_path / "store"
    env = os.environ | {"CLIPCLEANER_STORE_DIR": str(store), "PYTHONPATH": str(repo_root)}
    command = ["embed", digits.name, *TINY, "--batch-size", "8"]
    running = subprocess.Popen(
        [sys.executable, str(repo_root / "tests" / "midway.py"), "100", *command],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while sum(f.stat().st_size for f in store.rglob("*") if f.is_file()) < 5_000:
        assert running.poll() is None
        time.sleep(0.01)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate()
    assert running.returncode == cli.INTERRUPTED
    assert "Run the same command again: it resumes" in err
    assert "Traceback" not in err

    done = subprocess.run(
        [sys.executable, "-m", "clipcleaner_plugin", *command],
        env=env, capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = re.search(r"(\d+) computed, (\d+) reused, 0 unreadable", done.stdout)
    assert found is not None, done.stdout
    computed, reused = map(int, found.groups())
    assert computed + reused == 200
    assert 1 <= reused <= 108
