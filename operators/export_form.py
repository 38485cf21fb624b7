"""Pieces of form about exports: the folder, the media, the split, the trusted labels."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
import fiftyone.operators.types as types

from .forms import dropdown, invalidate, label_fields, patches_field, text_attributes

# Form's word → the library's value
MEDIA: dict[str, bool | str] = {"copy": True, "symlink": "symlink", "reference": False}
_MEDIA_LABELS = {
    "copy": ("Copy", "The export can be moved to another machine"),
    "symlink": ("Link", "Symbolic links: no room needed, only for this machine"),
    "reference": ("Refer", "Only paths are written: no room needed, only for this machine"),
}
_SPLITS = {
    "tags": ("By tag", "Samples tagged train, val or test belong there; others are drawn"),
    "random": ("Random", "80 % train, 10 % val and 10 % test, class by class"),
    "none": ("No split", "Everything is in train"),
}


def default_folder(ctx: foo.executor.ExecutionContext, key: str) -> str:
    """Returns the folder that a form proposes."""
    return os.path.join(fo.config.default_dataset_dir, "clipcleaner", f"{ctx.dataset.slug}-{key}")


def input_folder(ctx: foo.executor.ExecutionContext, inputs: types.Object, key: str) -> str:
    """Adds the folder to export to and, where it holds an export, whether to replace that.

    Returns:
        the folder as it stands
    """
    from clipcleaner_plugin.staging import check_target, export_folder

    proposed = default_folder(ctx, key)
    prop = inputs.str(
        "export_dir",
        default=proposed,
        label="Folder",
        description="On the machine of the App's server",
    )
    folder = ctx.params.get("export_dir") or proposed
    if not os.path.isabs(os.path.expanduser(folder)):
        invalidate(prop, "Give an absolute path")
        return folder
    target = export_folder(folder)
    try:
        check_target(target, overwrite=True)
    except OSError as error:
        invalidate(prop, str(error))
        return folder
    if target.is_dir() and any(target.iterdir()):
        inputs.bool(
            "overwrite",
            default=False,
            label="Replace the earlier export in this folder",
            description="Training runs in it are kept. The very same export need not be replaced",
            view=types.SwitchView(),
        )
    return folder


def input_split(inputs: types.Object) -> None:
    """Adds how samples are divided into train, val and test."""
    _radio(inputs, "split", _SPLITS, "tags", "Split")


def input_media(
    ctx: foo.executor.ExecutionContext,
    inputs: types.Object,
    key: str,
    default: str,
    choices: tuple[str, ...],
) -> None:
    """Adds what becomes of the images; crops of objects are always written."""
    if patches_field(ctx, key) is None:
        offered = {name: _MEDIA_LABELS[name] for name in choices}
        _radio(inputs, "media", offered, default, "Images")


def input_trusted(ctx: foo.executor.ExecutionContext, inputs: types.Object, key: str) -> None:
    """Adds where labels are that are known to be right: another field, or attribute of objects."""
    config = ctx.dataset.get_brain_info(key).config
    if config.patches_field is None:
        fields = label_fields(ctx.dataset, objects=False)
        fields = [field for field in fields if field != config.label_field]
    else:
        fields = text_attributes(ctx.dataset, config.patches_field)
    if fields:
        inputs.enum(
            "trusted_field",
            fields,
            label="Trusted labels",
            description="Labels known to be right: training is measured by them, never uses them",
            view=dropdown(fields),
        )


def export_options(ctx: foo.executor.ExecutionContext) -> dict[str, Any]:
    """Returns the arguments that both library functions share; what is open stays open."""
    params = ctx.params
    names = ("key", "export_dir", "split", "fractions", "trusted_field", "overwrite")
    options = {name: params[name] for name in names if params.get(name) not in (None, "")}
    # The App also sends what was chosen for another run
    if params.get("media") and patches_field(ctx, params["key"]) is None:
        options["export_media"] = MEDIA[params["media"]]
    return options


def queued(options: Mapping[str, Any]) -> dict[str, Any]:
    """Says a call's options in the form's words, for a delegated call."""
    said = dict(options)
    if "export_media" in said:
        value = said.pop("export_media")
        words = {library: word for word, library in MEDIA.items()}
        if value not in words:
            raise ValueError(f"export_media must be one of {list(words)}, found {value!r}")
        said["media"] = words[value]
    if said.get("export_dir") is not None:
        said["export_dir"] = os.path.abspath(os.path.expanduser(said["export_dir"]))
    return {name: value for name, value in said.items() if value is not None}


def _radio(
    inputs: types.Object,
    name: str,
    choices: Mapping[str, tuple[str, str]],
    default: str,
    label: str,
) -> None:
    view = types.RadioGroup()
    for value, (words, description) in choices.items():
        view.add_choice(value, label=words, description=description)
    inputs.enum(name, list(choices), default=default, label=label, view=view)
