"""What a finished run offers: summary, views, confusions, noise rates, evaluation, reselection."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from itertools import compress
from typing import TYPE_CHECKING, Any

import fiftyone as fo
import fiftyone.core.brain as fob
import numpy as np

from .brain import CLIPCleaner, CLIPCleanerConfig
from .class_report import ClassReport
from .fields import VERDICTS
from .kept_statistics import count_again, current_statistics
from .layout import Layout, layout_of
from .locks import run_lock
from .reselection import Thetas, read_evidence
from .review_methods import ReviewMethods
from .rules import NoiseRate
from .statistics import RunStatistics
from .targets import read_items, trusted_path
from .views import OPEN_SET, run_view

if TYPE_CHECKING:
    from .export import ExportReport


@dataclass(frozen=True)
class Summary:
    """A run at a glance; ``print`` it, or take its parts.

    Attributes:
        counts: samples by verdict
        noise: the estimated share of wrong labels, with a 95 % interval
        by_class: the same by given class
        unscorable: samples by the reason why nothing can be said of them
        open_set: images that seem to belong to none of the classes
        language_weight: share of the words in the fused opinion, in [0, 1]
        warnings: what to know before trusting the result
        unit: what has a label: "sample" or "object"
    """

    counts: dict[str, int]
    noise: NoiseRate
    by_class: dict[str, NoiseRate]
    unscorable: dict[str, int]
    open_set: int
    language_weight: float
    warnings: list[str]
    unit: str = "sample"

    def __str__(self) -> str:
        total = sum(self.counts.values())
        lines = [f"{total} {self.unit}s"]
        lines += [
            f"  {verdict:<10} {n:>9}  {n / max(total, 1):6.1%}"
            for verdict, n in self.counts.items()
            if n or verdict != "unscorable"
        ]
        lines += [f"    {n} x {reason}" for reason, n in self.unscorable.items()]
        if self.open_set:
            lines.append(f"  {self.open_set} seem to belong to none of the classes")
        lines.append(f"estimated noise rate {_percent(self.noise)}")
        noisiest = sorted(self.by_class.items(), key=lambda item: -np.nan_to_num(item[1].rate))
        lines += [f"  {name:<20} {_percent(rate)} of {rate.count}" for name, rate in noisiest[:10]]
        if len(noisiest) > 10:
            lines.append(f"  ... and {len(noisiest) - 10} more classes: results.noise_rates()")
        lines.append(f"weight of the class names {self.language_weight:.2f}")
        lines += [f"warning: {text}" for text in self.warnings]
        return "\n".join(lines)


class CLIPCleanerResults(ReviewMethods, fob.BrainResults):
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
    def layout(self) -> Layout:
        """Where the labels and what the run says of them stand."""
        return layout_of(self.config)

    @property
    def dataset(self) -> fo.Dataset:
        """The dataset that the run belongs to."""
        return self.samples._root_dataset

    def field(self, name: str) -> str:
        """Returns the dataset field of one result, for example of ``"score"``."""
        return self.layout.result(name)

    def view(
        self,
        kind: str | None = None,
        *,
        given: str | None = None,
        suggested: str | None = None,
        scores: tuple[float, float] | None = None,
    ) -> fo.DatasetView:
        """Returns samples of the run, most suspicious first; every argument narrows the choice.

        Of a run on objects, it is a view of their patches. Mislabeled and uncertain ones that a
        reviewer has decided about are left out.

        Args:
            kind (None): a verdict; "disagreement" of words and looks; "near_threshold" of the
                score; "least_certain"; "open_set", where the run has it; None = all
            given (None): the given label
            suggested (None): the suggested label
            scores (None): (low, high) of the clean score

        Raises:
            ValueError: if the kind is unknown, or the run has no evidence for it
        """
        return run_view(self.dataset, self.config, kind, given, suggested, scores)

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

    def open_set_count(self) -> int:
        """Returns the number of images that seem to belong to none of the classes."""
        field = self.field(OPEN_SET)
        if not self.dataset.has_sample_field(field):
            return 0
        return int(self.dataset.count_values(field).get(True, 0))

    def class_report(self) -> dict[str, ClassReport]:
        """Returns what the run found out about every class, and whether its name means anything.

        Classes to rewrite the prompts of: ``[k for k, c in report.items() if c.rewrite]``.
        Runs of versions that did not look at names have no report: the dict is empty.
        """
        rows = self.record.get("class_report")
        if rows is None:
            return {}
        return {
            name: ClassReport(**row) for name, row in zip(self.record["classes"], rows, strict=True)
        }

    def word_shares(self, statistics: RunStatistics) -> dict[str, float | None]:
        """Returns how often the class names alone choose a class, None where nobody can say.

        Asked of the samples that probably belong to the class, whatever their label. Of runs that
        have no report, only how often the names choose the given label is known; that is little
        for a class of wrong labels, too, however good its name.

        Args:
            statistics: of the run
        """
        report = self.class_report()
        if report:
            return {name: row.words for name, row in report.items()}
        found = {name: row.words for name, row in statistics.classes.items()}
        return {name: None if math.isnan(share) else share for name, share in found.items()}

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

    def statistics(self) -> RunStatistics:
        """Returns counts by verdict, score, class and pair of labels.

        They are made in the database, and kept with it until samples change.
        """
        return current_statistics(self)

    def summary(self) -> Summary:
        """Returns counts by verdict and the estimated noise rates, overall and by class."""
        statistics = self.statistics()
        return Summary(
            self.counts(),
            statistics.noise,
            {name: found.noise for name, found in statistics.classes.items()},
            self.record["unscorable"],
            self.open_set_count(),
            self.record["language_weight"],
            self.record["warnings"],
            self.layout.unit,
        )

    def noise_rates(self) -> dict[str, NoiseRate]:
        """Returns the estimated share of wrong labels among the samples of each given label."""
        return {name: found.noise for name, found in self.statistics().classes.items()}

    def confusions(self) -> list[tuple[str, str, int]]:
        """Returns (given label, suggested label, count) of the mislabeled, most frequent first."""
        return self.statistics().confusions

    def evaluate(self, trusted_field: str) -> dict[str, Any]:
        """Compares the verdicts with labels that are known to be right.

        Args:
            trusted_field: a Classification field; of a run on objects, their attribute that holds
                the right label. What has no trusted label is left out

        Returns:
            a dict: ``found``, ``missed`` and ``falsely_flagged`` counts of "mislabeled" against
            the truth, ``precision``, ``recall``, ``f1``, ``auroc`` of the score (NaN where all or
            no label is wrong), ``suggestions_right`` (share of found errors whose suggestion is
            the trusted label), ``noise_rate`` (the true one) and ``samples`` (or objects)

        Raises:
            ValueError: if the field does not fit, or no sample of the run has a trusted label
        """
        from sklearn.metrics import roc_auc_score

        layout = self.layout
        truth_path = trusted_path(self.dataset, layout, trusted_field)
        verdict_path, score_path = layout.result("verdict"), layout.result("score")
        paths = [layout.given, truth_path, layout.suggested, verdict_path, score_path]
        columns = read_items(self.dataset, layout, paths).columns
        of_run = [value is not None for value in columns[3]]
        given, trusted, suggested, verdict, score = (
            np.array(list(compress(column, of_run)), dtype=object) for column in columns
        )
        known = (trusted != None) & (given != None)  # noqa: E711  elementwise
        if not known.any():
            raise ValueError(
                f"no {layout.unit} of run {self.key!r} has a label in {trusted_field!r}"
            )
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

    @property
    def thetas(self) -> Thetas:
        """The thresholds behind the present verdicts."""
        config = self.config
        return Thetas(config.theta_gmm, config.theta_cons, config.theta_score)

    @property
    def former_thetas(self) -> Thetas | None:
        """The thresholds before the last reselection; None = there was none."""
        former = self.config.former_thetas
        return Thetas(**former) if former else None

    def reselect(
        self,
        theta_gmm: float | None = None,
        theta_cons: float | None = None,
        theta_score: float | None = None,
    ) -> dict[str, int]:
        """Gives new verdicts from the stored evidence, without touching images or model.

        The former thresholds are kept: ``results.reselect(*results.former_thetas)`` goes back.

        Args:
            theta_gmm (None): posterior that the loss scores must reach; None = as it was
            theta_cons (None): value that the consistency scores must reach; None = as it was
            theta_score (None): clean score that a label must reach not to be mislabeled; None = as
                it was. Lower flags fewer labels, and surer errors

        Returns:
            the new counts by verdict

        Raises:
            ValueError: if a threshold is not in [0, 1], or someone else is writing the run
        """
        config, former = self.config, self.thetas
        thetas = Thetas(
            _theta("theta_gmm", theta_gmm, former.theta_gmm),
            _theta("theta_cons", theta_cons, former.theta_cons),
            _theta("theta_score", theta_score, former.theta_score),
        )
        with run_lock(self.dataset, self.key):
            evidence = read_evidence(self)
            verdict = evidence.verdicts(thetas)
            changed = np.flatnonzero(verdict != evidence.verdict)
            evidence.write(self.dataset, self.layout, verdict, changed)
            config.theta_gmm, config.theta_cons, config.theta_score = thetas
            if thetas != former:
                config.former_thetas = former._asdict()
            self.save_config()
            count_again(self)
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

        statistics, unit = self.statistics(), self.layout.unit
        return {
            "scores": score_figure(statistics.histogram, unit),
            "confusions": confusion_figure(statistics.confusions),
            "classes": class_figure(statistics.classes, self.word_shares(statistics), unit),
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
