"""The plugin as FiftyOne sees it. FiftyOne runs this file again at every request: keep it light."""

from __future__ import annotations

import importlib.util
import os
import sys
from typing import Any


def _ensure_package(name: str = "clipcleaner_plugin") -> None:
    """Binds the library under its own name, once, also where the plugin was only copied or linked.

    A pip-installed package wins, so that one process never holds two copies of the classes.
    """
    if name in sys.modules or importlib.util.find_spec(name) is not None:
        return
    init = os.path.join(os.path.dirname(__file__), name, "__init__.py")
    spec = importlib.util.spec_from_file_location(name, init)
    if spec is None or spec.loader is None:
        raise ImportError(f"The plugin is incomplete: {init} cannot be loaded; install it again")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise


def register(plugin: Any) -> None:
    """Registers the operators; called by FiftyOne.

    The imports stand inside, so that test runners may import this file outside of FiftyOne.

    Args:
        plugin: a ``fiftyone.plugins.context.PluginContext``
    """
    _ensure_package()
    from .operators import register as register_operators

    register_operators(plugin)
