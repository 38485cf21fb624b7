"""Trains the embedded CLIP: an image and a text tower that know handwritten digits, contrastively,
on a CPU.

    python -m clipcleaner_plugin.assets.tiny_clip_digits.train [--out FOLDER] [--steps N] [--seed S]
    [--threads T]

Only the training half of the digits is read until the model is written; then the written file is
loaded again and its zero-shot accuracy on the held-out half is printed. Why the choices are as they
are stands in README.md beside this.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from clipcleaner_plugin.digits import DIGIT_NAMES, Half, load_half, render

logger = logging.getLogger(__name__)

FOLDER = Path(__file__).resolve().parent
STEPS, SEED, THREADS = 1200, 51, 1
GROUPS = 12  # a step sees 12 groups of ten images, each group one of every digit
LEARNING_RATE, WEIGHT_DECAY, WARM_UP = 3e-3, 0.05, 0.1
MAX_LOGIT_SCALE = 100.0  # CLIP's own ceiling; starting there keeps cosines to CLIP's usual spread
TEMPLATES = (
    "{}",
    "a photo of a {}",
    "a photo of a {}.",
    "the digit {}",
    "handwritten {}",
    "the handwritten digit {}",
    "a scan of the digit {}",
    "a picture of the number {}.",
    "an image of the handwritten number {}",
    "a low resolution photo of a {}.",
)
MODEL_CONFIG: dict[str, Any] = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 32},
    "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}


def preprocessing() -> dict[str, Any]:
    """Measures how the training half must be normalised: one grey mean and deviation for all three
    channels.

    Returns:
        the ``preprocess_cfg`` of open_clip_config.json
    """
    scans, _, _ = load_half("train")
    pictures = torch.stack([_to_tensor(render(scan)) for scan in scans])
    mean, std = round(float(pictures.mean()), 4), round(float(pictures.std()), 4)
    return {
        "mean": [mean] * 3,
        "std": [std] * 3,
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    }


def _to_tensor(picture: Any) -> torch.Tensor:
    from torchvision.transforms.functional import to_tensor

    return to_tensor(picture)


def load_pixels(half: Half, preprocess: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Renders one half of the digits and puts it through the model's own validation transform.

    Args:
        half: "train" or "held-out"
        preprocess: the ``preprocess_cfg``

    Returns:
        (n, 3, 32, 32) float32 pixels, (n,) int64 labels
    """
    from open_clip.transform import PreprocessCfg, image_transform_v2

    size = MODEL_CONFIG["vision_cfg"]["image_size"]
    transform = image_transform_v2(PreprocessCfg(size=size, **preprocess), is_train=False)
    scans, labels, _ = load_half(half)
    return torch.stack([transform(render(scan)) for scan in scans]), torch.from_numpy(labels)


def caption_tokens() -> torch.Tensor:
    """Writes every caption of every digit, with its name ("three") and its figure ("3").

    Returns:
        (10, captions, context_length) int64 tokens
    """
    from open_clip import SimpleTokenizer

    tokenizer = SimpleTokenizer(context_length=MODEL_CONFIG["text_cfg"]["context_length"])
    rows = []
    for digit, name in enumerate(DIGIT_NAMES):
        rows.append(tokenizer([t.format(word) for word in (name, str(digit)) for t in TEMPLATES]))
    return torch.stack(rows)


def augment(pixels: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    """Writes the digits anew: turned, scaled, slanted, shifted, bent a little, with some noise.

    Args:
        pixels: (n, 3, h, w) normalised pixels
        random: where the randomness comes from

    Returns:
        (n, 3, h, w) pixels
    """
    n, _, height, width = pixels.shape

    def uniform(limit: float) -> torch.Tensor:
        return (torch.rand(n, generator=random) * 2 - 1) * limit

    angle, slant = uniform(0.2), uniform(0.2)
    matrix = torch.zeros(n, 2, 3)
    matrix[:, 0, 0] = (1 + uniform(0.15)) * torch.cos(angle)
    matrix[:, 0, 1] = slant - torch.sin(angle)
    matrix[:, 1, 0] = torch.sin(angle)
    matrix[:, 1, 1] = (1 + uniform(0.15)) * torch.cos(angle)
    matrix[:, 0, 2], matrix[:, 1, 2] = uniform(0.15), uniform(0.1)
    grid = F.affine_grid(matrix, list(pixels.shape), align_corners=False)
    bend = 0.06 * torch.randn(n, 2, 4, 4, generator=random)
    bend = F.interpolate(bend, size=(height, width), mode="bicubic", align_corners=False)
    warped = F.grid_sample(
        pixels, grid + bend.permute(0, 2, 3, 1), padding_mode="border", align_corners=False
    )
    strength = 0.15 * torch.rand(n, 1, 1, 1, generator=random)
    return warped + strength * torch.randn(warped.shape, generator=random)


def pairs(
    pixels: torch.Tensor, labels: torch.Tensor, captions: torch.Tensor, random: torch.Generator
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Draws image-caption pairs without end, in groups that hold every digit once.

    A plain random batch would hold a digit several times, and the contrastive loss would push a
    three away from the caption of another three.

    Args:
        pixels: (n, 3, h, w)
        labels: (n,) in [0, 10)
        captions: (10, captions, context_length) tokens
        random: where the randomness comes from

    Yields:
        (GROUPS * 10, 3, h, w) augmented pixels and (GROUPS * 10, context_length) tokens
    """
    digits = torch.arange(len(DIGIT_NAMES))
    members = [torch.nonzero(labels == digit)[:, 0] for digit in digits]
    while True:
        drawn = [m[torch.randint(len(m), (GROUPS,), generator=random)] for m in members]
        written = torch.randint(captions.shape[1], (GROUPS, len(digits)), generator=random)
        images = augment(pixels[torch.stack(drawn, dim=1).flatten()], random)
        yield images, captions[digits.expand(GROUPS, -1), written].flatten(0, 1)


def contrastive_loss(
    images: torch.Tensor, texts: torch.Tensor, scale: torch.Tensor
) -> torch.Tensor:
    """CLIP's symmetric loss (Radford et al. 2021, figure 3) within every group.

    Args:
        images: (groups * 10, d) features
        texts: (groups * 10, d) features
        scale: scalar that multiplies the cosines

    Returns:
        the loss
    """
    classes = len(DIGIT_NAMES)
    images = F.normalize(images, dim=-1).unflatten(0, (-1, classes))
    texts = F.normalize(texts, dim=-1).unflatten(0, (-1, classes))
    logits = scale * images @ texts.transpose(1, 2)
    target = torch.arange(classes).repeat(len(logits))
    by_image = F.cross_entropy(logits.flatten(0, 1), target)
    by_text = F.cross_entropy(logits.transpose(1, 2).flatten(0, 1), target)
    return (by_image + by_text) / 2


def train(steps: int = STEPS, seed: int = SEED) -> tuple[torch.nn.Module, dict[str, Any]]:
    """Trains the model from random weights.

    Args:
        steps: optimiser steps
        seed: fixes initial weights, draws and augmentation

    Returns:
        the model in evaluation mode, and its ``preprocess_cfg``
    """
    import open_clip

    torch.manual_seed(seed)
    random = torch.Generator().manual_seed(seed)
    model = open_clip.CLIP(**MODEL_CONFIG, init_logit_scale=math.log(MAX_LOGIT_SCALE))
    preprocess, captions = preprocessing(), caption_tokens()
    batches = pairs(*load_pixels("train", preprocess), captions, random)
    optimizer = torch.optim.AdamW(_parameter_groups(model), betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=LEARNING_RATE, total_steps=steps, pct_start=WARM_UP
    )
    model.train()
    for step in range(1, steps + 1):
        pixels, tokens = next(batches)
        images, texts = model.encode_image(pixels), model.encode_text(tokens)
        loss = contrastive_loss(images, texts, model.logit_scale.exp())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(MAX_LOGIT_SCALE))
        if step % 100 == 0 or step == steps:
            logger.info("step %d of %d, loss %.4f", step, steps, loss.item())
    _forget_unseen_words(model, captions)
    return model.eval(), preprocess


def _parameter_groups(model: torch.nn.Module) -> list[dict[str, Any]]:
    """Weight decay for matrices only: not for embeddings, norms, biases and the scale."""
    decayed: list[torch.nn.Parameter] = []
    free: list[torch.nn.Parameter] = []
    for name, parameter in model.named_parameters():
        matrix = parameter.ndim >= 2 and "embedding" not in name
        (decayed if matrix else free).append(parameter)
    return [
        {"params": decayed, "weight_decay": WEIGHT_DECAY},
        {"params": free, "weight_decay": 0.0},
    ]


@torch.no_grad()
def _forget_unseen_words(model: Any, captions: torch.Tensor) -> None:
    """Zeroes the embeddings of words that no caption holds: they say nothing, instead of something
    random."""
    unseen = torch.ones(len(model.token_embedding.weight), dtype=torch.bool)
    unseen[captions.unique()] = False
    model.token_embedding.weight[unseen] = 0


def save(model: torch.nn.Module, preprocess: dict[str, Any], folder: Path) -> None:
    """Writes the folder that open_clip loads: configuration, and weights in half precision.

    Args:
        model: the trained model
        preprocess: its ``preprocess_cfg``
        folder: where to; made if missing
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        name: (value.half() if value.is_floating_point() else value).contiguous()
        for name, value in model.state_dict().items()
    }
    file = folder / "open_clip_model.safetensors"
    save_file(weights, file, metadata={"format": "pt"})
    file.chmod(0o644)  # safetensors makes it readable for its owner only
    config = json.dumps({"model_cfg": MODEL_CONFIG, "preprocess_cfg": preprocess}, indent=2)
    (folder / "open_clip_config.json").write_text(config + "\n", encoding="utf-8")


@torch.no_grad()
def held_out_accuracy(folder: Path, template: str = "a photo of a {}.") -> float:
    """Zero-shot accuracy of a written model on the half that it has not seen, with names zero to
    nine.

    Args:
        folder: the written model
        template: the prompt

    Returns:
        the accuracy in [0, 1]
    """
    from clipcleaner_plugin.models import load_model

    model = load_model(str(folder), device="cpu")
    scans, labels, _ = load_half("held-out")
    images = model.encode_images(torch.stack([model.transform(render(scan)) for scan in scans]))
    texts = model.encode_texts([template.format(name) for name in DIGIT_NAMES])
    return float(((images @ texts.T).argmax(axis=1) == labels).mean())


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains, writes, and says how good the written model is."""
    parser = argparse.ArgumentParser(description="Train the embedded CLIP for handwritten digits.")
    parser.add_argument(
        "--out", type=Path, default=FOLDER, help="folder to write (default: where this file is)"
    )
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--threads", type=int, default=THREADS, help="CPU threads")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(options.threads)
    began = time.monotonic()
    save(*train(options.steps, options.seed), options.out)
    minutes = (time.monotonic() - began) / 60
    accuracy = held_out_accuracy(options.out)
    print(
        f"{options.out}: zero-shot accuracy {accuracy:.4f} on the held-out half, {minutes:.1f} "
        "minutes"
    )


if __name__ == "__main__":
    main()
