"""Guesses of how long a run takes, where nothing was measured yet."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import fiftyone as fo
import open_clip
import pytest
from noisy_digits import make_samples
from operators_at_work import form

import clipcleaner_plugin as cc
from clipcleaner_plugin import rough_times, speeds
from clipcleaner_plugin.rough_times import guess_scoring, guess_speed

Maker = Callable[..., fo.Dataset]


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU of 150 GFLOP/s, as in docs/scaling.md."""
    monkeypatch.setattr(rough_times, "_measured", lambda: 1.5e11)


def speed_of(name: str, device: str = "cpu") -> float | None:
    return guess_speed(open_clip.get_model_config(name)["vision_cfg"], device)


@pytest.mark.usefixtures("two_cores")
@pytest.mark.parametrize(
    ("name", "giga_multiply_adds"),
    [("ViT-B-32", 4.4), ("ViT-B-16", 17.5), ("ViT-L-14", 81), ("ViT-L-14-336", 191), ("RN50", 5)],
)
def test_the_speed_of_a_model_follows_from_its_size(name: str, giga_multiply_adds: float) -> None:
    speed = speed_of(name)
    assert speed == pytest.approx(0.7 * 1.5e11 / (2e9 * giga_multiply_adds), rel=0.3)
    assert speed_of(name, "cuda") > 20 * speed


def test_no_core_decodes_faster_than_it_can() -> None:
    assert 600 < speed_of("ViT-B-32", "cuda") < 800


def test_of_other_architectures_nothing_is_said() -> None:
    assert speed_of("ViT-B-16-SigLIP") is None


@pytest.mark.usefixtures("two_cores")
def test_the_rest_of_a_run() -> None:
    assert guess_scoring(900, 512, 10, "cpu") < 4
    assert guess_scoring(1_000_000, 512, 1_000, "cpu") == pytest.approx(3_600, rel=0.1)
    assert guess_scoring(1_000_000, 512, 1_000, "cuda") < 400


@pytest.mark.usefixtures("two_cores")
def test_a_gpu_does_not_shorten_what_the_cpu_does() -> None:
    assert 30 < guess_scoring(10_000, 512, 1_000, "cuda") < 60
    assert guess_scoring(10_000, 512, 10, "cuda") < 10


def test_a_cpu_is_measured() -> None:
    assert 1e8 < rough_times._measured() < 1e14


@pytest.mark.usefixtures("plugin", "two_cores")
def test_the_form_says_it_before_anything_was_computed(
    dataset: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Other tests have measured speeds, which the store keeps
    monkeypatch.setattr(speeds, "_path", lambda: tmp_path / "speeds.json")
    made = dataset(make_samples(tmp_path, 50))

    def said(**params: object) -> str:
        inputs = form("apply_clipcleaner", made, device="cpu", **params)
        label: str = inputs["cost"]["view"]["label"]
        return label

    assert (
        said(model=cc.TINY_CLIP)
        == "50 samples, 50 embeddings to compute, on cpu, roughly 3 seconds"
    )
    assert said(model="ViT-L-14").endswith("on cpu, roughly 80 seconds")
    assert said(model="ViT-B-16-SigLIP", pretrained="webli").endswith("on cpu")
    assert said(advanced=True, embeddings="pixels") == "50 samples"
    ahead = form("compute_embeddings", made, model="ViT-L-14", device="cpu")["cost"]["view"]
    assert ahead["label"].endswith("roughly 77 seconds"), "without the scoring"
