"""From class names to the sentences that CLIP's text tower reads."""

from __future__ import annotations

import json
import os
import string
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DEFAULT_TEMPLATE = "a photo of a {name} {descriptor}"
DEFAULT_SUFFIX = "."
_KEYS = ("template", "suffix", "descriptors", "names")


@dataclass(frozen=True)
class PromptSpec:
    """How the prompts of all classes are made.

    Attributes:
        templates: sentences with ``{name}`` and, if wanted, ``{descriptor}``. A template with
            ``{descriptor}`` makes one prompt for every descriptor of the class; where the class
            has none, the placeholder and the space before it are dropped
        suffix: appended to every prompt
        descriptors: {class: clauses such as "which has four wheels"}
        names: {class: the name to write in its prompts, as it stands}
    """

    templates: tuple[str, ...] = (DEFAULT_TEMPLATE,)
    suffix: str = DEFAULT_SUFFIX
    descriptors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)


def clean_class_name(name: str) -> str:
    """Turns a class name of a dataset into words.

    Underscores and hyphens become spaces, CamelCase is split (``HTTPServer``: "http server"), all
    is written in lower case. A name that holds a space already is taken for natural language:
    only its underscores, spacing and case change.

    Args:
        name: a class name

    Returns:
        the words, in Unicode's composed form (NFC); never empty for a name that is not blank

    Raises:
        TypeError: if the name is not a str
        ValueError: if it is blank
    """
    if not isinstance(name, str):
        raise TypeError(f"class names must be str, found {type(name).__name__}: {name!r}")
    if not name.strip():
        raise ValueError(f"a class name is blank: {name!r}; give it a name")
    text = unicodedata.normalize("NFC", name).strip()
    words = text.replace("_", " ")
    if len(text.split()) == 1:
        words = _split_camel_case(words.replace("-", " "))
    # Lower case last: it may take a letter apart (İ) and has to be composed again.
    return unicodedata.normalize("NFC", (" ".join(words.split()) or text).lower())


def class_prompts(
    classes: Sequence[str],
    spec: Mapping[str, Any] | str | os.PathLike[str] | PromptSpec | None = None,
) -> list[list[str]]:
    """Writes the prompts of every class.

    Without a ``spec`` each class has the prompt "a photo of a {name}.", as in the paper.

    Args:
        classes: K class names
        spec: see :func:`load_prompt_spec`

    Returns:
        K lists of one or more prompts, without repetitions

    Raises:
        TypeError, ValueError: if the spec is malformed, or names a class that is not in the list
    """
    spec = load_prompt_spec(spec)
    for option in ("descriptors", "names"):
        unknown = sorted(set(getattr(spec, option)) - set(classes))
        if unknown:
            raise ValueError(
                f"class_prompts: {option!r} names classes that are not in the class list: "
                f"{', '.join(map(repr, unknown))}; the classes are "
                f"{', '.join(map(repr, classes))}"
            )
    return [_prompts_of(name, spec) for name in classes]


def duplicate_names(
    classes: Sequence[str],
    spec: Mapping[str, Any] | str | os.PathLike[str] | PromptSpec | None = None,
) -> list[list[str]]:
    """Finds classes that language cannot tell apart: their prompts are the same.

    Args:
        classes: K class names
        spec: see :func:`load_prompt_spec`

    Returns:
        groups of two or more class names, in the order of the list; empty where all differ
    """
    groups: dict[frozenset[str], list[str]] = {}
    for name, prompts in zip(classes, class_prompts(classes, spec), strict=True):
        groups.setdefault(frozenset(prompts), []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def load_prompt_spec(
    spec: Mapping[str, Any] | str | os.PathLike[str] | PromptSpec | None,
) -> PromptSpec:
    """Reads and checks a specification of prompts.

    Args:
        spec: a mapping, or the path of a JSON or YAML file that holds one. Its keys, all optional:
            ``template`` (a str or a list of str with the placeholders ``{name}`` and
            ``{descriptor}``), ``suffix`` (default: "." with the default template, else none),
            ``descriptors`` ({class: [clause, ...]}) and ``names`` ({class: nicer name})

    Returns:
        the specification

    Raises:
        TypeError, ValueError: if anything in it is not as above; the text says what and where
    """
    if isinstance(spec, PromptSpec):
        return spec
    if isinstance(spec, (str, os.PathLike)):
        spec = _read_file(Path(spec))
    if spec is None:
        return PromptSpec()
    if not isinstance(spec, Mapping):
        raise TypeError(
            "class_prompts must be a mapping or the path of a JSON or YAML file, "
            f"found {type(spec).__name__}"
        )
    unknown = [key for key in spec if key not in _KEYS]
    if unknown:
        raise ValueError(
            f"class_prompts: unknown key {unknown[0]!r}; the keys are {', '.join(_KEYS)}"
        )
    templates = _templates(spec.get("template"))
    descriptors = _descriptors(spec.get("descriptors"))
    if any(descriptors.values()) and not any("{descriptor}" in text for text in templates):
        raise ValueError(
            "class_prompts: there are descriptors, but no template holds {descriptor}; "
            "add the placeholder to a template or remove the descriptors"
        )
    default_suffix = DEFAULT_SUFFIX if spec.get("template") is None else ""
    suffix = spec.get("suffix")
    return PromptSpec(
        templates=templates,
        suffix=default_suffix if suffix is None else _text(suffix, "suffix"),
        descriptors=descriptors,
        names=_names(spec.get("names")),
    )


def _split_camel_case(word: str) -> str:
    """Puts a space where a new word begins: aB, ABc, 1Bc, but not in plurals such as DVDs."""
    out = ""
    for i, char in enumerate(word):
        before, after = word[i - 1 : i], word[i + 1 : i + 2]
        plural = word[i + 1 : i + 2] == "s" and not word[i + 2 : i + 3].islower()
        starts_word = char.isupper() and (
            before.islower()
            or ((before.isupper() or before.isdigit()) and after.islower() and not plural)
        )
        out += f" {char}" if starts_word else char
    return out


def _prompts_of(name: str, spec: PromptSpec) -> list[str]:
    words = spec.names.get(name) or clean_class_name(name)
    prompts = []
    for template in spec.templates:
        clauses: Sequence[str] = ("",)
        if "{descriptor}" in template:
            clauses = spec.descriptors.get(name) or ("",)
        for clause in clauses:
            text = template if clause else template.replace(" {descriptor}", "{descriptor}")
            prompts.append(text.format(name=words, descriptor=clause).strip() + spec.suffix)
    return list(dict.fromkeys(prompts))


def _read_file(path: Path) -> Any:
    suffix = path.suffix.lower()
    if suffix not in (".json", ".yaml", ".yml"):
        raise ValueError(f"class_prompts: {path} must end in .json, .yaml or .yml")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"class_prompts: cannot read {path}: {error}") from error
    content = _parse_json(text, path) if suffix == ".json" else _parse_yaml(text, path)
    if not isinstance(content, Mapping):
        raise TypeError(
            f"class_prompts: {path} must hold a mapping, found {type(content).__name__}"
        )
    return content


def _parse_json(text: str, path: Path) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"class_prompts: {path} is not valid JSON: {error}") from error


def _parse_yaml(text: str, path: Path) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"class_prompts: {path} is not valid YAML: {error}") from error


def _templates(value: Any) -> tuple[str, ...]:
    if value is None:
        return (DEFAULT_TEMPLATE,)
    texts = [value] if isinstance(value, str) else _texts(value, "template")
    if not texts:
        raise ValueError("class_prompts: 'template' is an empty list; give a template")
    for text in texts:
        try:
            fields = [part[1:] for part in string.Formatter().parse(text) if part[1] is not None]
        except ValueError as error:
            raise ValueError(f"class_prompts: template {text!r}: {error}") from error
        for name, format_spec, conversion in fields:
            if name not in ("name", "descriptor") or format_spec or conversion:
                raise ValueError(
                    f"class_prompts: template {text!r} holds {{{name}}}; "
                    "the placeholders are {name} and {descriptor}"
                )
        if "name" not in [found[0] for found in fields]:
            raise ValueError(f"class_prompts: template {text!r} lacks the placeholder {{name}}")
    return tuple(texts)


def _descriptors(value: Any) -> dict[str, tuple[str, ...]]:
    out = {}
    for key, clauses in _mapping(value, "descriptors").items():
        where = f"descriptors[{key!r}]"
        found = [clauses] if isinstance(clauses, str) else _texts(clauses, where)
        if not all(clause.strip() for clause in found):
            raise ValueError(f"class_prompts: {where} holds a blank clause; remove it")
        out[key] = tuple(clause.strip() for clause in found)
    return out


def _names(value: Any) -> dict[str, str]:
    out = {}
    for key, name in _mapping(value, "names").items():
        out[key] = unicodedata.normalize("NFC", _text(name, f"names[{key!r}]").strip())
        if not out[key]:
            raise ValueError(f"class_prompts: names[{key!r}] is blank; give a name or remove it")
    return out


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise TypeError(
            f"class_prompts: {where!r} must map class names to values, found {type(value).__name__}"
        )
    out = {}
    for key, item in value.items():
        # YAML reads an unquoted 7 as a number, which a class may well be called, and an unquoted
        # no as False, which tells us nothing of what was written.
        if isinstance(key, bool) or not isinstance(key, (str, int)):
            raise TypeError(
                f"class_prompts: {where!r} has the key {key!r}, which is no class name; "
                "write it in quotes"
            )
        out[str(key)] = item
    return out


def _texts(value: Any, where: str) -> list[str]:
    if not isinstance(value, Sequence):
        raise TypeError(
            f"class_prompts: {where} must be a str or a list of str, found {type(value).__name__}"
        )
    return [_text(item, where) for item in value]


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise TypeError(
            f"class_prompts: {where} must hold text, found {type(value).__name__}: {value!r}"
        )
    return value
