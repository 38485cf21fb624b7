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
from clipcleaner_plugin.scoring import score_labels

# Run by every rank; rank 0 saves the models and scores, each the rows that it was asked about
WORK = """
import sys, numpy as np
from clipcleaner_plugin import curvature
from clipcleaner_plugin.logistic import fit_logistic
from clipcleaner_plugin.opinions import Opinions
from clipcleaner_plugin.ranks import joined
from clipcleaner_plugin.score import help_out, work_shared
from clipcleaner_plugin.scoring import score_labels

asked, blocks_here = [], Opinions.blocks_here
def count(opinions, work):
    asked.append(len(opinions.labels))
    return blocks_here(opinions, work)
Opinions.blocks_here = count

with joined() as ranks:
    if ranks.rank:  # as if on a device of another kind; what it decided by itself would show
        leading, divide = curvature.leading, curvature.Curvature.divide
        curvature.leading = lambda moments: leading(moments) * leading(moments)[ranks.rank].sign()
        curvature.Curvature.divide = lambda *args: divide(*args) * (1 + 1e-5 * ranks.rank)
        help_out(ranks)
    else:
        arrays = np.load(sys.argv[1])
        x, y, w, texts = (arrays[key] for key in ("x", "y", "w", "texts"))
        with work_shared(ranks):
            for name in ("first", "second"):
                more = {"doubts": ((y + 1) % 4, arrays["share"]), "pilot": arrays["pilot"]}
                found = fit_logistic(x, y, 4, w, 10, 2e-4, **(more if name == "second" else {}))
                np.savez(sys.argv[2] + name, w=found.coefficients, b=found.intercepts)
            for name, looks in (("same", None), ("others", arrays["looks"])):
                found = score_labels(x, y, texts, visual_features=looks)
                np.savez(sys.argv[2] + name, verdict=found.verdict, **found.evidence)
    np.savetxt(sys.argv[2] + f"asked{ranks.rank}", asked)
"""


def torchrun(processes: int, *what: str) -> subprocess.CompletedProcess[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = [*launcher, "--nproc_per_node", str(processes), *what]
    # Processes that part wait for each other until then
    return subprocess.run(command, capture_output=True, text=True, timeout=400)


def test_rows_spread_over_processes_give_what_one_gives(tmp_path: Path) -> None:
    data = make_clusters(401, 4, spread=0.3)
    labels = flip(data.truth, 4, 0.2)
    weights = np.ones((2, 401), dtype=np.float32)
    weights[1, 150:260] = 0
    looks = make_clusters(401, 4, spread=0.6, seed=1).images
    share = np.random.default_rng(0).uniform(0, 0.5, 401).astype(np.float32)
    pilot = np.where(np.arange(401) < 100, 4, 0).astype(np.float32)  # all with the first process
    more = {"doubts": ((labels + 1) % 4, share), "pilot": pilot}
    rows = {
        "share": share,
        "pilot": pilot,
        "x": data.images,
        "y": labels,
        "w": weights,
        "texts": data.texts,
        "looks": looks,
    }
    np.savez(tmp_path / "rows.npz", **rows)
    (tmp_path / "work.py").write_text(WORK)
    done = torchrun(3, str(tmp_path / "work.py"), str(tmp_path / "rows.npz"), str(tmp_path) + "/")
    assert done.returncode == 0, done.stderr
    for name, options in (("first", {}), ("second", more)):
        alone = fit_logistic(data.images, labels, 4, weights, 10, 2e-4, **options)
        shared = np.load(tmp_path / f"{name}.npz")
        for m in range(2):
            found = softmax(data.images @ shared["w"][m].T + shared["b"][m], axis=1)
            expected = softmax(alone.logits(m, data.images), axis=1)
            assert found == pytest.approx(expected, abs=1e-3)
    for name, other in (("same", None), ("others", looks)):
        expected = score_labels(data.images, labels, data.texts, visual_features=other)
        shared = np.load(tmp_path / f"{name}.npz")
        np.testing.assert_array_equal(shared["verdict"], expected.verdict)
        for evidence, values in expected.evidence.items():
            # Log-odds, up to about 70
            rough = {"abs": 0.05, "rel": 0.01} if evidence == "margin" else {"abs": 1e-3}
            assert shared[evidence] == pytest.approx(values, **rough)
    for rank, share in enumerate((133, 134, 134)):  # of the evidence and of the fused score, twice
        np.testing.assert_array_equal(np.loadtxt(tmp_path / f"asked{rank}"), [share] * 4)


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
            # The noise model, which the score depends on, takes part in every rounding
            assert two == pytest.approx(one, abs=2e-2 if name == "score" else 1e-3)
    finally:
        dataset.delete()


def test_a_failure_of_rank_0_ends_the_others() -> None:
    done = torchrun(2, "-m", "clipcleaner_plugin.score", "no-such-dataset")
    assert done.returncode != 0
    assert "No dataset is named 'no-such-dataset'" in done.stderr
