"""The operators of the FiftyOne App: forms in, library calls, views out. No method code."""

from __future__ import annotations

from typing import Any

from .apply_clipcleaner import ApplyCLIPCleaner
from .compute_embeddings import ComputeEmbeddings
from .delete_run import DeleteRun
from .get_run_info import GetRunInfo
from .load_view import LoadView
from .rename_run import RenameRun

OPERATORS = (ComputeEmbeddings, ApplyCLIPCleaner, LoadView, GetRunInfo, RenameRun, DeleteRun)


def register(plugin: Any) -> None:
    """Registers all operators with a ``fiftyone.plugins.context.PluginContext``."""
    for operator in OPERATORS:
        plugin.register(operator)
