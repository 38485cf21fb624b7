"""Small image datasets with planted label errors, for tests of the App."""

from __future__ import annotations

from pathlib import Path

import fiftyone as fo
import numpy as np

from clipcleaner_plugin.demo_data import demo_dataset, read_images
from clipcleaner_plugin.digits import DIGIT_NAMES, load_half, render
from clipcleaner_plugin.noise import draw_noise
from clipcleaner_plugin.planting import inject_noise


def make_samples(folder: Path, n: int, rate: float = 0.2) -> list[fo.Sample]:
    """Writes n digits that the embedded CLIP has not seen, and labels them with symmetric noise.

    Returns:
        samples with ``ground_truth`` (noisy) and ``trusted`` (right) labels, and ``pixels``: a
        vector of 64 numbers
    """
    scans, labels, _ = load_half("held-out")
    scans, labels = scans[:n], labels[:n]
    given = draw_noise(labels, len(DIGIT_NAMES), rate=rate)
    samples = []
    for i, scan in enumerate(scans):
        path = folder / f"{i:04}.png"
        render(scan).save(path)
        samples.append(
            fo.Sample(
                filepath=str(path),
                ground_truth=fo.Classification(label=DIGIT_NAMES[given[i]]),
                trusted=fo.Classification(label=DIGIT_NAMES[labels[i]]),
                pixels=np.asarray(scan, dtype=np.float32).ravel(),
            )
        )
    return samples


def noisy_demo(name: str, rate: float = 0.3) -> fo.Dataset:
    """Makes a dataset of the demo's digits, the labels of a share of them redrawn."""
    images = read_images()
    dataset = demo_dataset(name, images)
    inject_noise(
        dataset,
        rate=rate,
        label_field="trusted_label",
        noisy_field="ground_truth",
        classes=images.classes,
    )
    return dataset
