"""How fast the recipe trains: ``python -m benchmarks.training [OPTION OF THE TRAINER …]``.

MixFix on a bundle of images that are made for it, by the trainer and by the loop that one writes
first: float32, files opened anew for every batch, augmented and normalised in the process that
trains, the loss fetched at each step. Both draw the same batches, so that their losses agree where
the trainer computes in float32 too. Prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import log_softmax, one_hot
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks.machine import describe
from training import options, train
from training.bundle import Bundle, read_bundle
from training.images import NO_AUGMENTATION, Item, augmentation
from training.mixfix import initial_set, next_set
from training.networks import build
from training.options import Config
from training.parallel import World, start
from training.plan import plain_batches, plan_epoch
from training.presets import Preset, learning_rate

_CLASSES = [f"class {k}" for k in range(10)]
_SELECTED = 0.6
_PATTERNS = 500  # images that differ; their files are all their own


def make_bundle(folder: Path, samples: int, side: int) -> Path:
    """Writes a bundle of soft noise: PNG files for training, and a fifth as many to test on."""
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (_PATTERNS, 8, 8, 3), dtype=np.uint8)
    pictures = [Image.fromarray(p).resize((side, side), Image.Resampling.BICUBIC) for p in noise]
    with (folder / "manifest.jsonl").open("w") as manifest:
        for i in range(samples + samples // 5):
            name = f"images/{i:07}.png"
            pictures[i % _PATTERNS].save(folder / name)
            row = {"id": str(i), "image": name, "label": _CLASSES[int(rng.integers(10))]}
            row |= {"split": "train" if i < samples else "test"}
            manifest.write(json.dumps({**row, "selected": bool(rng.random() < _SELECTED)}) + "\n")
    header = {"format": "clipcleaner-bundle", "version": 1, "classes": _CLASSES}
    (folder / "bundle.json").write_text(json.dumps(header))
    return folder


class PlainImages(Dataset[Tensor]):
    """Images as a tutorial reads them: decoded, augmented and normalised when they are asked for.

    Args:
        paths: N image files
        settings: sizes, augmentation and normalisation
    """

    def __init__(self, paths: tuple[str, ...], settings: Preset) -> None:
        self.paths = paths
        sides = settings.resize
        squash = settings.aspect == "squash"
        self.resize = transforms.Resize((sides, sides) if squash else sides)
        self.augment = augmentation(settings)
        self.crop = transforms.CenterCrop(settings.image_size)
        normalize = transforms.Normalize(settings.mean, settings.std)
        self.to_tensor = transforms.Compose([transforms.ToTensor(), normalize])

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, item: Item) -> Tensor:
        index, seed = item
        image = self.resize(Image.open(self.paths[index]).convert("RGB"))
        if seed == NO_AUGMENTATION:
            image = self.crop(image)
        else:
            torch.manual_seed(seed)
            image = self.augment(image)
        tensor: Tensor = self.to_tensor(image)
        return tensor


def plain_loop(bundle: Bundle, config: Config, device: torch.device) -> Iterator[dict[str, float]]:
    """Trains MixFix without any care for speed.

    Args:
        bundle: the samples
        config: the settings; ``weights`` and ``epoch_samples`` are not looked at
        device: where to compute

    Yields:
        of each epoch: loss, seconds, and images a second of its training steps
    """
    settings, world = config.settings, World(0, 1, device)
    images, everything = PlainImages(bundle.paths, settings), np.arange(len(bundle))
    torch.manual_seed(config.seed)
    network = build(settings, len(bundle.classes)).to(device)
    optimizer = torch.optim.SGD(
        network.parameters(),
        lr=settings.lr,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
    )
    in_train = np.isin(everything, bundle.splits["train"])
    selected = bundle.selected & in_train
    current = initial_set(bundle.labels, selected)
    for epoch in range(settings.epochs):
        started = time.perf_counter()
        members = np.flatnonzero(current.members)
        steps = int(in_train.sum()) // settings.batch_size
        plan = plan_epoch(
            members,
            current.labels[members],
            steps,
            settings.batch_size,
            balanced=True,
            beta=settings.beta,
            seed=config.seed,
            epoch=epoch,
        )
        optimizer.param_groups[0]["lr"] = learning_rate(settings, epoch)
        network.train()
        total = 0.0
        loader = DataLoader(images, batch_sampler=plan.batches(world))
        for step, batch in enumerate(loader):
            own = batch.to(device)
            labels = torch.from_numpy(current.labels[plan.indices[step]]).to(device)
            targets = one_hot(labels, len(bundle.classes)).float()
            partners, lam = torch.from_numpy(plan.partners[step]), float(plan.lambdas[step])
            mixed = lam * own + (1 - lam) * own[partners]
            targets = lam * targets + (1 - lam) * targets[partners]
            loss = -(targets * log_softmax(network(mixed), dim=1)).sum(dim=1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
        trained = time.perf_counter()
        predicted, confidence = _predict(network, images, settings.batch_size, device)
        predicted[~in_train] = -1
        thetas = settings.theta_r, settings.theta_r2
        current = next_set(bundle.labels, selected, predicted, confidence, *thetas)
        yield {
            "loss": total / steps,
            "seconds": time.perf_counter() - started,
            "images_per_second": plan.indices.size / (trained - started),
        }


def _predict(
    network: torch.nn.Module, images: PlainImages, batch_size: int, device: torch.device
) -> tuple[np.ndarray, np.ndarray]:
    network.eval()
    batches = plain_batches(np.arange(len(images)), batch_size)
    found: list[Tensor] = []
    with torch.no_grad():
        for batch in DataLoader(images, batch_sampler=batches):
            found.append(network(batch.to(device)).softmax(dim=1).cpu())
    confidence, predicted = torch.cat(found).max(dim=1)
    return predicted.numpy(), confidence.numpy()


def compare(bundle: Path, trainer: list[str]) -> tuple[Config, dict[str, list[dict[str, Any]]]]:
    """Trains both ways, the plain one first: the trainer changes settings of torch for good.

    Args:
        bundle: the folder
        trainer: arguments of the trainer's command line

    Returns:
        the settings, and ``{way: metrics of its epochs}``
    """
    args = options.parse([str(bundle), *trainer])
    content = read_bundle(bundle)
    config = options.configure(args, content, 1)
    plain = list(plain_loop(content, config, start(args.device).device))
    ours: list[dict[str, Any]] = []
    train.run(args, ours.append)
    return config, {"plain loop": plain, "trainer": ours}


def table(found: dict[str, list[dict[str, Any]]]) -> Iterator[str]:
    """Makes the lines of a Markdown table; medians of the epochs after the first one."""
    yield "| way | seconds an epoch | images/s of the training steps | of the plain loop | loss |"
    yield "|---|---|---|---|---|"
    plain = _median(found["plain loop"], "seconds")
    for way, rows in found.items():
        seconds, rate = _median(rows, "seconds"), _median(rows, "images_per_second")
        losses = ", ".join(f"{row['loss']:.4f}" for row in rows)
        yield f"| {way} | {seconds:.2f} | {rate:,.0f} | {plain / seconds:.1f} x | {losses} |"


def _median(rows: list[dict[str, Any]], name: str) -> float:
    return float(np.median([row[name] for row in rows[1:] or rows]))


def main(argv: list[str] | None = None) -> int:
    """Runs the benchmark and prints its table.

    Args:
        argv: arguments; default: those of the command line

    Returns:
        exit status
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__)
    parser.add_argument("--samples", type=int, default=50_000, help="training images")
    parser.add_argument("--side", type=int, default=32, help="pixels a side of the files")
    parser.add_argument("--epochs", type=int, default=3, help="the first warms up")
    parser.add_argument("--preset", default="cifar10", help="(default: %(default)s)")
    args, rest = parser.parse_known_args(argv)
    trainer = ["--preset", args.preset, "--epochs", str(args.epochs), *rest]
    with tempfile.TemporaryDirectory() as folder:
        config, found = compare(make_bundle(Path(folder), args.samples, args.side), trainer)
    settings = config.settings
    print(f"{describe('torch', 'torchvision', 'Pillow')}\n")
    print(
        f"{args.samples:,} training and {args.samples // 5:,} test images of {args.side} px; "
        f"{settings.network}, {settings.image_size} px, batches of {settings.batch_size}, "
        f"{settings.augmentation}, {settings.epochs} epochs.\n"
    )
    print("\n".join(table(found)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
