"""Single steps of training against numbers worked out beside it; half precision, torch.compile."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from training_bundles import make_bundle, metrics, read_rows, train, weights

from training.engine import Engine
from training.images import NO_AUGMENTATION, ImageSet
from training.networks import build
from training.parallel import World, start
from training.plan import Plan
from training.presets import PRESETS, Preset, override

SEED = 4
SETTINGS = override(
    PRESETS["cifar10"],
    {"network": "small-cnn", "image_size": 8, "augmentation": "none", "weight_decay": 0.1},
)
LABELS = np.array([3, 1, 4, 1, 5, 9])
WEIGHTS = np.array([0.25, 2.0, 0.0, 1.0, 0.5, 3.0], dtype=np.float32)


@pytest.fixture
def paths(tmp_path: Path) -> list[str]:
    """Six digits, the third of which cannot be read."""
    folder = make_bundle(tmp_path / "b", train=6, val=0, test=0)
    found = [folder / row["image"] for row in read_rows(folder)]
    found[2].write_bytes(b"no image")
    return list(map(str, found))


def engine_on(paths: list[str], device: str = "cpu", **options: Any) -> Engine:
    world = World(0, 1, torch.device(device))
    return Engine(SETTINGS, 10, ImageSet(paths, SETTINGS), world, seed=SEED, workers=0, **options)


def one_batch(indices: list[int], partners: list[int], lam: float = 0.75) -> Plan:
    return Plan(
        indices=np.array([indices]),
        seeds=np.zeros((1, len(indices)), dtype=np.int64),
        lambdas=np.array([lam]),
        partners=np.array([partners]),
    )


def pixels_of(paths: list[str], indices: list[int], settings: Preset = SETTINGS) -> Tensor:
    """(B, 3, H, W) normalised."""
    images = ImageSet(paths, settings)
    rows = torch.stack([images[(i, NO_AUGMENTATION)][0] for i in indices]).float() / 255
    mean, std = torch.tensor([settings.mean, settings.std])
    return (rows - mean.view(3, 1, 1)) / std.view(3, 1, 1)


def first_network(settings: Preset = SETTINGS, seed: int = SEED) -> nn.Module:
    torch.manual_seed(seed)
    return build(settings, 10).train()


def test_a_step_is_that_of_sgd_with_weights_momentum_and_decay(paths: list[str]) -> None:
    """Two steps; the weight of a sample is a factor of its loss, and the mean divides by all."""
    batch, lr = [0, 1, 3, 5], 0.02
    engine = engine_on(paths)
    own = first_network()
    speed = [torch.zeros_like(p) for p in own.parameters()]
    for epoch in range(2):
        losses = cross_entropy(
            own(pixels_of(paths, batch)), torch.from_numpy(LABELS[batch]), reduction="none"
        )
        loss = (losses * torch.from_numpy(WEIGHTS[batch])).sum() / 4
        gradients = torch.autograd.grad(loss, list(own.parameters()))
        with torch.no_grad():
            for p, v, g in zip(own.parameters(), speed, gradients, strict=True):
                v.mul_(0.9).add_(g + 0.1 * p)
                p.sub_(lr * v)
        plan = one_batch(batch, [1, 0, 3, 2])
        found = engine.train(plan, LABELS, WEIGHTS, lr, False, epoch)
        assert found == pytest.approx(float(loss.detach()), rel=1e-5)
    for p, q in zip(engine.network.parameters(), own.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-6)


def test_what_mixup_makes_of_a_batch(paths: list[str]) -> None:
    """Images and labels by the same λ. Neither an unreadable image counts, nor whom it is mixed
    with: position 1 is unreadable, position 3 has it for a partner."""
    batch, partners, lam = [0, 2, 3, 5], [2, 0, 3, 1], 0.75
    pixels, network = pixels_of(paths, batch), first_network()
    log_p = network(lam * pixels + (1 - lam) * pixels[partners]).log_softmax(dim=1)
    labels = LABELS[batch]
    losses = [
        -lam * log_p[i, labels[i]] - (1 - lam) * log_p[i, labels[partners[i]]] for i in (0, 2)
    ]
    engine = engine_on(paths)
    found = engine.train(one_batch(batch, partners), LABELS, np.ones(6, np.float32), 0.1, True, 0)
    assert found == pytest.approx(float(sum(losses).detach()) / 4, rel=1e-5)  # type: ignore[union-attr]
    assert engine.unreadable.tolist() == [i == 2 for i in range(6)]


@pytest.mark.parametrize("mixup", [False, True])
@pytest.mark.parametrize("cache", ["on", "off"])
def test_the_label_of_an_unreadable_image_changes_nothing(
    paths: list[str], mixup: bool, cache: str
) -> None:
    found = []
    for label in (4, 7):
        engine, labels = engine_on(paths, cache=cache), LABELS.copy()
        labels[2] = label
        plan = one_batch([0, 2, 3, 5], [2, 0, 3, 1])
        loss = engine.train(plan, labels, np.ones(6, np.float32), 0.1, mixup, 0)
        found.append([torch.tensor(loss), *engine.network.state_dict().values()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_the_clean_score_is_the_weight_in_the_recipe_weighted(tmp_path: Path) -> None:
    """An epoch of one batch, so that its loss is that of the untrained network on all samples."""
    folder = make_bundle(tmp_path / "b", train=24, val=0, test=0)
    options = ("--epochs", "1", "--batch-size", "24", "--augmentation", "none")
    train(folder, tmp_path / "out", *options, "--recipe", "weighted")
    rows = read_rows(folder)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    settings = override(
        PRESETS["webvision"], {"network": "small-cnn", "image_size": 8, "resize": 8}
    )
    assert (config["network"], config["image_size"], tuple(config["mean"])) == (
        *(settings.network, settings.image_size),
        settings.mean,
    )
    network = first_network(settings, config["seed"])
    pixels = pixels_of([str(folder / row["image"]) for row in rows], list(range(24)), settings)
    labels = torch.tensor([config["classes"].index(row["label"]) for row in rows])
    scores = torch.tensor([row["clean_score"] for row in rows])
    losses = cross_entropy(network(pixels), labels, reduction="none").detach()
    expected = float((losses * scores).sum() / scores.sum())
    assert metrics(tmp_path / "out")[0]["loss"] == pytest.approx(expected, rel=1e-4)
    assert expected != pytest.approx(float(losses.mean()), rel=1e-3)


def test_torch_compile_where_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every step goes through what torch.compile returns; checkpoints are those of the network."""
    steps: list[int] = []

    def compiled(network: nn.Module) -> Any:
        def forward(images: Tensor) -> Tensor:
            steps.append(len(images))
            logits: Tensor = network(images)
            return logits

        return forward

    monkeypatch.setattr(torch, "compile", compiled)
    folder = make_bundle(tmp_path / "b", train=32, val=8, test=8)
    options = ("--epochs", "2", "--batch-size", "16")
    train(folder, tmp_path / "plain", *options)
    assert steps == []
    train(folder, tmp_path / "compiled", *options, "--compile")
    assert steps == [16] * 4
    a, b = (weights(tmp_path / name / "last.pt") for name in ("plain", "compiled"))
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    ("device", "words"),
    [
        ("tpu", "--device 'tpu' is unknown: give cuda, cpu or mps"),
        ("cpu:x", "'cpu:x' is unknown"),
        ("cuda", "no device of that kind"),
        ("mps", "no device of that kind"),
        ("cuda:2", "there are 2, counted from 0"),
    ],
)
def test_a_device_that_is_not_there_is_named(
    monkeypatch: pytest.MonkeyPatch, device: str, words: str
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2 if ":" in device else 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ValueError, match=words):
        start(device)


on_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=on_cuda)])
def test_half_precision_and_channels_last_reach_the_network(paths: list[str], device: str) -> None:
    """On CUDA they are chosen by the engine; on CPUs, which it leaves alone, by the test."""
    engine = engine_on(paths, device, amp="auto")
    if device == "cpu":
        assert engine.half is None and engine.layout is torch.contiguous_format
        engine.half, engine.layout = torch.bfloat16, torch.channels_last
    assert engine.half in (torch.bfloat16, torch.float16)
    seen: list[tuple[bool, bool, torch.dtype]] = []

    def look(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        is_last = inputs[0].is_contiguous(memory_format=torch.channels_last)
        seen.append((module.training, is_last, output.dtype))

    first = next(m for m in engine.network.modules() if isinstance(m, nn.Conv2d))
    first.register_forward_hook(look)
    plan = one_batch([0, 1, 3, 5], [1, 0, 3, 2])
    loss = engine.train(plan, LABELS, np.ones(6, np.float32), 0.1, True, 0)
    predicted, confidence = engine.predict(np.array([0, 2, 4]))
    assert seen == [(True, True, engine.half), (False, True, engine.half)]
    assert (predicted[[0, 4]] >= 0).all() and predicted[2] == -1
    assert confidence.dtype == np.float32
    # What is learned stays in float32, and is nearly that of float32
    plain = engine_on(paths)
    expected = plain.train(plan, LABELS, np.ones(6, np.float32), 0.1, True, 0)
    assert loss == pytest.approx(expected, rel=0.02)
    for p, q in zip(engine.network.parameters(), plain.network.parameters(), strict=True):
        torch.testing.assert_close(p.detach().cpu(), q.detach(), rtol=0.02, atol=0.02)


@on_cuda
@pytest.mark.parametrize("options", [["--amp", "bf16"], ["--amp", "fp16"], ["--compile"]])
def test_a_gpu_learns_what_a_cpu_does(tmp_path: Path, options: list[str]) -> None:
    folder = make_bundle(tmp_path / "b", train=400, val=50, test=200, noise=0.2)
    common = ("--epochs", "20", "--lr", "0.1", "--batch-size", "20", "--augmentation", "none")
    found = {
        device: train(folder, tmp_path / device, *common, "--device", device, *more)
        for device, more in (("cpu", []), ("cuda", options))
    }
    cpu, cuda = (found[device]["last"]["test_accuracy"] for device in ("cpu", "cuda"))
    assert cuda > cpu - 0.1 and cuda > 0.7
