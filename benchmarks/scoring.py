"""How long ``score_labels`` takes, and how much memory: ``python -m benchmarks.scoring [CASE …]``.

Cases: ``speed`` (50,000 x 512 with 10 and 100 classes, or those of ``--classes``, beside the
reference's way), ``memory`` (10,000 to a million samples, and a thousand classes), ``large`` (a
million samples of a thousand classes: for a GPU; on a CPU it takes about an hour). Features are
drawn: an offset that all share, as CLIP's have, a spectrum that falls, and 20 % wrong labels. Every
measurement has a process of its own; results are printed as Markdown.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks.machine import describe

DIM = 512
SPEED = 50_000
MEMORY = ((10_000, 10), (100_000, 10), (1_000_000, 10), (10_000, 1000), (20_000, 1000))
LARGE = (1_000_000, 1000)
# scikit-learn's default, which the reference leaves as it is, and one that is near to convergence
TOLERANCES = {"reference": 1e-4, "converged": 1e-6}


def make_data(n: int, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draws features, labels of which 20 % are drawn anew, and text features.

    Args:
        n: number of samples
        k: number of classes

    Returns:
        (n, 512) float32 unit rows, (n,) int labels, (k, 512) float32
    """
    rng = np.random.default_rng(0)
    spectrum = np.arange(1, DIM + 1, dtype=np.float32) ** -0.7
    spectrum /= np.linalg.norm(spectrum)
    offset = rng.standard_normal(DIM, dtype=np.float32)
    offset *= 2 / np.linalg.norm(offset)
    centres = rng.standard_normal((k, DIM), dtype=np.float32) * spectrum
    labels = np.arange(n) % k
    features = np.empty((n, DIM), dtype=np.float32)
    for start in range(0, n, 8192):
        rows = slice(start, start + 8192)
        noise = rng.standard_normal((len(labels[rows]), DIM), dtype=np.float32)
        features[rows] = offset + centres[labels[rows]] + 1.1 * noise * spectrum
        features[rows] /= np.linalg.norm(features[rows], axis=1, keepdims=True)
    texts = offset / 2 + centres + rng.standard_normal((k, DIM), dtype=np.float32) * spectrum
    hit = rng.random(n) < 0.2
    return features, np.where(hit, rng.integers(0, k, n), labels), texts


def score(n: int, k: int, device: str | None) -> dict[str, float]:
    """Times ``score_labels``, and the memory that it takes beyond its input."""
    import torch  # loaded before the clock starts
    from sklearn.mixture import GaussianMixture  # noqa: F401

    from clipcleaner_plugin.scoring import score_labels

    features, labels, texts = make_data(n, k)
    score_labels(features[:100], labels[:100] % 2, texts[:2], device=device)
    before = _peak()
    started, computed = time.perf_counter(), time.process_time()
    found = score_labels(features, labels, texts, device=device)
    seconds, computed = time.perf_counter() - started, time.process_time() - computed
    on_device = torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else 0
    return {
        "seconds": seconds,
        "cpu": computed,
        "megabytes": _peak() - before,
        "device": on_device,
        "mislabeled": float(np.mean(found.verdict == "mislabeled")),
    }


def fits(n: int, k: int, device: str | None) -> dict[str, Any]:
    """Times the six logistic regressions of ``score_labels``: of all samples, and of the folds."""
    from clipcleaner_plugin.scoring import scoring_device
    from clipcleaner_plugin.visual import fit_visual

    features, labels, _ = make_data(n, k)
    fold_of = np.arange(n) * 5 // n
    started, computed = time.perf_counter(), time.process_time()
    found = fit_visual(features, labels, fold_of, k, device=scoring_device(device))
    seconds, computed = time.perf_counter() - started, time.process_time() - computed
    assert found.of_folds is not None
    passes = f"{found.of_all.passes} and {found.of_folds.passes}"
    return {"seconds": seconds, "cpu": computed, "passes": passes}


def reference(n: int, k: int, tolerance: float) -> dict[str, float]:
    """Times one in-sample logistic regression and the mixtures of both losses, by scikit-learn."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.mixture import GaussianMixture

    features, labels, texts = make_data(n, k)
    started, computed = time.perf_counter(), time.process_time()
    similarity = features @ texts.T / 0.07
    similarity -= similarity.max(axis=1, keepdims=True)
    by_language = np.exp(similarity)
    by_language /= by_language.sum(axis=1, keepdims=True)
    model = LogisticRegression(class_weight="balanced", tol=tolerance, max_iter=10_000)
    by_images = model.fit(features, labels).predict_proba(features)
    for probabilities in (by_language, by_images):
        loss = np.log(np.maximum(probabilities[np.arange(n), labels], 1e-38))
        for c in range(k):
            own = loss[labels == c]
            own = (own - own.min()) / (own.max() - own.min())
            GaussianMixture(2, random_state=51).fit(own[:, None])
    seconds, computed = time.perf_counter() - started, time.process_time() - computed
    return {"seconds": seconds, "cpu": computed, "passes": int(model.n_iter_[0])}


def cleanlab(n: int, k: int) -> dict[str, float]:
    """Times the part that cleanlab does: issues, from probabilities that are there already."""
    from cleanlab.filter import find_label_issues

    features, labels, texts = make_data(n, k)
    probabilities = np.exp(features @ texts.T / 0.01)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    started, computed = time.perf_counter(), time.process_time()
    find_label_issues(labels, probabilities, n_jobs=1)
    seconds, computed = time.perf_counter() - started, time.process_time() - computed
    return {"seconds": seconds, "cpu": computed}


def speed(device: str | None, classes: list[int]) -> Iterator[str]:
    """Yields a table of times beside the reference's way, line by line."""
    yield _row(
        "samples x classes",
        "score_labels",
        "of it six logistic regressions, and passes without those of the pilot",
        *(f"scikit-learn, {name}: one logistic regression, mixtures" for name in TOLERANCES),
        "score_labels / these",
        "cleanlab's issues alone",
    )
    yield _row(*["---"] * (5 + len(TOLERANCES)))
    for n, k in ((SPEED, k) for k in classes):
        own = _measure("score", n, k, device)
        others = [_measure("reference", n, k, tolerance) for tolerance in TOLERANCES.values()]
        ratios = [f"{own['seconds'] / other['seconds']:.2f}" for other in others]
        fitted = [_measure("fits", n, k, device), *others]
        cells = [f"{_time(found)}, {found['passes']} passes" for found in fitted]
        issues = _time(_measure("cleanlab", n, k))
        yield _row(f"{n:,} x {k}", _time(own), *cells, ", ".join(ratios), issues)


def memory(device: str | None, cases: tuple[tuple[int, int], ...] = MEMORY) -> Iterator[str]:
    """Yields a table of the memory beyond the input, beside what tables would take."""
    yield _row(
        "samples x classes",
        "score_labels",
        "memory beyond the input",
        "of it a copy of the features",
        "a float32 table of samples and classes",
        "memory of the device",
    )
    yield _row(*["---"] * 6)
    for n, k in cases:
        found = _measure("score", n, k, device)
        sizes = found["megabytes"], n * DIM * 4 / 2**20, n * k * 4 / 2**20, found["device"]
        yield _row(f"{n:,} x {k}", _time(found), *(f"{size:,.0f} MiB" for size in sizes))


def main(argv: list[str] | None = None) -> int:
    """Runs the cases named, or one measurement of a child process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", default=["speed", "memory"])
    parser.add_argument("--device", help="default: CUDA where it is at hand, else the CPU")
    parser.add_argument("--classes", type=int, nargs="+", default=[10, 100], help="of speed")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.measure:
        name, *values = json.loads(args.measure)
        measurements: dict[str, Callable[..., dict[str, Any]]]
        measurements = {"score": score, "fits": fits, "reference": reference, "cleanlab": cleanlab}
        print(json.dumps(measurements[name](*values)))
        return 0
    print(describe("numpy", "torch", "scikit-learn", "cleanlab"), flush=True)
    for case in args.cases:
        lines = {
            "speed": lambda: speed(args.device, args.classes),
            "memory": lambda: memory(args.device),
            "large": lambda: memory(args.device, (LARGE,)),
        }
        print(flush=True)
        for line in lines[case]():
            print(line, flush=True)
    return 0


def _measure(*call: Any) -> dict[str, Any]:
    """Runs one measurement in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.scoring", "--measure", json.dumps(call)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    return found


def _time(found: dict[str, Any]) -> str:
    return f"{found['seconds']:.1f} s ({found['cpu']:.1f} CPU s)"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _peak() -> float:
    """Most memory that this process has held, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


if __name__ == "__main__":
    sys.exit(main())
