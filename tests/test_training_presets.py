"""The table of settings, the command line over it, and the networks it names."""

from __future__ import annotations

import sys
from dataclasses import fields
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn
from training_bundles import make_bundle

from training import networks
from training.bundle import read_bundle
from training.networks import build, load_weights
from training.options import configure, parse
from training.presets import PRESETS, Preset, auto_preset, learning_rate, override


# β, θ_r, θ_r2, batch, epochs, milestones, network, side: METHOD's table, of the paper
@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("cifar10", (1, 0.8, 0.8, 128, 300, (200, 250), "preact-resnet18", 32)),
        ("cifar100", (1, 0.8, 0.8, 128, 300, (200, 250), "preact-resnet18", 32)),
        ("cifar10-idn", (1, 1, 1, 128, 300, (200, 250), "preact-resnet18", 32)),
        ("animal10n", (0.5, 0.7, 0.95, 128, 300, (200, 250), "vgg19-bn", 64)),
        ("red-mini-imagenet", (4, 0.8, 0.95, 64, 300, (200, 250), "preact-resnet18", 32)),
        ("webvision", (0.5, 0.7, 1, 64, 150, (80, 120), "inception-resnet-v2", 299)),
        ("clothing1m", (1, 0.8, 0.8, 128, 300, (200, 250), "resnet50", 224)),
    ],
)
def test_presets_are_those_of_the_paper(name: str, values: tuple[object, ...]) -> None:
    p = PRESETS[name]
    chosen = (p.beta, p.theta_r, p.theta_r2, p.batch_size, p.epochs, p.milestones)
    assert (*chosen, p.network, p.image_size) == values
    assert (p.lr, p.momentum, p.weight_decay) == (0.02, 0.9, 5e-4)
    assert override(p, {}) == p, "every preset passes its own checks"


CIFAR10_NORM = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
CIFAR100_NORM = ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761))
NO_NORM = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
IMAGENET_NORM = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLOTHING_NORM = ((0.6959, 0.6537, 0.6371), (0.3113, 0.3192, 0.3214))


# Resized to, padding, augmentation, normalisation
@pytest.mark.parametrize(
    ("name", "resize", "padding", "augmentation", "norm"),
    [
        ("cifar10", 32, 4, "autoaugment-cifar10", CIFAR10_NORM),
        ("cifar100", 32, 4, "autoaugment-cifar10", CIFAR100_NORM),
        ("cifar10-idn", 32, 4, "autoaugment-cifar10", CIFAR10_NORM),
        ("animal10n", 64, 8, "randaug", NO_NORM),
        ("red-mini-imagenet", 32, 4, "autoaugment-cifar10", NO_NORM),
        ("webvision", 320, 0, "autoaugment-imagenet", IMAGENET_NORM),
        ("clothing1m", 256, 0, "autoaugment-imagenet", CLOTHING_NORM),
    ],
)
def test_presets_see_images_as_the_paper_does(
    name: str, resize: int, padding: int, augmentation: str, norm: object
) -> None:
    p = PRESETS[name]
    assert (p.resize, p.padding, p.augmentation) == (resize, padding, augmentation)
    assert (p.mean, p.std) == norm
    assert p.aspect == ("squash" if name == "red-mini-imagenet" else "keep")
    assert p.crop_scale == (0.08 if name == "webvision" else 1)
    clothing = name == "clothing1m"
    assert (p.weights, p.epoch_samples) == (("imagenet", 128_000) if clothing else ("", 0))
    assert p.network != "vgg19-bn" or p.dropout == 0.2


def test_the_rate_falls_at_the_milestones() -> None:
    rates = [learning_rate(PRESETS["cifar10"], epoch) for epoch in (0, 199, 200, 249, 250, 299)]
    assert rates == pytest.approx([0.02, 0.02, 0.002, 0.002, 0.0002, 0.0002])


def test_milestones_keep_their_proportions() -> None:
    assert override(PRESETS["cifar10"], {"epochs": 30}).milestones == (20, 25)
    assert override(PRESETS["webvision"], {"epochs": 15}).milestones == (8, 12)
    both = override(PRESETS["cifar10"], {"epochs": 30, "milestones": (5,)})
    assert both.milestones == (5,)


def test_every_value_is_an_option() -> None:
    given = []
    for field in fields(Preset):
        value = getattr(PRESETS["webvision"], field.name)
        text = [str(v) for v in value] if isinstance(value, tuple) else [str(value) or "none"]
        given += [f"--{field.name.replace('_', '-')}", *text]
    assert override(PRESETS["cifar10"], parse(["bundle", *given]).overrides) == PRESETS["webvision"]


def test_resizing_follows_the_image_size() -> None:
    assert override(PRESETS["clothing1m"], {"image_size": 112}).resize == 128
    assert override(PRESETS["cifar10"], {"image_size": 64}).resize == 64


@pytest.mark.parametrize(
    "options",
    [
        "--epochs 0",
        "--batch-size 0",
        "--lr 0",
        "--beta 0",
        "--theta-r 1.1",
        "--dropout 1",
        "--augmentation mirror",
        "--aspect stretch",
        "--crop-scale 0",
        "--image-size 64 --resize 32",
        "--std 0 1 1",
        "--mean 0.5",
        "--milestones -3",
    ],
)
def test_a_senseless_value_is_named(options: str) -> None:
    with pytest.raises(ValueError, match=options.split()[0]):
        override(PRESETS["cifar10"], parse(["bundle", *options.split()]).overrides)


@pytest.mark.parametrize("options", ["--workers -1", "--seed -1"])
def test_a_senseless_option_is_named(options: str) -> None:
    with pytest.raises(ValueError, match=options.split()[0]):
        parse(["bundle", *options.split()])


def test_auto_follows_size_classes_and_samples() -> None:
    tiny, small, large = (auto_preset(side, 10, 5000) for side in (8, 32, 300))
    assert (tiny.network, tiny.image_size, tiny.augmentation) == ("small-cnn", 8, "crop")
    assert (small.network, small.image_size) == ("preact-resnet18", 32)
    assert (large.network, large.image_size, large.resize) == ("resnet18", 224, 256)
    assert auto_preset(300, 200, 5000).network == "resnet50"
    assert auto_preset(300, 10, 50_000).network == "resnet50"
    assert [auto_preset(32, 10, n).batch_size for n in (500, 5000, 50_000)] == [32, 64, 128]
    long, short = (auto_preset(32, 10, n) for n in (50_000, 250_000))
    assert (long.epochs, long.milestones) == (300, (200, 250))
    assert (short.epochs, short.milestones) == (60, (40, 50))
    for side in (1, 8, 9, 16, 17, 48, 49, 96, 97, 5000):
        assert override(auto_preset(side, 2, 10), {}).image_size >= 8


def test_a_batch_fits_the_bundle_and_the_processes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = make_bundle(tmp_path / "b", train=21, val=2, test=2)
    bundle = read_bundle(folder)
    args = parse([str(folder), "--batch-size", "64"])
    assert configure(args, bundle, 1).settings.batch_size == 21
    assert "fewer than a batch of 64: batches of 21" in caplog.text
    assert configure(args, bundle, 4).settings.batch_size == 20
    with pytest.raises(ValueError, match="each process needs two"):
        configure(args, bundle, 16)
    with pytest.raises(ValueError, match="no multiple of 3"):
        configure(parse([str(folder), "--batch-size", "16"]), bundle, 3)
    with pytest.raises(ValueError, match="--epoch-samples 5 is less than a batch"):
        configure(parse([str(folder), "--epoch-samples", "5", "--batch-size", "8"]), bundle, 1)


def test_preact_resnet18_by_its_count_of_parameters() -> None:
    # Convolutions: 27·64 + 4·9·64² + 9·(64·128 + 3·128²) + 9·(128·256 + 3·256²)
    # + 9·(256·512 + 3·512²), shortcuts 64·128 + 128·256 + 256·512; normalisation two a channel:
    # 2·(4·64 + 64 + 3·128 + 128 + 3·256 + 256 + 3·512 + 512); head 512·10 + 10
    network = build(PRESETS["cifar10"], 10)
    assert sum(p.numel() for p in network.parameters()) == 11_172_170
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    first = next(m for m in network.modules() if isinstance(m, nn.Conv2d))
    assert (first.kernel_size, first.stride) == ((3, 3), (1, 1))


def test_vgg_has_the_classifier_of_the_paper() -> None:
    network = networks.vgg19_bn(10, image_size=64, dropout=0.2)
    layers = [m for m in network.classifier if isinstance(m, nn.Linear)]
    assert [(m.in_features, m.out_features) for m in layers] == [
        (512 * 2 * 2, 4096),
        (4096, 4096),
        (4096, 10),
    ]
    assert [m.p for m in network.classifier if isinstance(m, nn.Dropout)] == [0.2, 0.2]


def test_a_network_of_torchvision_by_name() -> None:
    preset = override(PRESETS["cifar10"], {"network": "mobilenet_v3_small"})
    assert build(preset, 7)(torch.zeros(2, 3, 32, 32)).shape == (2, 7)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"network": "resnet19"}, "'resnet19' is unknown"),
        ({"network": "inception_v3"}, "unknown"),
        ({"network": "vit_b_16"}, "cannot take images of 32 pixels"),
        ({"network": "vgg19-bn", "image_size": 16}, "cannot take images of 16 pixels"),
    ],
)
def test_a_network_that_does_not_fit_is_named(values: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build(override(PRESETS["cifar10"], values), 10)


def test_inception_needs_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match="pip install timm"):
        build(PRESETS["webvision"], 50)


def test_inception_resnet_takes_a_step() -> None:
    """On small images: 299 pixels take three times as long."""
    preset = override(PRESETS["webvision"], {"image_size": 96})
    torch.manual_seed(0)
    network = build(preset, 50).train()
    before = [parameter.detach().clone() for parameter in network.parameters()]
    optimizer = torch.optim.SGD(network.parameters(), lr=preset.lr)
    logits = network(torch.rand(4, 3, 96, 96))
    loss = nn.functional.cross_entropy(logits, torch.arange(4))
    loss.backward()
    optimizer.step()
    assert logits.shape == (4, 50) and 2 < float(loss.detach()) < 8  # about log(50) = 3.9
    changed = [not torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True)]
    assert all(changed)


def weights_from(path: Path | str, network: str = "mobilenet_v3_small") -> Preset:
    return override(PRESETS["cifar10"], {"network": network, "weights": str(path)})


def test_weights_of_a_file_fill_all_but_the_head(tmp_path: Path) -> None:
    trained = torchvision.models.get_model("mobilenet_v3_small", weights=None, num_classes=1000)
    path = tmp_path / "imagenet.pth"
    torch.save(trained.state_dict(), path)
    network = build(weights_from(path), 10)
    load_weights(network, weights_from(path))
    for name, tensor in network.state_dict().items():
        same = torch.equal(tensor, trained.state_dict()[name])
        assert same == (not name.startswith("classifier.3")), name


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    preset = weights_from(tmp_path / "w.pth")
    network = build(preset, 10)
    with pytest.raises(ValueError, match="no such file"):
        load_weights(network, preset)
    (tmp_path / "w.pth").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="not a state dict"):
        load_weights(network, preset)
    torch.save({"a": 1}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match="holds no state dict"):
        load_weights(network, preset)
    torch.save(networks.small_cnn(3).state_dict(), tmp_path / "w.pth")
    with pytest.raises(ValueError, match="another network than mobilenet_v3_small"):
        load_weights(network, preset)
    torch.save(nn.Linear(2, 2), tmp_path / "w.pth")  # a pickled object, which could run code
    with pytest.raises(ValueError, match="without running code"):
        load_weights(network, preset)


def test_weights_that_cannot_be_downloaded_say_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for name in ("http_proxy", "https_proxy", "HTTPS_PROXY", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # the discard port: nobody listens
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    preset = weights_from("imagenet")
    with pytest.raises(ValueError, match=r"download\s+that file elsewhere.*--weights FILE"):
        load_weights(build(preset, 10), preset)
    own = weights_from("imagenet", "preact-resnet18")
    with pytest.raises(ValueError, match="torchvision has none for preact-resnet18"):
        load_weights(build(own, 10), own)
