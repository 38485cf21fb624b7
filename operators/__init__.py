"""The operators of the FiftyOne App: forms in, library calls, views out. No method code."""

from __future__ import annotations

from typing import Any

from .apply_clipcleaner import ApplyCLIPCleaner
from .compute_embeddings import ComputeEmbeddings
from .delete_run import DeleteRun
from .export_cleaned import ExportCleaned
from .get_run_info import GetRunInfo
from .load_view import LoadView
from .rename_run import RenameRun
from .train_on_cleaned import TrainOnCleaned

OPERATORS = (
    ComputeEmbeddings,
    ApplyCLIPCleaner,
    LoadView,
    ExportCleaned,
    TrainOnCleaned,
    GetRunInfo,
    RenameRun,
    DeleteRun,
)


def register(plugin: Any) -> None:
    """Registers all operators with a ``fiftyone.plugins.context.PluginContext``."""
    for operator in OPERATORS:
        plugin.register(operator)
