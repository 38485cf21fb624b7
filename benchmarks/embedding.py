"""How fast images become stored vectors: ``python -m benchmarks.embedding [CASE …]``.

Cases: ``pipeline`` (5,000 photos and a model that costs next to nothing: what everything around it
costs), ``small`` (the same with photos of 32 x 32 pixels), ``model`` (1,000 photos, ViT-B/32 of
random weights), ``precision`` (its forward pass in other precisions), ``ceilings`` (decoding alone,
forward passes alone, and both: for a GPU). Each runs on CUDA where it is at hand, else on the CPU,
compares within one run, turn by turn, and prints Markdown. CPU seconds, workers included, say more
than seconds of the clock where a machine has other work too.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import os
import shutil
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fiftyone as fo
import fiftyone.core.models as fom
import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from benchmarks.data import DEFAULT_FOLDER
from benchmarks.machine import describe
from clipcleaner_plugin.embed import EmbeddingReport, embed_images
from clipcleaner_plugin.embeddings import fill_vector_field
from clipcleaner_plugin.loader import Item, choose_num_workers, decoded_batches
from clipcleaner_plugin.models import ClipModel
from clipcleaner_plugin.scoring import scoring_device
from clipcleaner_plugin.store import EmbeddingStore

IDENTITY = "benchmark"
_BATCH, _PASSES = {"cpu": 32, "cuda": 256}, {"cpu": 1, "cuda": 20}


# -- models ---------------------------------------------------------------------------------------


class NearlyFree(torch.nn.Module):
    """Means of 32 x 32 pixels, times a matrix: (B, 3, 224, 224) → (B, 512) in no time."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = torch.nn.Linear(3 * 7 * 7, 512)

    def encode_image(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.matrix(torch.nn.functional.avg_pool2d(pixels, 32).flatten(1))


def nearly_free(device: torch.device) -> ClipModel:
    """Returns the model whose cost is the pipeline's."""
    return _model(NearlyFree(), 224, 512, device)


def vit(name: str, device: torch.device) -> ClipModel:
    """Returns an open_clip model of random weights: as fast as with real ones."""
    import open_clip

    torch.manual_seed(0)
    config = open_clip.get_model_config(name)
    module = open_clip.create_model(name, pretrained=None)
    return _model(module, config["vision_cfg"]["image_size"], config["embed_dim"], device)


def _model(module: torch.nn.Module, size: int, dim: int, device: torch.device) -> ClipModel:
    from open_clip.transform import PreprocessCfg, image_transform_v2

    preprocess = PreprocessCfg(size=size, interpolation="bicubic", resize_mode="shortest")
    transform = image_transform_v2(preprocess, is_train=False)
    return ClipModel(IDENTITY, module, lambda texts: torch.empty(0), transform, dim, device)


class ForFiftyOne(fom.Model, fom.EmbeddingsMixin, fom.TorchModelMixin):
    """The same model as FiftyOne's ``compute_embeddings`` takes it."""

    preprocess = True  # FiftyOne sets it

    def __init__(self, model: ClipModel) -> None:
        self._model = model

    @property
    def media_type(self) -> str:
        return "image"

    @property
    def ragged_batches(self) -> bool:
        return False

    @property
    def transforms(self) -> Any:
        return self._model.transform

    @property
    def has_embeddings(self) -> bool:
        return True

    def embed_all(self, args: torch.Tensor) -> np.ndarray:
        return self._model.encode_images(args)


# -- photos ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Photos:
    """Where photos are taken from, and what stands in for them where they are not at hand."""

    archive: str
    name: str
    width: int
    height: int


PHOTOS = Photos("caltech101/images.zip", "photos of Caltech-101", 300, 220)
SMALL = Photos("cifar10/images_train_1.zip", "photos of CIFAR-10", 32, 32)


def make_photos(folder: Path, data: Path, count: int, source: Photos) -> tuple[list[str], str]:
    """Writes JPEG photos: real ones where they are at hand, else soft noise.

    Returns:
        their paths, some with the same contents where there are too few, and what they are
    """
    archive = data / source.archive
    if archive.is_file():
        with zipfile.ZipFile(archive) as file:
            names = sorted(n for n in file.namelist() if n.lower().endswith(".jpg"))
            names = names[:: max(len(names) // count, 1)][:count]
            contents = [file.read(name) for name in names]
        what = f"{len(contents):,} {source.name}"
    else:
        contents = [_soft_noise(seed, source) for seed in range(200)]
        what = "200 images of soft noise"
    folder.mkdir(exist_ok=True)
    paths = [str(folder / f"{number:05d}.jpg") for number in range(count)]
    for path, content in zip(paths, itertools.cycle(contents), strict=False):
        Path(path).write_bytes(content)
    return paths, f"{what}, about {source.width} x {source.height} pixels"


def _soft_noise(seed: int, source: Photos) -> bytes:
    coarse = (source.height // 8 + 1, source.width // 8 + 1, 3)
    noise = np.random.default_rng(seed).integers(0, 256, coarse, dtype=np.uint8)
    out = io.BytesIO()
    size = source.width, source.height
    Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).save(out, "JPEG")
    return out.getvalue()


# -- the ways to embed ----------------------------------------------------------------------------


class _Files(Dataset[torch.Tensor]):
    def __init__(self, paths: list[str], transform: Any) -> None:
        self._paths, self._transform = paths, transform

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        with Image.open(self._paths[index]) as image:
            return self._transform(image.convert("RGB"))


def bare_loop(paths: list[str], model: ClipModel, workers: int, batch: int) -> np.ndarray:
    """What one would write by hand: a DataLoader and the model; nothing is stored."""
    loader = DataLoader(_Files(paths, model.transform), batch_size=batch, num_workers=workers)
    return np.concatenate([model.encode_images(pixels) for pixels in loader])


def fiftyone_field(dataset: fo.Dataset, model: ClipModel, workers: int, batch: int) -> np.ndarray:
    """FiftyOne's own way, into a new field."""
    field = f"theirs_{time.monotonic_ns()}"
    dataset.compute_embeddings(
        ForFiftyOne(model), embeddings_field=field, batch_size=batch, num_workers=workers,
        progress=False,
    )  # fmt: skip
    return np.stack(dataset.values(field))


def ours(
    ids: list[str], paths: list[str], model: ClipModel, workers: int, folder: Path, batch: int
) -> tuple[EmbeddingStore, EmbeddingReport]:
    """This project's way: every batch on disk before the next but one is encoded."""
    shutil.rmtree(folder, ignore_errors=True)
    store = EmbeddingStore("benchmark", IDENTITY, folder)
    report = embed_images(
        ids, paths, model, store, batch_size=batch, num_workers=workers, progress=False
    )
    assert report.computed == len(ids), report.failures
    return store, report


def ours_and_field(
    dataset: fo.Dataset, model: ClipModel, workers: int, folder: Path, batch: int
) -> np.ndarray:
    """The same, and the vectors in a new field as well."""
    ids, paths = dataset.values(["id", "filepath"])
    field = f"mine_{time.monotonic_ns()}"
    fill_vector_field(dataset, field, *ours(ids, paths, model, workers, folder, batch))
    return np.stack(dataset.values(field))


# -- cases ----------------------------------------------------------------------------------------


def compare(
    model: ClipModel, paths: list[str], workers: int, rounds: int, scratch: Path
) -> Iterator[str]:
    """Times the ways in turns, checks that the vectors agree, and yields table rows."""
    dataset, batch = fo.Dataset(), _BATCH[model.device.type]
    try:
        dataset.add_samples([fo.Sample(path) for path in paths], progress=False)
        ids, folder = dataset.values("id"), scratch / "store"
        ways: dict[str, Callable[[], Any]] = {
            "bare loop": lambda: bare_loop(paths, model, workers, batch),
            "ours, durable": lambda: ours(ids, paths, model, workers, folder, batch)[0].read(ids),
            "ours, durable and in a field": lambda: ours_and_field(
                dataset, model, workers, folder, batch
            ),
            "FiftyOne, into a field": lambda: fiftyone_field(dataset, model, workers, batch),
        }
        seconds, cpu, results = _turns(ways, rounds)
    finally:
        dataset.delete()
    exact = results["bare loop"]
    off = {name: float(np.abs(found - exact).max()) for name, found in results.items()}
    assert max(off.values()) < 1e-3, off
    yield f"On {model.device}, batches of {batch}; the best of {rounds} turns."
    yield ""
    yield "| way | images/s | of the bare loop | of FiftyOne | CPU ms an image | off by at most |"
    yield "|---|---|---|---|---|---|"
    bare, theirs = seconds["bare loop"], seconds["FiftyOne, into a field"]
    for name, took in seconds.items():
        rates = f"{len(paths) / took:,.0f} | {bare / took:.0%} | {theirs / took:.2f} x"
        yield f"| {name} | {rates} | {cpu[name] / len(paths) * 1000:.2f} | {off[name]:.0e} |"


def precisions(model: ClipModel, rounds: int) -> Iterator[str]:
    """Times the forward pass of one batch in other precisions and layouts, and what it costs."""
    torch.manual_seed(1)
    batch, on_cuda = _BATCH[model.device.type], model.device.type == "cuda"
    pixels = torch.randn(batch, 3, 224, 224, device=model.device)
    module, last = model._module.visual, pixels.contiguous(memory_format=torch.channels_last)
    compiled, half = torch.compile(module), torch.float16 if on_cuda else None
    ways: dict[str, Callable[[], torch.Tensor]] = {
        "float32": lambda: _forward(module, pixels),
        "float32, channels last": lambda: _forward(module, last),
        "float16": lambda: _forward(module, pixels, torch.float16),
        "bfloat16": lambda: _forward(module, pixels, torch.bfloat16),
        "as used, torch.compile": lambda: _forward(compiled, pixels, half),
    }
    # A GPU has the weights in that layout anyway, and a CPU is slow with the precision
    del ways["float32, channels last" if on_cuda else "float16"]
    with torch.inference_mode():
        began = time.perf_counter()
        ways["as used, torch.compile"]()
        compiling = time.perf_counter() - began
        seconds, cpu, results = _turns(ways, rounds)
    unit = {name: torch.nn.functional.normalize(v.float(), dim=-1) for name, v in results.items()}
    used = "float16" if on_cuda else "float32"
    yield f"{used} is used. Compiling took {compiling:.0f} s. Cosine: with float32, the worst."
    yield ""
    yield "| forward pass | images/s | CPU ms an image | cosine |"
    yield "|---|---|---|---|"
    images = batch * _PASSES[model.device.type]
    for name, took in seconds.items():
        cosine = float((unit[name] * unit["float32"]).sum(dim=1).min())
        yield f"| {name} | {images / took:,.1f} | {cpu[name] / images * 1000:.1f} | {cosine:.6f} |"


def _forward(
    module: Callable[[torch.Tensor], torch.Tensor],
    pixels: torch.Tensor,
    half: torch.dtype | None = None,
) -> torch.Tensor:
    """Features by forward passes of one batch, in half precision if one is named."""
    precision = torch.autocast(pixels.device.type, half) if half else contextlib.nullcontext()
    with precision:
        for _ in range(_PASSES[pixels.device.type]):
            features = module(pixels)
    if pixels.device.type == "cuda":
        torch.cuda.synchronize(pixels.device)
    return features


def ceilings(
    names: list[str], paths: list[str], device: torch.device, workers: int | None, scratch: Path
) -> Iterator[str]:
    """Times decoding alone, forward passes alone, and the whole, in images per second."""
    batch = _BATCH[device.type]
    yield f"On {device}, batches of {batch}."
    yield ""
    yield "| model | decoding alone | forward alone | ours, durable | of the lower |"
    yield "|---|---|---|---|---|"
    for name in names:
        decoding, passing, whole = _ceilings(vit(name, device), paths, batch, workers, scratch)
        rates = " | ".join(f"{len(paths) / took:,.0f}" for took in (decoding, passing, whole))
        yield f"| {name} | {rates} | {max(decoding, passing) / whole:.0%} |"


def _ceilings(
    model: ClipModel, paths: list[str], batch: int, workers: int | None, scratch: Path
) -> tuple[float, float, float]:
    """Seconds of decoding alone, of forward passes alone, and of the whole."""
    items: list[Item] = list(enumerate(paths))
    batches = [items[i : i + batch] for i in range(0, len(items), batch)]
    used = choose_num_workers(workers, len(batches), batch, model.prepare)
    began = time.perf_counter()
    for decoded in decoded_batches(batches, model.prepare, num_workers=used):
        last = decoded.pixels
    decoding = time.perf_counter() - began
    assert last is not None
    pixels = last.to(model.device)
    model.encode_images(pixels)  # the first one chooses algorithms
    began = time.perf_counter()
    for _ in range(len(paths) // len(pixels)):
        features = model.image_features(pixels)
    features.cpu()
    passing = (time.perf_counter() - began) * len(paths) / (len(paths) // len(pixels) * len(pixels))
    began = time.perf_counter()
    ours([str(i) for i, _ in items], paths, model, used, scratch / "store", batch)
    return decoding, passing, time.perf_counter() - began


def _turns(
    ways: dict[str, Callable[[], Any]], rounds: int
) -> tuple[dict[str, float], dict[str, float], dict[str, Any]]:
    """The best time and the least CPU time of each way, and what it returned last.

    They take turns, so that other work disturbs all alike. CPU time is that of this process and of
    the workers that it has ended, not of the database.
    """
    seconds = dict.fromkeys(ways, float("inf"))
    cpu = dict(seconds)
    results: dict[str, Any] = {}
    for _ in range(rounds):
        for name, way in ways.items():
            began, used = time.perf_counter(), sum(os.times()[:4])
            results[name] = way()
            took, used = time.perf_counter() - began, sum(os.times()[:4]) - used
            seconds[name], cpu[name] = min(seconds[name], took), min(cpu[name], used)
            print(f"{name}: {took:.2f} s, CPU {used:.2f} s", file=sys.stderr, flush=True)
    return seconds, cpu, results


def main(argv: list[str] | None = None) -> int:
    """Runs the cases and prints them as Markdown."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.embedding", description=__doc__)
    cases = ["pipeline", "small", "model", "precision", "ceilings"]
    first = ", ".join(cases)
    parser.add_argument("cases", nargs="*", help=f"of {first}; by default the first 4")
    parser.add_argument("--count", type=int, help="photos; by default 5000, for model 1000")
    parser.add_argument("--rounds", type=int, default=3, help="turns; the best one counts")
    parser.add_argument("--workers", type=int, default=2, help="decoding processes")
    parser.add_argument("--device", help="cuda or cpu; by default CUDA where it is at hand")
    parser.add_argument("--models", nargs="+", default=["ViT-B-32", "ViT-L-14-336"])
    parser.add_argument(
        "--data", type=Path, default=DEFAULT_FOLDER, help="folder of caltech101/ and cifar10/"
    )
    args = parser.parse_args(argv)
    chosen = args.cases or cases[:4]
    if not set(chosen) <= set(cases):
        parser.error(f"cases are {', '.join(cases)}")
    print(describe("torch", "fiftyone", "open_clip_torch", "Pillow", "numpy"))
    with tempfile.TemporaryDirectory() as scratch:
        for case in chosen:
            print(f"\n## {case}\n")
            for row in run_case(case, args, Path(scratch)):
                print(row, flush=True)
    return 0


def run_case(case: str, args: argparse.Namespace, scratch: Path) -> Iterator[str]:
    """Runs one case, and yields lines of Markdown."""
    device = scoring_device(args.device)  # MPS would not wait for what is timed
    if case == "precision":
        yield f"ViT-B-32 of random weights on {device}, a batch of {_BATCH[device.type]}."
        yield from precisions(vit("ViT-B-32", device), args.rounds)
        return
    count = args.count or (1000 if case == "model" else 5000)
    source = SMALL if case == "small" else PHOTOS
    paths, what = make_photos(scratch / case, args.data, count, source)
    yield f"{count:,} JPEG files, {what}; {args.workers} workers."
    if case == "ceilings":
        yield from ceilings(args.models, paths, device, args.workers, scratch)
        return
    model = vit("ViT-B-32", device) if case == "model" else nearly_free(device)
    yield from compare(model, paths, args.workers, args.rounds, scratch)


if __name__ == "__main__":
    sys.exit(main())
