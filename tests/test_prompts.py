"""From class names to prompts."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipcleaner_plugin.prompts import (
    PromptSpec,
    class_prompts,
    clean_class_name,
    duplicate_names,
    load_prompt_spec,
)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cat", "cat"),
        ("polar_bear", "polar bear"),
        ("__polar__bear_", "polar bear"),
        ("merry-go-round", "merry go round"),
        ("redPanda", "red panda"),
        ("RedPanda", "red panda"),
        ("HTTPServer", "http server"),
        ("TVSet", "tv set"),
        ("USA", "usa"),
        ("DVDs", "dvds"),
        ("DVDsBox", "dvds box"),
        ("Boeing747Plane", "boeing747 plane"),
        ("3DPrinter", "3d printer"),
        ("digit_0", "digit 0"),
        ("7", "7"),
        ("mp3", "mp3"),
        ("McDonald's restaurant", "mcdonald's restaurant"),
        ("T-shirt with print", "t-shirt with print"),
        ("  spaced   out ", "spaced out"),
        ("ÉcoleNormale", "école normale"),
        ("ΑλφαΒήτα", "αλφα βήτα"),
        ("日本猫", "日本猫"),
        (unicodedata.normalize("NFD", "Café_Crème"), "café crème"),
        ("___", "___"),
        ("-", "-"),
    ],
)
def test_class_names_become_words(name: str, words: str) -> None:
    assert clean_class_name(name) == words


@given(st.text(min_size=1).filter(str.strip))
def test_any_name_becomes_words_that_stay_as_they_are(name: str) -> None:
    words = clean_class_name(name)
    assert words == words.strip() != ""
    assert clean_class_name(words) == words


@pytest.mark.parametrize("name", ["", "  ", "\t"])
def test_a_blank_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="blank"):
        clean_class_name(name)


def test_a_name_that_is_no_text_is_refused() -> None:
    with pytest.raises(TypeError, match="int: 3"):
        clean_class_name(3)  # type: ignore[arg-type]


def test_the_default_is_the_papers_prompt() -> None:
    assert class_prompts(["polar_bear", "cat"]) == [
        ["a photo of a polar bear."],
        ["a photo of a cat."],
    ]


def test_descriptors_and_suffix_as_in_the_paper() -> None:
    spec = {
        "descriptors": {"truck": ["which has four wheels", "which carries a load"]},
        "suffix": ", a type of vehicle.",
    }
    assert class_prompts(["truck", "car"], spec) == [
        [
            "a photo of a truck which has four wheels, a type of vehicle.",
            "a photo of a truck which carries a load, a type of vehicle.",
        ],
        ["a photo of a car, a type of vehicle."],
    ]


def test_templates_with_and_without_descriptor() -> None:
    spec = {
        "template": ["a sketch of a {name}", "a {name} {descriptor}, close up"],
        "descriptors": {"cat": ["with fur", "that purrs"], "dog": "that barks", "cow": []},
    }
    assert class_prompts(["cat", "dog", "cow"], spec) == [
        ["a sketch of a cat", "a cat with fur, close up", "a cat that purrs, close up"],
        ["a sketch of a dog", "a dog that barks, close up"],
        ["a sketch of a cow", "a cow, close up"],
    ]


def test_nicer_names_are_written_as_they_stand() -> None:
    spec = {"names": {"n01440764": "Tench (fish)"}}
    assert class_prompts(["n01440764"], spec) == [["a photo of a Tench (fish)."]]


def test_braces_in_names_and_descriptors_are_text() -> None:
    spec = {"descriptors": {"a{b}": ["{name}"]}}
    assert class_prompts(["a{b}"], spec) == [["a photo of a a{b} {name}."]]


def test_a_prompt_is_written_once() -> None:
    spec = {"template": ["a {name}", "a {name} {descriptor}", "a {name}"]}
    assert class_prompts(["cat"], spec) == [["a cat"]]


def test_classes_with_the_same_prompts_are_found() -> None:
    classes = ["red_panda", "cat", "RedPanda", "dog", "red-panda", "CAT"]
    assert duplicate_names(classes) == [["red_panda", "RedPanda", "red-panda"], ["cat", "CAT"]]
    assert duplicate_names(["cat", "dog"]) == []
    told_apart = {"names": {"CAT": "computed axial tomography"}}
    assert duplicate_names(["cat", "CAT"], told_apart) == []


@pytest.mark.parametrize("suffix", [".json", ".yaml", ".yml", ".YAML"])
def test_files_say_the_same_as_a_dict(tmp_path: Path, suffix: str) -> None:
    spec = {"template": "a {name} {descriptor}", "descriptors": {"猫": ["mit Fell"]}}
    path = tmp_path / f"prompts{suffix}"
    path.write_text(json.dumps(spec, ensure_ascii=False), encoding="utf-8")
    for source in (path, str(path)):
        assert class_prompts(["猫"], source) == class_prompts(["猫"], spec) == [["a 猫 mit Fell"]]


def test_yaml_as_people_write_it(tmp_path: Path) -> None:
    path = tmp_path / "prompts.yaml"
    path.write_text(
        "template:\n  - a blurry {name}\nnames:\n  7: seven\n  cat: pussycat\nsuffix: '!'\n"
    )
    assert class_prompts(["7", "cat"], path) == [["a blurry seven!"], ["a blurry pussycat!"]]


def test_nothing_given_is_the_default(tmp_path: Path) -> None:
    empty = tmp_path / "empty.json"
    empty.write_text('{"template": null, "suffix": null, "descriptors": null, "names": null}')
    assert load_prompt_spec(None) == load_prompt_spec({}) == load_prompt_spec(empty) == PromptSpec()


def test_a_checked_spec_passes() -> None:
    spec = load_prompt_spec({"suffix": "!"})
    assert load_prompt_spec(spec) is spec


@pytest.mark.parametrize(
    ("spec", "error", "text"),
    [
        ({"templates": "a {name}"}, ValueError, "unknown key 'templates'.*template, suffix"),
        ({"template": "a photo"}, ValueError, "lacks the placeholder {name}"),
        ({"template": "a {nam}"}, ValueError, "holds {nam}"),
        ({"template": "a {}"}, ValueError, "placeholders are {name} and {descriptor}"),
        ({"template": "a {name!r}"}, ValueError, "placeholders are"),
        ({"template": "a {name"}, ValueError, "a {name"),
        ({"template": []}, ValueError, "empty list"),
        ({"template": 3}, TypeError, "template must be a str or a list.*int"),
        ({"template": ["a {name}", 3]}, TypeError, "template must hold text.*3"),
        ({"suffix": 3}, TypeError, "suffix must hold text"),
        ({"descriptors": ["big"]}, TypeError, "'descriptors' must map.*list"),
        ({"descriptors": {"cat": 3}}, TypeError, r"descriptors\['cat'\]"),
        ({"descriptors": {"cat": ["big", " "]}}, ValueError, "blank clause"),
        ({"template": "a {name}", "descriptors": {"cat": ["big"]}}, ValueError, "no template"),
        ({"names": {"cat": 3}}, TypeError, r"names\['cat'\]"),
        ({"names": {"cat": " "}}, ValueError, r"names\['cat'\] is blank"),
        ({"names": {False: "no"}}, TypeError, "key False.*quotes"),
        ({"names": {"lion": "cat"}}, ValueError, "'names'.*'lion'.*'cat'"),
        ({"descriptors": {"lion": ["big"]}}, ValueError, "'descriptors'.*'lion'"),
        (["a {name}"], TypeError, "found list"),
        (3, TypeError, "found int"),
    ],
)
def test_mistakes_are_named(spec: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        class_prompts(["cat"], spec)


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("absent.json", None, "cannot read"),
        ("prompts.txt", "{}", "must end in .json, .yaml or .yml"),
        ("prompts.json", "{", "not valid JSON"),
        ("prompts.yaml", "a: [", "not valid YAML"),
        ("prompts.yaml", "!!python/object/apply:os.getcwd []", "not valid YAML"),
        ("list.json", "[1]", "must hold a mapping, found list"),
        ("empty.yaml", "", "must hold a mapping, found NoneType"),
        ("latin.json", b'{"suffix": "\xe9"}', "cannot read"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, name: str, content: Any, text: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises((ValueError, TypeError), match=text) as failure:
        class_prompts(["cat"], path)
    assert name in str(failure.value)
