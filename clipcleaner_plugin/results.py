"""What a finished run offers: summary, views, confusions, noise rates, evaluation, reselection."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import fiftyone as fo
import fiftyone.core.brain as fob
import numpy as np

from .brain import CLIPCleaner, CLIPCleanerConfig
from .fields import EVIDENCES, VERDICTS, field_name, verdict_view, write_values
from .rules import NoiseRate, noise_rate, noise_rates, select_paper, verdicts
from .targets import check_label_field

if TYPE_CHECKING:
    from .export import ExportReport
    from .scoring import LabelScores
    from .targets import Targets

# A record lists this many unreadable images by name; the count is of all
_MAX_FAILURES = 1000


@dataclass(frozen=True)
class Summary:
    """A run at a glance; ``print`` it, or take its parts.

    Attributes:
        counts: samples by verdict
        noise: the estimated share of wrong labels, with a 95 % interval
        by_class: the same by given class
        unscorable: samples by the reason why nothing can be said of them
        language_weight: share of the words in the fused opinion, in [0, 1]
        warnings: what to know before trusting the result
    """

    counts: dict[str, int]
    noise: NoiseRate
    by_class: dict[str, NoiseRate]
    unscorable: dict[str, int]
    language_weight: float
    warnings: list[str]

    def __str__(self) -> str:
        total = sum(self.counts.values())
        lines = [f"{total} samples"]
        lines += [
            f"  {verdict:<10} {n:>9}  {n / max(total, 1):6.1%}"
            for verdict, n in self.counts.items()
            if n or verdict != "unscorable"
        ]
        lines += [f"    {n} x {reason}" for reason, n in self.unscorable.items()]
        lines.append(f"estimated noise rate {_percent(self.noise)}")
        noisiest = sorted(self.by_class.items(), key=lambda item: -np.nan_to_num(item[1].rate))
        lines += [f"  {name:<20} {_percent(rate)} of {rate.count}" for name, rate in noisiest[:10]]
        if len(noisiest) > 10:
            lines.append(f"  ... and {len(noisiest) - 10} more classes: results.noise_rates()")
        lines.append(f"weight of the class names {self.language_weight:.2f}")
        lines += [f"warning: {text}" for text in self.warnings]
        return "\n".join(lines)


class CLIPCleanerResults(fob.BrainResults):
    """Results of a run, living on the dataset's fields.

    Views and counts are asked of the database each time, so they follow later edits; ``record`` is
    what was known when the run ended (classes, prompts, unreadable images, warnings, seconds).
    """

    def __init__(
        self,
        samples: fo.core.collections.SampleCollection,
        config: CLIPCleanerConfig,
        key: str,
        backend: CLIPCleaner | None = None,
        record: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(samples, config, key, backend=backend)
        self.record = record or {}

    def attributes(self) -> list[str]:
        return ["cls", "record"]

    @classmethod
    def _from_dict(
        cls, d: dict[str, Any], samples: Any, config: CLIPCleanerConfig, key: str
    ) -> CLIPCleanerResults:
        return cls(samples, config, key, record=d["record"])

    def __repr__(self) -> str:
        return f"<CLIPCleanerResults {self.key!r}: {self.headline()}>"

    def take(self, other: CLIPCleanerResults) -> None:
        """Becomes equal to other results of the same run, as the database has them now."""
        self._samples: Any = other.samples
        self._config: CLIPCleanerConfig = other.config
        self.record = other.record

    @property
    def dataset(self) -> fo.Dataset:
        """The dataset that the run belongs to."""
        return self.samples._root_dataset

    def field(self, name: str) -> str:
        """Returns the dataset field of one result, for example of ``"score"``."""
        return field_name(self.config.prefix, name)

    def view(self, verdict: str | None = None) -> fo.DatasetView:
        """Returns the samples of one verdict, lowest clean score first; None = all of the run."""
        return verdict_view(self.dataset, self.config.prefix, verdict)

    def mislabeled_view(self) -> fo.DatasetView:
        """Returns the samples whose label is probably wrong, worst first."""
        return self.view("mislabeled")

    def clean_view(self) -> fo.DatasetView:
        """Returns the samples whose label both opinions support."""
        return self.view("clean")

    def counts(self) -> dict[str, int]:
        """Returns the number of samples by verdict, as they stand now."""
        found = self.dataset.count_values(self.field("verdict"))
        return {verdict: found.get(verdict, 0) for verdict in VERDICTS}

    def headline(self) -> str:
        """Returns the result in one line."""
        counts = self.counts()
        total = sum(counts.values())
        rate = NoiseRate(*self.record["noise_rate"])
        return (
            f"{counts['mislabeled']} of {total} labels look wrong, {counts['clean']} clean, "
            f"{counts['uncertain']} uncertain, {counts['unscorable']} unscorable; "
            f"estimated noise rate {_percent(rate)}"
        )

    def summary(self) -> Summary:
        """Returns counts by verdict and the estimated noise rates, overall and by class."""
        _, scores = self._labels_and_scores()
        return Summary(
            self.counts(),
            noise_rate(scores),
            self.noise_rates(),
            self.record["unscorable"],
            self.record["language_weight"],
            self.record["warnings"],
        )

    def noise_rates(self) -> dict[str, NoiseRate]:
        """Returns the estimated share of wrong labels among the samples of each given label."""
        labels, scores = self._labels_and_scores()
        classes = self.record["classes"]
        index = {name: k for k, name in enumerate(classes)}
        rates = noise_rates(scores, np.array([index.get(name, -1) for name in labels], dtype=int))
        return {classes[k]: rate for k, rate in rates.items()}

    def confusions(self) -> list[tuple[str, str, int]]:
        """Returns (given label, suggested label, count) of the mislabeled, most frequent first."""
        fields = [f"{self.config.label_field}.label", f"{self.field('suggestion')}.label"]
        found = zip(*self.mislabeled_view().values(fields), strict=True)
        pairs = Counter(pair for pair in found if None not in pair)  # labels may be gone since
        ranked = sorted(pairs.items(), key=lambda item: (-item[1], item[0]))
        return [(given, suggested, n) for (given, suggested), n in ranked]

    def evaluate(self, trusted_field: str) -> dict[str, Any]:
        """Compares the verdicts with labels that are known to be right.

        Args:
            trusted_field: a Classification field; samples without a trusted label are left out

        Returns:
            a dict: ``found``, ``missed`` and ``falsely_flagged`` counts of "mislabeled" against
            the truth, ``precision``, ``recall``, ``f1``, ``auroc`` of the score (NaN where all or
            no label is wrong), ``suggestions_right`` (share of found errors whose suggestion is
            the trusted label), ``noise_rate`` (the true one) and ``samples``

        Raises:
            ValueError: if the field does not fit, or no sample of the run has a trusted label
        """
        from sklearn.metrics import roc_auc_score

        check_label_field(self.dataset, trusted_field)
        given, trusted, suggested, verdict, score = map(
            np.array,
            self.view().values(
                [
                    f"{self.config.label_field}.label",
                    f"{trusted_field}.label",
                    f"{self.field('suggestion')}.label",
                    self.field("verdict"),
                    self.field("score"),
                ]
            ),
        )
        known = (trusted != None) & (given != None)  # noqa: E711  elementwise
        if not known.any():
            raise ValueError(f"no sample of run {self.key!r} has a label in {trusted_field!r}")
        wrong, flagged = (given != trusted)[known], (verdict == "mislabeled")[known]
        found = int((wrong & flagged).sum())
        scores = score[known].astype(float)
        scored = ~np.isnan(scores)
        both = 0 < wrong[scored].sum() < scored.sum()
        return {
            "samples": int(known.sum()),
            "noise_rate": float(wrong.mean()),
            "found": found,
            "missed": int((wrong & ~flagged).sum()),
            "falsely_flagged": int((flagged & ~wrong).sum()),
            "precision": _ratio(found, flagged.sum()),
            "recall": _ratio(found, wrong.sum()),
            "f1": _ratio(2 * found, flagged.sum() + wrong.sum()),
            "auroc": float(roc_auc_score(wrong[scored], -scores[scored])) if both else np.nan,
            "suggestions_right": _ratio(
                (suggested == trusted)[known][wrong & flagged].sum(), found
            ),
        }

    def reselect(
        self, theta_gmm: float | None = None, theta_cons: float | None = None
    ) -> dict[str, int]:
        """Gives new verdicts from the stored evidence, without touching images or model.

        Args:
            theta_gmm (None): posterior that the loss scores must reach; None = as it was
            theta_cons (None): value that the consistency scores must reach; None = as it was

        Returns:
            the new counts by verdict
        """
        config = self.config
        thetas = (
            _theta("theta_gmm", theta_gmm, config.theta_gmm),
            _theta("theta_cons", theta_cons, config.theta_cons),
        )
        config.theta_gmm, config.theta_cons = thetas
        view = self.view()
        classes = self.record["classes"]
        ids, given, suggested = view.values(
            ["id", f"{config.label_field}.label", f"{self.field('suggestion')}.label"]
        )
        index = {name: k for k, name in enumerate(classes)}
        labels = np.array([index.get(name, -1) for name in given])
        suggestions = np.array([index.get(name, -1) for name in suggested])
        evidence = {name: _floats(view, self.field(name)) for name in EVIDENCES}
        selected = select_paper(
            evidence, labels, len(classes), config.theta_gmm, config.theta_cons, config.seed
        )
        verdict = verdicts(labels, suggestions, _floats(view, self.field("score")), selected)
        write_values(
            self.dataset, self.field("verdict"), dict(zip(ids, map(str, verdict), strict=True))
        )
        self.save_config()
        return self.counts()

    def export(
        self, export_dir: str | os.PathLike[str] | None = None, **options: Any
    ) -> ExportReport:
        """Exports the samples of the run: a bundle to train on, or the clean ones in other formats.

        Args:
            export_dir (None): the folder to write
            **options: as in :func:`clipcleaner_plugin.export_cleaned`

        Returns:
            what was written
        """
        from .export import export_cleaned

        return export_cleaned(self.dataset, self.key, export_dir, **options)

    def plot(self) -> dict[str, Any]:
        """Returns plotly figures: "scores", "confusions" and "classes"."""
        from .plots import class_figure, confusion_figure, score_figure

        verdict, score = self.view().values([self.field("verdict"), self.field("score")])
        return {
            "scores": score_figure(np.array(score, dtype=float), np.array(verdict)),
            "confusions": confusion_figure(self.confusions()),
            "classes": class_figure(self.noise_rates()),
        }

    def _labels_and_scores(self) -> tuple[np.ndarray, np.ndarray]:
        labels, scores = self.view().values(
            [f"{self.config.label_field}.label", self.field("score")]
        )
        return np.array(labels, dtype=object), np.array(scores, dtype=float)


def make_record(
    targets: Targets,
    scores: LabelScores,
    prompts: list[list[str]],
    failures: Mapping[str, str],
    image_features: np.ndarray,
    seconds: float,
) -> dict[str, Any]:
    """Returns what is stored of a run beside its parameters, as JSON values."""
    no_vector = np.isnan(image_features).any(axis=1)
    reasons: Counter[str] = Counter()
    for i in np.flatnonzero(scores.verdict == "unscorable"):
        sample_id = targets.ids[i]
        if sample_id in targets.unusable:
            reasons[targets.unusable[sample_id]] += 1
        elif sample_id in failures:
            reasons["unreadable image"] += 1
        else:
            reasons["no embedding" if no_vector[i] else "nothing to compare with"] += 1
    return {
        "samples": len(targets.ids),
        "classes": targets.classes,
        "prompts": prompts,
        "counts": {v: int((scores.verdict == v).sum()) for v in VERDICTS},
        "noise_rate": [None if np.isnan(v) else v for v in noise_rate(scores.clean_score)],
        "language_weight": float(scores.language_weight),
        "unscorable": dict(reasons.most_common()),
        "failures": dict(list(failures.items())[:_MAX_FAILURES]),
        "failure_count": len(failures),
        "warnings": list(scores.warnings),
        "seconds": round(seconds, 3),
    }


def _percent(rate: NoiseRate) -> str:
    if not rate.count:
        return "unknown"
    return f"{rate.rate:.1%} ({rate.low:.1%} to {rate.high:.1%})"


def _ratio(part: Any, whole: Any) -> float:
    return float(part) / float(whole) if whole else float("nan")


def _theta(name: str, value: float | None, default: float) -> float:
    if value is None:
        return default
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must be in [0, 1], found {value!r}")
    return float(value)


def _floats(view: fo.DatasetView, field: str) -> np.ndarray:
    return np.array(view.values(field), dtype=np.float32)
