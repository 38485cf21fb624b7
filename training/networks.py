"""Networks by name: own small ones, torchvision's, and Inception-ResNet-v2 from timm."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from .presets import Preset

logger = logging.getLogger(__name__)


class PreActBlock(nn.Module):
    """Two 3×3 convolutions, each after normalisation and ReLU (He et al., arXiv 1603.05027)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        same = stride == 1 and inputs == outputs
        self.shortcut = None if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) → (B, outputs, ⌈H/stride⌉, ⌈W/stride⌉)."""
        activated = torch.relu(self.norm1(x))
        kept = x if self.shortcut is None else self.shortcut(activated)
        inner = self.conv1(activated)
        return kept + self.conv2(torch.relu(self.norm2(inner)))


class PreActResNet18(nn.Module):
    """ResNet-18 of pre-activation blocks with a 3×3 stem, for small images."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        widths, blocks, inputs = (64, 128, 256, 512), [], 64
        for stage, outputs in enumerate(widths):
            for block in range(2):
                stride = 2 if stage > 0 and block == 0 else 1
                blocks.append(PreActBlock(inputs, outputs, stride))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.BatchNorm2d(inputs)
        self.head = nn.Linear(inputs, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) → (B, K) logits."""
        x = torch.relu(self.norm(self.blocks(self.stem(x))))
        return self.head(x.mean(dim=(2, 3)))


def small_cnn(num_classes: int) -> nn.Module:
    """Four convolutions for images of up to some 16 pixels (digits, symbols).

    Group normalisation keeps each image for itself: small batches do it no harm, and several
    processes compute what one does.
    """

    def block(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
        conv = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        return [conv, nn.GroupNorm(8, outputs), nn.ReLU()]

    return nn.Sequential(
        *block(3, 32, 1),
        *block(32, 64, 2),
        *block(64, 64, 1),
        *block(64, 128, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(128, num_classes),
    )


def vgg19_bn(num_classes: int, image_size: int, dropout: float) -> nn.Module:
    """VGG-19 with batch normalisation; classifier 4096-4096 on as many cells as the image gives.

    torchvision's pools to 7×7 cells, of which 64 pixels give only 2×2.
    """
    network = torchvision.models.vgg19_bn(weights=None, num_classes=num_classes)
    cells = max(1, min(7, image_size // 32))
    network.avgpool = nn.AdaptiveAvgPool2d(cells)
    first = nn.Linear(512 * cells * cells, 4096)
    nn.init.normal_(first.weight, 0, 0.01)
    nn.init.zeros_(first.bias)
    network.classifier[0] = first
    for layer in network.classifier:
        if isinstance(layer, nn.Dropout):
            layer.p = dropout
    return network


def _inception_resnet_v2(num_classes: int) -> nn.Module:
    try:
        import timm
    except ImportError:
        raise ValueError(
            "--network inception-resnet-v2 comes from timm, which is not installed: "
            "pip install timm, or choose another network"
        ) from None
    return timm.create_model("inception_resnet_v2", pretrained=False, num_classes=num_classes)


OWN: dict[str, Callable[[Preset, int], nn.Module]] = {
    "preact-resnet18": lambda preset, k: PreActResNet18(k),
    "small-cnn": lambda preset, k: small_cnn(k),
    "vgg19-bn": lambda preset, k: vgg19_bn(k, preset.image_size, preset.dropout),
    "inception-resnet-v2": lambda preset, k: _inception_resnet_v2(k),
}

# Their output in training is no plain tensor: left out
_WITH_SIDE_OUTPUTS = ("googlenet", "inception_v3")


def build(preset: Preset, num_classes: int) -> nn.Module:
    """Makes a network with random weights, from torch's global generator.

    Args:
        preset: ``network``: one of ``OWN`` or a classification model of torchvision

    Returns:
        a module, (B, 3, image_size, image_size) → (B, K) logits

    Raises:
        ValueError: if the name is unknown, or the network cannot take images of that size
    """
    name = preset.network
    if name in OWN:
        network = OWN[name](preset, num_classes)
    else:
        known = torchvision.models.list_models(module=torchvision.models)
        if name not in known or name in _WITH_SIDE_OUTPUTS:
            raise ValueError(
                f"--network {name!r} is unknown: choose from {', '.join(OWN)}, or a classification "
                "model of torchvision such as resnet18, resnet50, convnext_tiny"
            )
        network = torchvision.models.get_model(name, weights=None, num_classes=num_classes)
    _try(network, preset, num_classes)
    return network


def _try(network: nn.Module, preset: Preset, num_classes: int) -> None:
    """One image through the network, so that a wrong size is said at the start, and in words."""
    size = preset.image_size
    network.eval()
    try:
        with torch.no_grad():
            shape = tuple(network(torch.zeros(1, 3, size, size)).shape)
    except (RuntimeError, AssertionError, ValueError) as err:
        raise ValueError(
            f"--network {preset.network} cannot take images of {size} pixels ({err}): "
            "choose another --image-size or network"
        ) from err
    if shape != (1, num_classes):
        raise ValueError(f"--network {preset.network} gives {shape}, expected (1, {num_classes})")


def load_weights(network: nn.Module, preset: Preset) -> None:
    """Starts a network from trained weights, all but the head, whose classes are others.

    Args:
        network: what ``build`` returned
        preset: ``weights``: "imagenet" (torchvision's, over the network) or a file

    Raises:
        ValueError: if the weights cannot be had, or belong to another network
    """
    if preset.weights == "imagenet":
        state = _imagenet_weights(preset.network)
    else:
        state = _local_weights(preset.weights)
    own = network.state_dict()
    fitting = {n: t for n, t in state.items() if n in own and own[n].shape == t.shape}
    # Counters of batches seen were not stored by old releases of torch
    missing = [n for n in own if n not in fitting and not n.endswith("num_batches_tracked")]
    head = {n.rsplit(".", 1)[0] for n in missing}
    if len(head) > 1 or not fitting:
        raise ValueError(
            f"--weights {preset.weights}: {len(missing)} of {len(own)} tensors are missing or of "
            f"another shape ({', '.join(missing[:3])}, ...): they belong to another network than "
            f"{preset.network}"
        )
    network.load_state_dict({**own, **fitting})
    logger.info("Weights from %s; random: %s", preset.weights, ", ".join(missing) or "none")


def _imagenet_weights(name: str) -> dict[str, Tensor]:
    try:
        weights: Any = torchvision.models.get_model_weights(name)
    except ValueError:
        raise ValueError(
            f"--weights imagenet: torchvision has none for {name}; give a file or a torchvision "
            "network"
        ) from None
    # The first release of the weights is the one that papers compare with
    chosen = next(iter(weights))
    try:
        state: dict[str, Tensor] = chosen.get_state_dict(
            progress=False, check_hash=True, weights_only=True
        )
    except (OSError, RuntimeError) as err:
        raise ValueError(
            f"--weights imagenet: could not get {chosen.url} ({err}). Without a network: download "
            "that file elsewhere and give --weights FILE, or --weights none to start from random "
            "weights"
        ) from err
    return state


def _local_weights(path: str) -> dict[str, Tensor]:
    if not Path(path).is_file():
        raise ValueError(f"--weights {path}: no such file (or give 'imagenet' or 'none')")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as err:  # damaged files raise nearly anything
        raise ValueError(
            f"--weights {path}: not a state dict that can be read without running code "
            f"({str(err).splitlines()[0] if str(err) else type(err).__name__})"
        ) from None
    if isinstance(state, dict) and isinstance(state.get("model"), dict):
        state = state["model"]  # one of our own checkpoints
    if not isinstance(state, dict) or not all(isinstance(t, Tensor) for t in state.values()):
        raise ValueError(f"--weights {path}: holds no state dict (names → tensors)")
    return state
