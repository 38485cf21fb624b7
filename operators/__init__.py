"""Operators and panel of the FiftyOne App: forms in, library calls, views out. No method code."""

from __future__ import annotations

from typing import Any

from .apply_clipcleaner import ApplyCLIPCleaner
from .compute_embeddings import ComputeEmbeddings
from .delete_run import DeleteRun
from .export_cleaned import ExportCleaned
from .get_run_info import GetRunInfo
from .load_view import LoadView
from .open_panel import OpenPanel
from .panel import CLIPCleanerPanel
from .rename_run import RenameRun
from .review_actions import (
    AcceptInModal,
    AcceptSuggestions,
    ConfirmInModal,
    ConfirmLabels,
    Drop,
    DropInModal,
)
from .review_report import GetReviewReport
from .start_review import StartReview
from .train_on_cleaned import TrainOnCleaned
from .undo_review import UndoReview
from .update_selection import UpdateSelection

# In the order of their buttons: what is used most comes first, the rest is behind a menu
OPERATORS = (
    AcceptSuggestions,
    ConfirmLabels,
    OpenPanel,
    Drop,
    UndoReview,
    LoadView,
    ApplyCLIPCleaner,
    ComputeEmbeddings,
    UpdateSelection,
    AcceptInModal,
    ConfirmInModal,
    DropInModal,
    StartReview,
    GetReviewReport,
    ExportCleaned,
    TrainOnCleaned,
    GetRunInfo,
    RenameRun,
    DeleteRun,
)
PANELS = (CLIPCleanerPanel,)


def register(plugin: Any) -> None:
    """Registers all of them with a ``fiftyone.plugins.context.PluginContext``."""
    for operator in (*OPERATORS, *PANELS):
        plugin.register(operator)
