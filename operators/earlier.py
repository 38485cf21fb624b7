"""What an earlier run was made with: the form begins with it where a run is made again.

So whoever adds samples and applies again need not remember the model, and no embedding is computed
twice because of another default.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import fiftyone.operators as foo

from clipcleaner_plugin.layout import layout_of

from .options import COMPUTE

if TYPE_CHECKING:
    from clipcleaner_plugin.brain import CLIPCleanerConfig

_METHOD = ("theta_gmm", "theta_cons", "temperature", "folds", "seed")


def usual_method() -> dict[str, Any]:
    """Returns what the options of the method begin with where there is no earlier run."""
    from clipcleaner_plugin.brain import CLIPCleanerConfig

    return _method(CLIPCleanerConfig())


@contextmanager
def begin_with_earlier_run(
    ctx: foo.executor.ExecutionContext, key: str
) -> Iterator[dict[str, Any]]:
    """Gives inputs that the form does not send yet the values of an earlier run.

    Within the block the parameters of the context are complete, so that all of the form, its cost
    included, is about what the inputs are going to show. After it they are as before: FiftyOne also
    asks for the form before it executes a call from Python, which means what it says.

    Args:
        ctx: the execution context
        key: the earlier run, the same as long as the form is open: where the default of an input
            changes, the App takes it for a change by the user

    Yields:
        the values, as defaults of the inputs; empty where there is no such run
    """
    from clipcleaner_plugin.runs import list_runs

    is_there = ctx.dataset is not None and key in list_runs(ctx.dataset)
    values = _values(ctx, ctx.dataset.get_brain_info(key).config) if is_there else {}
    given = ctx.params
    ctx.params = {**values, **given}
    try:
        yield values
    finally:
        ctx.params = given


def _values(ctx: foo.executor.ExecutionContext, config: CLIPCleanerConfig) -> dict[str, Any]:
    basic = {"label_field": config.label_field, "alpha": config.alpha}
    basic |= {"model": config.model, "pretrained": config.pretrained}
    advanced = {**_method(config), **_embeddings(ctx, config)}
    advanced["class_prompts"] = config.prompts_file
    usual: dict[str, Any] = {**usual_method(), "embeddings": COMPUTE, "store_embeddings": True}
    differs = any(v is not None and v != usual.get(name) for name, v in advanced.items())
    given = {name: value for name, value in {**basic, **advanced}.items() if value is not None}
    return {**given, "advanced": differs}


def _method(config: CLIPCleanerConfig) -> dict[str, Any]:
    return {name: getattr(config, name) for name in _METHOD}


def _embeddings(ctx: foo.executor.ExecutionContext, config: CLIPCleanerConfig) -> dict[str, Any]:
    """Where the embeddings come from and go to; arrays cannot be given again in a form."""
    source = config.embeddings_source
    if source is None:
        stored = config.embeddings_field is not None or config.patches_field is not None
        return {"embeddings": COMPUTE, "store_embeddings": stored}
    field = layout_of(config).root + source
    is_there = ctx.dataset.has_sample_field(field) or source in ctx.dataset.list_brain_runs()
    if not is_there or config.text_source == "given":
        return {}
    return {"embeddings": source, "use_names": config.text_source == "model"}
