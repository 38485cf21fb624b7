"""Data of the scaled-down rows: a part of CIFAR-10N in the layout of the original, and digits."""

from __future__ import annotations

import csv
import io
import pickle
import zipfile
from pathlib import Path

import fiftyone as fo
import numpy as np
import torch
from PIL import Image

from benchmarks.data import DEFAULT_FOLDER, DataMissingError
from clipcleaner_plugin import datasets
from clipcleaner_plugin.datasets.classes import CIFAR10
from clipcleaner_plugin.demo_data import read_images
from clipcleaner_plugin.splits import stratified

TRAIN, TEST = 5_000, 2_000

_SEED = 51  # of which images, and of the patches
_PATCH, _CENTROIDS, _COMPONENTS = 6, 400, 256
_HUMAN = {
    **{f"random_label{i}": f"random{i}" for i in (1, 2, 3)},
    **{"clean_label": "clean", "worse_label": "worse", "aggre_label": "aggre"},
}


def cifar10n(root: Path, work: Path, name: str) -> fo.Dataset:
    """Makes the dataset of a part of CIFAR-10N.

    Args:
        root: holds ``cifar10``: JPEG files in zip archives, and labels in CSV files
        work: where the part goes, in the layout of the original
        name: of the dataset

    Returns:
        a persistent dataset with CIFAR-10N's labels "worse"

    Raises:
        DataMissingError: if there is no such folder
    """
    tree = work / "cifar10n-part"
    _write_part(
        root / "cifar10" if (root / "cifar10").is_dir() else DEFAULT_FOLDER / "cifar10", tree
    )
    return datasets.load("cifar10n", tree, "worse", dataset_name=name, persistent=True)


def digits(root: Path, work: Path, name: str) -> fo.Dataset:
    """Makes the dataset of the demo's digits, with splits.

    Returns:
        a persistent dataset with right labels
    """
    images = read_images()
    labels = [images.classes[k] for k in images.labels]
    splits = stratified(labels, {"train": 0.7, "val": 0.1, "test": 0.2}, _SEED)
    dataset = fo.Dataset(name, persistent=True)
    dataset.default_classes = images.classes
    samples = []
    for path, label, split in zip(images.filepaths, labels, splits, strict=True):
        fields = {
            field: fo.Classification(label=label)
            for field in (datasets.GIVEN_FIELD, datasets.TRUSTED_FIELD)
        }
        samples.append(fo.Sample(filepath=path, tags=[split], **fields))
    dataset.add_samples(samples, progress=False)
    return dataset


def patch_features(filepaths: list[str]) -> np.ndarray:
    """Describes images of 32 x 32 pixels by patches, without any labels.

    Coates, Lee, Ng, "An Analysis of Single-Layer Networks in Unsupervised Feature Learning",
    AISTATS 2011: whitened patches, centroids of k-means, "triangle" activations summed over four
    quadrants; here followed by the principal components.

    Args:
        filepaths: N images

    Returns:
        (N, 256) float32
    """
    images = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in filepaths])
    pixels = torch.from_numpy(images.astype(np.float32)).permute(0, 3, 1, 2)
    rng = torch.Generator().manual_seed(_SEED)
    some = torch.randperm(len(pixels), generator=rng)[:1000]
    patches = torch.cat([_patches(pixels[part]).flatten(0, 1) for part in some.split(100)])
    chosen = torch.randperm(len(patches), generator=rng)
    patches = patches[chosen[:60_000]]
    mean = patches.mean(dim=0)
    values, vectors = torch.linalg.eigh(torch.cov(patches.T))
    whiten = vectors @ torch.diag((values + 0.1).rsqrt()) @ vectors.T
    centroids = _k_means((patches - mean) @ whiten, rng)
    rows = [_pooled(part, mean, whiten, centroids) for part in pixels.split(100)]
    features = torch.cat(rows)
    features = (features - features.mean(dim=0)) / (features.std(dim=0) + 1e-6)
    _, vectors = torch.linalg.eigh(torch.cov(features.T))
    found: np.ndarray = (features @ vectors[:, -_COMPONENTS:]).numpy()
    return found


def _patches(pixels: torch.Tensor) -> torch.Tensor:
    """(n, 3, 32, 32) → (n, 729, 108), each patch of zero mean and unit contrast."""
    found = torch.nn.functional.unfold(pixels, _PATCH).transpose(1, 2)
    found = found - found.mean(dim=2, keepdim=True)
    return found / (found.var(dim=2, keepdim=True) + 10).sqrt()


def _k_means(points: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    centroids = points[torch.randperm(len(points), generator=rng)[:_CENTROIDS]]
    for _ in range(10):
        nearest = torch.cdist(points, centroids).argmin(dim=1)
        sums = torch.zeros_like(centroids).index_add_(0, nearest, points)
        counts = torch.bincount(nearest, minlength=_CENTROIDS)[:, None]
        centroids = torch.where(counts > 0, sums / counts.clamp(min=1), centroids)
    return centroids


def _pooled(
    pixels: torch.Tensor, mean: torch.Tensor, whiten: torch.Tensor, centroids: torch.Tensor
) -> torch.Tensor:
    """Sums of max(0, mean distance - distance) over the quadrants: (n, 4 · centroids)."""
    points = (_patches(pixels) - mean) @ whiten
    distances = torch.cdist(points, centroids.expand(len(points), -1, -1))
    active = (distances.mean(dim=2, keepdim=True) - distances).clamp(min=0)
    side = round(active.shape[1] ** 0.5)
    grid = active.transpose(1, 2).reshape(len(pixels), _CENTROIDS, side, side)
    return torch.nn.functional.adaptive_avg_pool2d(grid, 2).flatten(1)


def _write_part(source: Path, tree: Path) -> None:
    """Writes the part as CIFAR-10's batches and CIFAR-10N's label file; the test batch last."""
    batches = tree / "cifar-10-batches-py"
    if (batches / "test_batch").is_file():
        return
    if not source.is_dir():
        raise DataMissingError(f"{source} is not there: name the folder above it with --root")
    batches.mkdir(parents=True, exist_ok=True)
    rows = _drawn(source / "train_files_and_labels.csv", TRAIN)
    human = {key: np.array([CIFAR10.index(r[name]) for r in rows]) for key, name in _HUMAN.items()}
    torch.save(human, tree / "CIFAR-10_human.pt")
    pixels = _pixels(source, ("images_train_1.zip", "images_train_2.zip"), rows)
    for i, part in enumerate(np.array_split(np.arange(TRAIN), 5), start=1):
        _write_batch(batches / f"data_batch_{i}", pixels[part], human["clean_label"][part])
    rows = _drawn(source / "test_files_and_labels.csv", TEST)
    labels = np.array([CIFAR10.index(row["label"]) for row in rows])
    _write_batch(batches / "test_batch", _pixels(source, ("images_test.zip",), rows), labels)


def _drawn(path: Path, count: int) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    chosen = np.random.RandomState(_SEED).permutation(len(rows))[:count]
    return [rows[i] for i in np.sort(chosen)]


def _pixels(source: Path, archives: tuple[str, ...], rows: list[dict[str, str]]) -> np.ndarray:
    """(n, 3072) bytes: all of red, then green, then blue, as CIFAR has them."""
    found: dict[str, np.ndarray] = {}
    wanted = {row["file"] for row in rows}
    for name in archives:
        with zipfile.ZipFile(source / name) as archive:
            for file in wanted & set(archive.namelist()):
                picture = Image.open(io.BytesIO(archive.read(file))).convert("RGB")
                found[file] = np.asarray(picture).transpose(2, 0, 1).reshape(-1)
    return np.stack([found[row["file"]] for row in rows])


def _write_batch(path: Path, pixels: np.ndarray, labels: np.ndarray) -> None:
    scratch = path.with_name(f"{path.name}.part")
    scratch.write_bytes(pickle.dumps({"data": pixels, "labels": labels.tolist()}, protocol=2))
    scratch.replace(path)
