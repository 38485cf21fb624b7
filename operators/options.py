"""From a form's parameters to the library's arguments, and back for delegated calls from Python."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Callable, Mapping
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
from fiftyone.core.collections import SampleCollection

from clipcleaner_plugin.layout import holds_objects
from clipcleaner_plugin.model_names import TINY_CLIP

DEFAULT_MODEL = "ViT-B-32"
DEFAULT_TAG = "openai"
_CHECKPOINTS = (".pt", ".pth", ".bin", ".ckpt", ".safetensors")
_WHOLE_MODELS = ("hf-hub:", "local-dir:")

# The choice of "embeddings" that is neither a field nor a brain key; no field can have this name
COMPUTE = "<compute>"

_BASIC = ("label_field", "patches_field", "alpha", "key", "model", "pretrained")
_PASSED_ON = (
    "label_field", "key", "classes", "class_prompts", "text_features", "theta_gmm", "theta_cons",
    "temperature", "folds", "seed", "preprocess", "batch_size", "device", "skip_failures",
    "patches_field", "alpha",
)  # fmt: skip


def needs_tag(model: str) -> bool:
    """Returns whether weights must be named beside the model: it is an architecture's name.

    Names with a slash, such as "ViT-B/32", are names too; "./model.pt" is a file.
    """
    is_file = (
        model.startswith((".", "~", os.sep))
        or model.endswith(_CHECKPOINTS)
        or (os.sep in model and os.path.exists(model))
    )
    return model != TINY_CLIP and not model.startswith(_WHOLE_MODELS) and not is_file


def library_options(ctx: foo.executor.ExecutionContext) -> dict[str, Any]:
    """Returns the library's arguments; what the form leaves open is left to the library.

    Args:
        ctx: the operator's execution context

    Returns:
        keyword arguments, those aside that the two library functions do not share in meaning:
        samples, progress, and where embeddings come from and go to
    """
    params = in_force(ctx.params)
    options = {name: params[name] for name in _PASSED_ON if params.get(name) not in (None, "")}
    chosen = options.get("patches_field") or options.get("label_field") or ""
    if not holds_objects(ctx.dataset, chosen):
        options.pop("alpha", None)  # of another field, chosen before
    options["model"] = model = params.get("model") or DEFAULT_MODEL
    options["pretrained"] = (params.get("pretrained") or DEFAULT_TAG) if needs_tag(model) else None
    # The App's server has threads and must not fork; a worker may
    options["num_workers"] = params.get("num_workers") if ctx.delegated else 0
    return options


def embeddings_options(params: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the arguments of a run that say where embeddings come from and go to."""
    params = in_force(params)
    source = params.get("embeddings") or COMPUTE
    if source == COMPUTE:
        if params.get("embeddings_field"):
            return {"embeddings_field": params["embeddings_field"]}
        return {} if params.get("store_embeddings", True) else {"embeddings_field": None}
    if params.get("use_names", True):
        return {"embeddings": source}
    return {"embeddings": source, "model": None, "pretrained": None}


def in_force(params: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the parameters that count: what the user has hidden again does not."""
    if params.get("advanced") is False:
        return {name: value for name, value in params.items() if name in _BASIC}
    return dict(params)


def delegate_call(
    uri: str,
    function: Callable[..., Any],
    samples: SampleCollection,
    options: Mapping[str, Any],
    delegation_target: str | None,
    said: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None,
) -> Any:
    """Queues an operator for a call from Python.

    Args:
        uri: the operator
        function: the library function that it calls in the end
        samples: the dataset or view to work on
        options: the function's arguments; JSON values, for they are stored until they are used
        delegation_target: the orchestrator to queue it on
        said (None): says the options in the form's words; None = as those of a run

    Returns:
        a ``fiftyone.operators.executor.ExecutionResult``

    Raises:
        TypeError: if the function has no such option, or it cannot be stored
    """
    inspect.signature(function).bind(samples, **options)
    params = (said or _params)(options)
    for name, value in params.items():
        try:
            json.dumps(value)
        except TypeError:
            raise TypeError(
                f"{name} is a {type(value).__name__}, which a delegated call cannot carry: store "
                "embeddings in a field and prompts in a file, and name those"
            ) from None
    ctx = {"view": samples} if isinstance(samples, fo.DatasetView) else {"dataset": samples}
    return foo.execute_operator(
        uri,
        ctx,
        params=params,
        request_delegation=True,
        delegation_target=delegation_target,
    )


def _params(options: Mapping[str, Any]) -> dict[str, Any]:
    """Says None in the form's words, for which an option that is None is one not given."""
    params = {name: value for name, value in options.items() if value is not None}
    if "model" in options and options["model"] is None:
        params["use_names"] = False
    if "embeddings_field" in options and options["embeddings_field"] is None:
        params["store_embeddings"] = False
    return params
