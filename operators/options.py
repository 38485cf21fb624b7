"""From a form's parameters to the library's arguments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
from fiftyone.core.collections import SampleCollection

from .forms import DEFAULT_MODEL, DEFAULT_TAG, needs_tag

METHOD_OPTIONS = ("theta_gmm", "theta_cons", "temperature", "folds", "seed")


def model_options(params: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the arguments that choose the CLIP."""
    model = params.get("model") or DEFAULT_MODEL
    tag = (params.get("pretrained") or DEFAULT_TAG) if needs_tag(model) else None
    return {"model": model, "pretrained": tag}


def loading_options(ctx: foo.executor.ExecutionContext) -> dict[str, Any]:
    """Returns the arguments that concern speed; the App's server must not fork, a worker may."""
    workers = ctx.params.get("num_workers") if ctx.delegated else 0
    return {"batch_size": ctx.params.get("batch_size"), "num_workers": workers}


def run_options(params: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the arguments of a run beside its model; what is not set is left to the library."""
    names = ("label_field", "key", "embeddings", "class_prompts", *METHOD_OPTIONS)
    options = {name: params[name] for name in names if params.get(name) not in (None, "")}
    if params.get("embeddings_field"):
        options["embeddings_field"] = params["embeddings_field"]
    elif not params.get("store_embeddings", True):
        options["embeddings_field"] = None
    return options


def delegate_call(
    uri: str,
    samples: SampleCollection,
    options: Mapping[str, Any],
    delegation_target: str | None,
) -> Any:
    """Queues an operator for a call from Python.

    Args:
        uri: the operator
        samples: the dataset or view to work on
        options: the library's arguments, JSON values only: they are stored with the operation
        delegation_target: the orchestrator to queue it on

    Returns:
        a ``fiftyone.operators.executor.ExecutionResult``

    Raises:
        TypeError: if an option is no JSON value
    """
    for name, value in options.items():
        if not isinstance(value, str | int | float | bool | None):
            raise TypeError(
                f"{name} is a {type(value).__name__}; a delegated call takes strings and numbers only: "
                "store embeddings in a field and prompts in a file, and name those"
            )
    params = {name: value for name, value in options.items() if value is not None}
    if "embeddings_field" in options and options["embeddings_field"] is None:
        params["store_embeddings"] = False
    ctx = {"view": samples} if isinstance(samples, fo.DatasetView) else {"dataset": samples}
    return foo.execute_operator(
        uri, ctx, params=params, request_delegation=True, delegation_target=delegation_target
    )
