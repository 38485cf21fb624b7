"""The numbers in docs/tour.md are those of a run on the tour's photos."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import fiftyone as fo
import pytest
from caltech_photos import CONFUSED, FOREIGN, REDRAWN, SEED, Photos, noisy_photos
from fiftyone import ViewField as F
from tour_review import decide_by_the_truth

import clipcleaner_plugin as cc

_WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


@pytest.fixture(scope="module")
def photos(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Photos]:
    made = noisy_photos(shared_data, tmp_path_factory.mktemp("photos"), "caltech-101-numbers")
    cc.apply_clipcleaner(
        made.dataset, embeddings=made.embeddings, text_features=made.texts, progress=False
    )
    yield made
    made.dataset.delete()


@pytest.fixture(scope="module")
def tour(repo_root: Path) -> str:
    """The tour's text in one line."""
    return " ".join((repo_root / "docs" / "tour.md").read_text().split())


def test_what_was_planted(photos: Photos, tour: str) -> None:
    wrong, foreign = _kinds(photos.dataset)
    check(
        tour,
        f"The {len(photos.dataset):,} photos are from Caltech-101",
        f"{percent(REDRAWN)} of the labels were redrawn at random",
        f"then {percent(CONFUSED)} of the chandeliers became lamps, and likewise",
        f"{FOREIGN} photos of other classes",
        f"got one of the {len(photos.texts)} labels at random",
        f"That makes {len(wrong)} wrong labels, and {len(foreign)} photos for which no label",
        f"plants the errors (seed {SEED})",
    )


def test_what_is_found(photos: Photos, tour: str) -> None:
    results = cc.load_results(photos.dataset)
    wrong, foreign = _kinds(photos.dataset)
    found = set(results.mislabeled_view().values("id"))
    right = found - wrong - foreign
    ones = "one" if len(right) == 1 else "ones"
    of_no_class = set(results.view("open_set").values("id"))
    check(
        tour,
        f"On the list of {len(found)} are {len(found & wrong)} of the {len(wrong)} wrong labels, "
        f"{in_words(len(right))} right {ones}, and {len(found & foreign)} of the {FOREIGN} photos",
        f"lists {len(of_no_class)} photos, and {len(of_no_class & foreign)} of these are indeed",
        f"`{results.mislabeled_view().first().clipcleaner_reason}`",
    )


def test_what_is_confused(photos: Photos, tour: str) -> None:
    (given, suggested, most), *others = cc.load_results(photos.dataset).confusions()
    assert (given, suggested) == ("ferry", "ketch"), "the tour is about these"
    standing_out = 1 + sum(n > most / 4 for *_, n in others)
    check(
        tour,
        f"{in_words(standing_out).capitalize()} cells stand out",
        f"The form of Accept suggestions: {most} ferries will become ketches",
    )


def test_what_is_measured(photos: Photos, tour: str) -> None:
    copy = photos.dataset.clone()
    try:
        results = cc.load_results(copy)
        given, suggested, _ = results.confusions()[0]
        results.accept_suggestions(results.view("mislabeled", given=given, suggested=suggested))
        decide_by_the_truth(results.start_review(n=100))
        report = results.review_report()
    finally:
        copy.delete()
    check(
        tour,
        f"Here {in_words(report.dropped)} photos of no class were dropped. Of the others that were "
        f"drawn from the list {percent(report.precision.rate)} had a wrong label, and with 95 % "
        f"certainty at least {percent(report.precision.low)} of the whole list have one",
    )


def check(tour: str, *sentences: str) -> None:
    """Finds what a run says in the tour."""
    for said in sentences:
        assert said in tour, f"docs/tour.md should say: {said}"


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def in_words(n: int) -> str:
    return _WORDS[n] if n < len(_WORDS) else f"{n:,}"


def _kinds(dataset: fo.Dataset) -> tuple[set[str], set[str]]:
    """The ids of the photos with a wrong label, and of those for which no label is right."""
    foreign = dataset.exists("true_label.label", False).values("id")
    wrong = dataset.exists("true_label.label").match(
        F("true_label.label") != F("ground_truth.label")
    )
    return set(wrong.values("id")), set(foreign)
