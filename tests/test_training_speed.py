"""The benchmark of the trainer: what it is compared with is the same recipe."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import training

TINY = ["--samples", "96", "--side", "8", "--image-size", "8",
        "--padding", "1", "--batch-size", "16", "--device", "cpu", "--theta-r", "0.05",
        "--theta-r2", "0.12", "--quiet"]  # fmt: skip


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(["--network", "small-cnn"], id="small"),
        # Batch normalisation tells training from predicting, and decay is strong: 3 % a step. It
        # also multiplies what is rounded otherwise, so the rate is small
        pytest.param(
            ["--network", "preact-resnet18", "--lr", "3e-4", "--weight-decay", "100"], id="resnet"
        ),
    ],
)
def test_both_ways_train_alike(capsys: pytest.CaptureFixture[str], options: list[str]) -> None:
    """Batches, augmentation, mixup, loss, decay, absorbed and relabelled samples: all show in the
    loss."""
    assert training.main([*TINY, *options, "--epochs", "3"]) == 0
    printed = capsys.readouterr().out
    rows = [line.split("|")[1:-1] for line in printed.splitlines() if " x |" in line]
    losses = {row[0].strip(): [float(x) for x in row[-1].split(",")] for row in rows}
    assert list(losses) == ["plain loop", "trainer"] and len(set(losses["trainer"])) == 3
    np.testing.assert_allclose(losses["plain loop"], losses["trainer"], atol=2e-4)
    assert "96 training and 19 test images of 8 px" in printed
    assert f"{options[1]}, 8 px, batches of 16" in printed
