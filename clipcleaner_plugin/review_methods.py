"""The review actions as methods of a run's results."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import fiftyone as fo

from .layout import Layout, select_labels

if TYPE_CHECKING:
    from .review_log import ReviewReport
    from .review_sample import ReviewMeasurement


class ReviewMethods:
    """Review of a run: mixed into its results."""

    key: str
    dataset: fo.Dataset

    if TYPE_CHECKING:

        @property
        def layout(self) -> Layout:
            """Where the labels and what the run says of them stand."""

        def mislabeled_view(self) -> fo.DatasetView:
            """Returns the samples that are to be reviewed."""

    def accept_suggestions(
        self, samples: fo.DatasetView | Iterable[str] | None = None, **options: Any
    ) -> ReviewReport:
        """Replaces labels by the suggested ones, or by one that you choose.

        Args:
            samples (None): a view, or ids of samples (or objects); None = the mislabeled ones that
                are not decided yet
            **options: as in :func:`clipcleaner_plugin.accept_suggestions`
        """
        from .review import accept_suggestions

        chosen = self.mislabeled_view() if samples is None else self._chosen(samples)
        return accept_suggestions(chosen, self.key, **options)

    def confirm_labels(
        self, samples: fo.DatasetView | Iterable[str], **options: Any
    ) -> ReviewReport:
        """Records that labels are right: no later run flags them again.

        Args:
            samples: a view, or ids of samples (or objects)
            **options: as in :func:`clipcleaner_plugin.confirm_labels`
        """
        from .review import confirm_labels

        return confirm_labels(self._chosen(samples), self.key, **options)

    def drop(self, samples: fo.DatasetView | Iterable[str], **options: Any) -> ReviewReport:
        """Marks samples for exclusion: later runs and exports leave them out.

        Args:
            samples: a view, or ids of samples (or objects)
            **options: as in :func:`clipcleaner_plugin.drop`
        """
        from .review import drop

        return drop(self._chosen(samples), self.key, **options)

    def start_review(self, **options: Any) -> fo.DatasetView:
        """Draws a random sample to review, as :func:`clipcleaner_plugin.start_review` does."""
        from .review_sample import start_review

        return start_review(self.dataset, self.key, **options)

    def review_report(self) -> ReviewMeasurement:
        """Measures the run by the decisions on the sample that was drawn."""
        from .review_sample import review_report

        return review_report(self.dataset, self.key)

    def _chosen(self, samples: fo.core.collections.SampleCollection | Iterable[str]) -> Any:
        if isinstance(samples, fo.core.collections.SampleCollection):
            return samples
        return select_labels(self.dataset, self.layout, list(samples))
