"""Calls operators as the App does, without a browser."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
from fiftyone.operators.executor import ExecutionContext, Executor, resolve_type

PLUGIN = "@clipcleaner/clipcleaner"


def uri(name: str) -> str:
    """Returns the URI of one of the plugin's operators."""
    return f"{PLUGIN}/{name}"


def module(name: str) -> ModuleType:
    """Returns one of the modules beside the operators, as FiftyOne has loaded it."""
    package = type(foo.get_operator(uri("load_view"))).__module__.rpartition(".")[0]
    return sys.modules[f"{package}.{name}"]  # older versions give names that cannot be imported


def request(
    samples: fo.core.collections.SampleCollection, params: dict[str, Any], **more: Any
) -> dict[str, Any]:
    """Returns a request as the App sends it."""
    view = samples._serialize() if isinstance(samples, fo.DatasetView) else []
    name = samples._root_dataset.name
    return {"dataset_name": name, "view": view, "params": params, **more}


def context(
    samples: fo.core.collections.SampleCollection, params: dict[str, Any], **more: Any
) -> ExecutionContext:
    """Returns the context in which an operator is executed."""
    return ExecutionContext(request(samples, params, **more), executor=Executor())


def form(
    name: str,
    samples: fo.core.collections.SampleCollection,
    selected: Sequence[str] = (),
    **params: Any,
) -> dict[str, dict[str, Any]]:
    """Returns the inputs of an operator's form by name, as JSON."""
    sent = request(samples, params, selected=list(selected))
    prop = asyncio.run(resolve_type(foo.OperatorRegistry(), uri(name), sent))
    assert hasattr(prop, "to_json"), prop
    return prop.to_json()["type"]["properties"]


def messages(name: str, ctx: ExecutionContext) -> list[tuple[str, dict[str, Any]]]:
    """Executes a generator operator and returns what the App would receive."""
    return [
        (message.body.operator_uri, message.body.params)
        for message in foo.get_operator(uri(name)).execute(ctx)
    ]


def requests(result: Any) -> list[tuple[str, dict[str, Any]]]:
    """Returns what an executed operator asks of the App."""
    return [(r["operator_uri"], r["params"]) for r in result.executor.to_json()["requests"]]
