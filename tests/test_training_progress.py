"""What a training says while it goes on: in a terminal, and to the App."""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import fiftyone as fo
import pytest
from operators_at_work import module
from training_bundles import make_bundle

from clipcleaner_plugin import trainer
from training.options import parse
from training.train import run

OPTIONS = ["--epochs", "3", "--batch-size", "16", "--device", "cpu", "--workers", "0"]


@pytest.mark.parametrize(("val", "test"), [(20, 20), (0, 0)])
def test_the_text_tells_the_accuracy_of_the_last_epoch(
    tmp_path: Path, repo_root: Path, monkeypatch: pytest.MonkeyPatch, val: int, test: int
) -> None:
    monkeypatch.setattr(fo.config, "plugins_dir", str(repo_root))
    monkeypatch.setattr(fo.config, "show_progress_bars", False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    bundle = make_bundle(tmp_path / "bundle", train=48, val=val, test=test)
    shown = module("running").Progress(lambda: False)
    texts = []

    def report(bar: Any) -> None:
        shown.report(bar)
        texts.append(shown.label)

    trainer.train(bundle, tmp_path / "run", OPTIONS, report)
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    parts = [f"{name} {last[f'{name}_accuracy']:.1%}" for name, n in (("val", val), ("test", test))
             if n]  # fmt: skip
    expected = " – 3 done" + (f", accuracy {', '.join(parts)}" if parts else "")
    assert texts[-1].endswith(expected)
    assert not any("accuracy" in text for text in texts if " – 0 done" in text)


class Terminal(io.StringIO):
    """A stream that calls itself a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stream", [Terminal, io.StringIO])
def test_a_terminal_shows_a_bar_and_a_file_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream: type[io.StringIO]
) -> None:
    bundle = make_bundle(tmp_path / "bundle", train=48, val=8, test=8)
    shown = stream()
    monkeypatch.setattr(sys, "stderr", shown)
    run(parse([str(bundle), "--out", str(tmp_path / "run"), *OPTIONS]))
    text = shown.getvalue()
    full = re.findall(r"\r(epoch \d|predict) █{20} (\d+)/\2  0 s left", text)
    if stream is Terminal:
        # 48 images in 3 batches; 64 are predicted in batches twice as large
        first, second = (("epoch 1", "3"), ("predict", "2")), (("epoch 2", "3"), ("predict", "2"))
        assert full[:4] == [*first, *second] and text.endswith("\r\033[K")
    else:
        assert text == ""
