"""Datasets of objects with planted label errors: digits on canvases, and features alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np
from noisy_features import CLASSES, gaussian_classes
from PIL import Image

import clipcleaner_plugin as cc
from clipcleaner_plugin.digits import DIGIT_NAMES, load_half, render
from clipcleaner_plugin.noise import draw_noise

FIELD = "detections"
MODEL: dict[str, Any] = {"model": cc.TINY_CLIP, "pretrained": None, "num_workers": 0}
_MARGIN = 6


def canvases(folder: Path, n: int, rate: float = 0.2) -> list[fo.Sample]:
    """Pastes n digits onto canvases, one to four on each, some labels wrong.

    Returns:
        samples whose ``detections`` have the right label as attribute ``truth``
    """
    folder.mkdir(exist_ok=True)
    scans, labels, _ = load_half("held-out")
    given = draw_noise(labels[:n], len(DIGIT_NAMES), rate=rate)
    samples, first = [], 0
    while first < n:
        count = min(1 + len(samples) % 4, n - first)
        digits = [render(scan) for scan in scans[first : first + count]]
        step = digits[0].width + _MARGIN
        canvas = Image.new("RGB", (2 * step, 2 * step), "gray")
        objects = []
        for place, digit in enumerate(digits):
            x, y = (place % 2) * step, (place // 2) * step
            canvas.paste(digit, (x, y))
            edges = np.array([x, y, digit.width, digit.height]) / (2 * step)
            i = first + place
            objects.append(
                fo.Detection(
                    label=DIGIT_NAMES[given[i]],
                    truth=DIGIT_NAMES[labels[i]],
                    bounding_box=edges.tolist(),
                    confidence=0.5,
                )
            )
        path = folder / f"{first:04}.png"
        canvas.save(path)
        samples.append(fo.Sample(str(path), detections=fo.Detections(detections=objects)))
        first += count
    return samples


class Boxed:
    """Objects with planted errors and features of their own: runs on them need no model."""

    def __init__(self, make: Callable[..., fo.Dataset], n: int = 240, wrong: int = 40) -> None:
        self.features, true, self.text = gaussian_classes(n)
        given = true.copy()
        given[:wrong] = (true[:wrong] + 1) % 3
        objects = [
            fo.Detection(
                label=CLASSES[given[i]],
                truth=CLASSES[true[i]],
                bounding_box=[0.1, 0.1, 0.5, 0.5],
                confidence=0.25,
            )
            for i in range(n)
        ]
        groups = [fo.Detections(detections=objects[i : i + 3]) for i in range(0, n, 3)]
        self.dataset = make(
            [
                fo.Sample(f"/nowhere/{i}.jpg", detections=group)
                for i, group in enumerate([None, *groups, fo.Detections()])
            ]
        )
        self.dataset.add_dynamic_sample_fields()
        self.ids: list[str] = self.dataset.values("detections.detections.id", unwind=True)
        self.wrong = set(self.ids[:wrong])

    def apply(self, samples: Any = None, **options: Any) -> Any:
        given = {"embeddings": self.features, "text_features": self.text, **options}
        samples = self.dataset if samples is None else samples
        return cc.apply_clipcleaner(samples, patches_field=FIELD, **given)

    def documents(self) -> list[dict[str, Any]]:
        """The objects as the database has them, reviews aside."""
        return [
            {k: v for k, v in found.items() if not k.startswith("review") and v is not None}
            for sample in self.dataset._sample_collection.find().sort("_id")
            for found in (sample.get("detections") or {"detections": []})["detections"]
        ]


def of_objects(dataset: fo.Dataset, *names: str) -> list[list[Any]]:
    """Values of all objects, one list a name."""
    return dataset.values([f"{FIELD}.{FIELD}.{name}" for name in names], unwind=True)
