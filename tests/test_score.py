"""Scoring by several processes: the same models and verdicts as by one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import fiftyone as fo
import numpy as np
import pytest
from feature_clusters import flip, make_clusters
from noisy_digits import make_samples
from scipy.special import softmax

from clipcleaner_plugin.apply import apply_clipcleaner
from clipcleaner_plugin.logistic import fit_logistic
from clipcleaner_plugin.models import TINY_CLIP

# Run by every rank; rank 0 saves the models
FIT = """
import sys, numpy as np
from clipcleaner_plugin.ranks import joined
from clipcleaner_plugin.score import fits_shared, help_fits
from clipcleaner_plugin.logistic import fit_logistic
with joined() as ranks:
    if ranks.rank:
        help_fits(ranks)
    else:
        arrays = np.load(sys.argv[1])
        with fits_shared(ranks):
            for name in ("first", "second"):
                x, y, w = (arrays[key] for key in "xyw")
                found = fit_logistic(x, y, 4, w, [1.0, 10.0], [5e-5, 1.5e-4])
                np.savez(sys.argv[2] + name, w=found.coefficients, b=found.intercepts)
"""


def torchrun(processes: int, *what: str) -> subprocess.CompletedProcess[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return subprocess.run(
        [*launcher, "--nproc_per_node", str(processes), *what], capture_output=True, text=True
    )


def test_rows_spread_over_processes_give_the_models_of_one(tmp_path: Path) -> None:
    data = make_clusters(401, 4, spread=0.4)
    labels = flip(data.truth, 4, 0.3)
    weights = np.ones((2, 401), dtype=np.float32)
    weights[1, 150:260] = 0
    np.savez(tmp_path / "rows.npz", x=data.images, y=labels, w=weights)
    (tmp_path / "fit.py").write_text(FIT)
    done = torchrun(3, str(tmp_path / "fit.py"), str(tmp_path / "rows.npz"), str(tmp_path) + "/")
    assert done.returncode == 0, done.stderr
    alone = fit_logistic(data.images, labels, 4, weights, [1.0, 10.0], [5e-5, 1.5e-4])
    for name in ("first", "second"):
        shared = np.load(tmp_path / f"{name}.npz")
        for m in range(2):
            found = softmax(data.images @ shared["w"][m].T + shared["b"][m], axis=1)
            expected = softmax(alone.logits(m, data.images), axis=1)
            assert found == pytest.approx(expected, abs=1e-3)


def test_torchrun_scores_a_dataset_as_one_process_does(tmp_path: Path) -> None:
    dataset = fo.Dataset(persistent=True)
    try:
        dataset.add_samples(make_samples(tmp_path, 300), progress=False)
        command = ["-m", "clipcleaner_plugin.score", dataset.name, "--key", "two"]
        done = torchrun(2, *command, "--model", TINY_CLIP, "--num-workers", "0")
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("To review them") == 1
        dataset.reload()
        apply_clipcleaner(dataset, "ground_truth", key="one", model=TINY_CLIP, num_workers=0)
        assert dataset.values("two_verdict") == dataset.values("one_verdict")
        assert dataset.count_values("two_verdict")["mislabeled"] > 30
        for name in ("score", "visual_loss", "visual_consistency"):
            two, one = (np.array(dataset.values(f"{key}_{name}")) for key in ("two", "one"))
            assert two == pytest.approx(one, abs=1e-3)
    finally:
        dataset.delete()


def test_a_failure_of_rank_0_ends_the_others() -> None:
    done = torchrun(2, "-m", "clipcleaner_plugin.score", "no-such-dataset")
    assert done.returncode != 0
    assert "No dataset is named 'no-such-dataset'" in done.stderr
