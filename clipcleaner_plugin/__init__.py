"""CLIPCleaner for FiftyOne: find wrong labels in image datasets with one frozen CLIP.

Importing this package adds ``apply_clipcleaner`` to every FiftyOne dataset and view::

    import fiftyone as fo
    import clipcleaner_plugin as cc

    results = fo.load_dataset("photos").apply_clipcleaner("ground_truth")
    print(results.summary())

The array functions (``cc.score_labels``) know nothing of FiftyOne; everything heavy (torch,
open_clip, scikit-learn) is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import Any

import fiftyone.core.collections as _foc

from .apply import apply_clipcleaner

__version__ = "0.1.0"

_LAZY = {
    "compute_embeddings": ".embeddings",
    "load_embeddings": ".embeddings",
    "score_labels": ".scoring",
    "LabelScores": ".scoring",
    "inject_noise": ".planting",
    "load_model": ".models",
    "TINY_CLIP": ".models",
    "CLIPCleanerResults": ".results",
    "export_cleaned": ".export",
    "load_predictions": ".predictions",
    "train_on_cleaned": ".launch",
    "load_results": ".runs",
    "list_runs": ".runs",
    "get_run_info": ".runs",
    "rename_run": ".runs",
    "delete_run": ".runs",
    "accept_suggestions": ".review",
    "confirm_labels": ".review",
    "drop": ".review",
    "preview_review": ".review",
    "undo_review": ".review",
    "preview_undo": ".review",
    "review_history": ".review_log",
    "original_labels": ".review_log",
    "start_review": ".review_sample",
    "review_report": ".review_sample",
}

__all__ = [
    "TINY_CLIP",
    "CLIPCleanerResults",
    "LabelScores",
    "__version__",
    "accept_suggestions",
    "apply_clipcleaner",
    "compute_embeddings",
    "confirm_labels",
    "datasets",
    "delete_run",
    "drop",
    "export_cleaned",
    "get_run_info",
    "inject_noise",
    "list_runs",
    "load_embeddings",
    "load_model",
    "load_predictions",
    "load_results",
    "original_labels",
    "preview_review",
    "preview_undo",
    "rename_run",
    "review_history",
    "review_report",
    "score_labels",
    "start_review",
    "train_on_cleaned",
    "undo_review",
]


def __getattr__(name: str) -> Any:
    if name == "datasets":
        return importlib.import_module(".datasets", __name__)
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


# FiftyOne re-imports plugins at every request: assigning the same function again changes nothing
_foc.SampleCollection.apply_clipcleaner = apply_clipcleaner
