"""How well wrong labels are found: ``python -m benchmarks.detection [--quick]``.

Noise is drawn on clean labels of real CLIP ViT-B/32 features, each method says which labels are
wrong, and F1, precision, recall and AUROC against the truth are printed as Markdown.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

from benchmarks.data import DEFAULT_FOLDER, DataMissingError, FeatureSet, load_sets
from benchmarks.noise import lookalike_noise, projected_noise
from clipcleaner_plugin import fusion
from clipcleaner_plugin.inputs import check_arrays
from clipcleaner_plugin.mixture import fit_mixture
from clipcleaner_plugin.noise import inject_noise
from clipcleaner_plugin.opinions import Opinions, form_opinions
from clipcleaner_plugin.scoring import FUSED_TEMPERATURE, LabelScores, score_opinions

EXPONENTS = (2, 4, 5, 6, 7, 8, 10, 14, 20)

# F1 and AUROC that had been measured before this project began, on other draws of noise: the fused
# rule with equal weights on Caltech-101, the visual opinion alone where language is weak.
FLOOR = {
    ("caltech101", "symmetric 5 %"): ".949 / .998",
    ("caltech101", "symmetric 20 %"): ".987 / .998",
    ("caltech101", "symmetric 50 %"): ".995 / .998",
    ("caltech101", "pair flips 30 %"): ".971 / .998",
    ("caltech101", "instance-dependent 30 %"): ".987 / .998",
    ("dtd", "symmetric 20 %"): ".844 / .984",
    ("dtd", "pair flips 30 %"): ".660 / .840",
    ("ucf101", "symmetric 20 %"): ".971 / .999",
    ("ucf101", "pair flips 30 %"): ".742 / .902",
}

Draw = Callable[[FeatureSet, int], np.ndarray]


@dataclass(frozen=True)
class Case:
    """One draw of noise on one set, with all that the methods start from."""

    data: FeatureSet
    noise: str
    noisy: np.ndarray
    opinions: Opinions
    scores: LabelScores

    @property
    def wrong(self) -> np.ndarray:
        return self.noisy != self.data.labels


@dataclass(frozen=True)
class Found:
    """What a method says: which labels are wrong, and an order of suspicion (lower is worse)."""

    flagged: np.ndarray
    score: np.ndarray


def _symmetric(rate: float) -> Draw:
    return lambda data, seed: inject_noise(data.labels, len(data.texts), "symmetric", rate, seed)


NOISE: dict[str, Draw] = {
    "symmetric 5 %": _symmetric(0.05),
    "symmetric 20 %": _symmetric(0.2),
    "symmetric 50 %": _symmetric(0.5),
    "pair flips 30 %": lambda data, seed: inject_noise(
        data.labels, len(data.texts), "asymmetric", 0.3, seed
    ),
    "instance-dependent 30 %": lambda data, seed: projected_noise(
        data.features, data.labels, len(data.texts), 0.3, seed
    ),
    "look-alike 30 %": lambda data, seed: lookalike_noise(
        data.features, data.labels, len(data.texts), 0.3, seed
    ),
    "none": _symmetric(0.0),
}


def ours(case: Case) -> Found:
    """The verdict "mislabeled", in the order of the clean score."""
    return Found(case.scores.verdict == "mislabeled", case.scores.clean_score)


def paper(case: Case) -> Found:
    """All that the paper's rule does not select, in the order of the weakest evidence."""
    evidence = [value for name, value in case.scores.evidence.items() if name != "margin"]
    return Found(~case.scores.selected, np.min(evidence, axis=0))


def equal_weights(case: Case) -> Found:
    """The fused rule with weight 1/2 and a mixture of free variances."""
    return _fixed_weight(case, 0.5)


def visual_alone(case: Case) -> Found:
    """The same rule without language."""
    return _fixed_weight(case, 0.0)


def cleanlab(case: Case) -> Found:
    """cleanlab's issues and label quality on the same out-of-fold probabilities."""
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    probs = np.exp(_tables(case.opinions)[1])
    labels = case.noisy[case.opinions.rows]
    flagged = find_label_issues(labels, probs, n_jobs=1)
    return Found(
        _in_place(case, flagged, False),
        _in_place(case, get_label_quality_scores(labels, probs), np.nan),
    )


METHODS: dict[str, Callable[[Case], Found]] = {
    "ours": ours,
    "paper rule": paper,
    "cleanlab": cleanlab,
    "equal weights": equal_weights,
    "visual alone": visual_alone,
}


def measure(found: Found, wrong: np.ndarray) -> np.ndarray:
    """F1, precision, recall and AUROC of the labels said to be wrong.

    Args:
        found: what a method says
        wrong: (N,) bool, the truth

    Returns:
        (4,) float array; AUROC is NaN where no label is wrong
    """
    from sklearn.metrics import roc_auc_score

    hits = np.sum(found.flagged & wrong)
    flagged, all_wrong = np.sum(found.flagged), np.sum(wrong)
    auroc = roc_auc_score(wrong, -found.score) if 0 < all_wrong < len(wrong) else np.nan
    return np.array(
        [
            2 * hits / max(flagged + all_wrong, 1),
            hits / max(flagged, 1),
            hits / max(all_wrong, 1),
            auroc,
        ]
    )


def make_case(data: FeatureSet, noise: str, seed: int) -> Case:
    """Draws noise and scores it with the default options of ``score_labels``.

    Args:
        data: features with true labels
        noise: a key of ``NOISE``
        seed: of the noise; the method keeps its own

    Returns:
        the case
    """
    noisy = NOISE[noise](data, seed)
    inputs = check_arrays(data.features, noisy, data.texts, None)
    opinions = form_opinions(inputs, "mean", 5, 51)
    scores = score_opinions(inputs, opinions, 0.5, 0.8, 0.07, 51)
    return Case(data, noise, noisy, opinions, scores)


def exponent_figures(case: Case) -> np.ndarray:
    """AUROC and F1 of the fused score for every exponent of the trust in language.

    Args:
        case: a case with noise

    Returns:
        (len(EXPONENTS), 3) array of weight, AUROC, F1
    """
    opinions, labels = case.opinions, case.noisy[case.opinions.rows]
    language, images = _tables(opinions)
    rows = []
    for exponent in EXPONENTS:
        agreed = fusion.agreements(language, images, labels)
        weight = fusion.language_weight(agreed, exponent)
        fused = fusion.fuse(language, images, weight)
        margins = fusion.label_margins(fused, labels)
        flagged = fusion.clean_scores(margins, 51) < 0.5
        figures = measure(Found(flagged, margins), case.wrong[opinions.rows])
        rows.append([weight, figures[3], figures[0]])
    return np.array(rows)


def run(sets: Iterable[FeatureSet], seeds: int, exponents: bool) -> Iterator[str]:
    """Measures everything and yields the report line by line.

    Args:
        sets: the data
        seeds: number of draws for each kind of noise
        exponents: also show how the result depends on the exponent of the trust

    Yields:
        lines of Markdown
    """
    sweep: list[str] = []
    clean: list[str] = []
    yield 'F1 / precision / recall / AUROC of "mislabeled"; ± is the spread of F1 over the draws.'
    yield ""
    heads = ["set", "noise", *METHODS, "floor: F1 / AUROC", "language weight", "rate found (true)"]
    yield f"| {' | '.join(heads)} |"
    yield "|---" * len(heads) + "|"
    for data in sets:
        for noise in NOISE:
            cases = [make_case(data, noise, s) for s in range(seeds if noise != "none" else 1)]
            if noise == "none":
                clean.append(_clean_row(cases[0]))
                continue
            yield _row(cases)
            if exponents:
                figures = np.mean([exponent_figures(case) for case in cases], axis=0)
                cells = (f"{a:.3f} / {f:.3f} ({w:.2f})" for w, a, f in figures)
                sweep.append(f"| {data.name} | {noise} | " + " | ".join(cells) + " |")
    yield ""
    yield "Without any noise: share of labels called wrong."
    yield ""
    yield "| set | " + " | ".join(METHODS) + " | language weight | rate found |"
    yield "|---" * (len(METHODS) + 3) + "|"
    yield from clean
    if exponents:
        yield ""
        yield "AUROC / F1 (language weight) by the exponent of the trust in language."
        yield ""
        yield "| set | noise | " + " | ".join(map(str, EXPONENTS)) + " |"
        yield "|---" * (len(EXPONENTS) + 2) + "|"
        yield from sweep


def environment() -> str:
    """Says what the figures were measured on."""
    packages = ("numpy", "scipy", "scikit-learn", "cleanlab")
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    return f"{_processor()}, {os.cpu_count()} cores; Python {platform.python_version()}, {versions}"


def main(argv: list[str] | None = None) -> int:
    """Prints the report.

    Args:
        argv: arguments; default: those of the command line

    Returns:
        exit status
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.detection", description=__doc__)
    parser.add_argument("--data", type=Path, default=DEFAULT_FOLDER, help="folder of the features")
    parser.add_argument("--seeds", type=int, default=3, help="draws of each noise (default: 3)")
    parser.add_argument("--quick", action="store_true", help="one draw of each noise")
    parser.add_argument(
        "--exponents", action="store_true", help="also vary the exponent of the trust in language"
    )
    args = parser.parse_args(argv)
    if args.seeds < 1:
        parser.error(f"--seeds must be >= 1, found {args.seeds}")
    try:
        sets = load_sets(args.data)
    except DataMissingError as error:
        print(f"No benchmark without data: {error}", file=sys.stderr)
        return 2
    started = time.perf_counter()
    print(f"{environment()}\n")
    for line in run(sets, 1 if args.quick else args.seeds, args.exponents):
        print(line, flush=True)
    print(f"\n{time.perf_counter() - started:.0f} s")
    return 0


def _row(cases: list[Case]) -> str:
    cells = []
    for method in METHODS.values():
        figures = np.array([measure(method(case), case.wrong) for case in cases])
        f1, precision, recall, auroc = figures.mean(axis=0)
        spread = f" ± {np.ptp(figures[:, 0]) / 2:.3f}" if len(cases) > 1 else ""
        cells.append(f"{f1:.3f}{spread} / {precision:.3f} / {recall:.3f} / {auroc:.3f}")
    weight = np.mean([case.scores.language_weight for case in cases])
    found = np.mean([1 - case.scores.clean_score.mean() for case in cases])
    true = np.mean([case.wrong.mean() for case in cases])
    name, noise = cases[0].data.name, cases[0].noise
    cells += [FLOOR.get((name, noise), ""), f"{weight:.2f}", f"{found:.3f} ({true:.3f})"]
    return f"| {name} | {noise} | " + " | ".join(cells) + " |"


def _clean_row(case: Case) -> str:
    cells = [f"{method(case).flagged.mean():.3f}" for method in METHODS.values()]
    cells += [
        f"{case.scores.language_weight:.2f}",
        f"{1 - case.scores.clean_score.mean():.3f}",
    ]
    return f"| {case.data.name} | " + " | ".join(cells) + " |"


def _fixed_weight(case: Case, weight: float) -> Found:
    opinions, labels = case.opinions, case.noisy[case.opinions.rows]
    fused = fusion.fuse(*_tables(opinions), weight)
    margins = fusion.label_margins(fused, labels)
    mixture = fit_mixture(margins, 51)
    assert mixture is not None
    return Found(
        _in_place(case, mixture.posterior(margins) < 0.5, False),
        _in_place(case, margins, np.nan),
    )


def _tables(opinions: Opinions) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities of all samples, by language and out-of-fold by the images."""
    language = opinions.zeroshot(slice(None), FUSED_TEMPERATURE)
    assert language is not None
    return language, opinions.unseen(slice(None))


def _in_place(case: Case, values: np.ndarray, missing: float) -> np.ndarray:
    out = np.full(len(case.noisy), missing, dtype=values.dtype)
    out[case.opinions.rows] = values
    return out


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    sys.exit(main())
