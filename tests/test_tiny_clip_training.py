"""The script that made the embedded model still makes models, and the file is as small as
promised."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from clipcleaner_plugin.assets.tiny_clip_digits import train
from clipcleaner_plugin.digits import DIGIT_NAMES
from clipcleaner_plugin.model_source import TINY_CLIP_FOLDER
from clipcleaner_plugin.models import load_model


def test_the_embedded_files_are_small() -> None:
    sizes = {
        file.name: file.stat().st_size for file in TINY_CLIP_FOLDER.iterdir() if file.is_file()
    }
    assert {"README.md", "open_clip_config.json", "open_clip_model.safetensors"} <= set(sizes)
    assert sum(sizes.values()) < 6_000_000


def test_the_embedded_config_is_the_scripts() -> None:
    import json

    document = json.loads((TINY_CLIP_FOLDER / "open_clip_config.json").read_text())
    assert document == {"model_cfg": train.MODEL_CONFIG, "preprocess_cfg": train.preprocessing()}


def test_a_few_steps_learn_something_and_can_be_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    threads = torch.get_num_threads()
    try:
        train.main(["--out", str(tmp_path / "model"), "--steps", "120", "--threads", "1"])
    finally:
        torch.set_num_threads(threads)
    accuracy = float(capsys.readouterr().out.split("zero-shot accuracy ")[1].split()[0])
    assert accuracy > 0.5  # chance is 0.1
    model = load_model(tmp_path / "model", device="cpu")
    assert {p.dtype for p in model._module.parameters()} == {torch.float32}
    assert accuracy == pytest.approx(train.held_out_accuracy(tmp_path / "model"), abs=1e-4)


def test_training_repeats_to_the_bit() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        first, second = (train.train(steps=2, seed=3)[0].state_dict() for _ in range(2))
        other = train.train(steps=2, seed=4)[0].state_dict()
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["visual.conv1.weight"], other["visual.conv1.weight"])


def test_groups_hold_every_digit_once() -> None:
    labels = torch.arange(10).repeat(3)
    pixels = labels.float()[:, None, None, None].expand(-1, 3, 32, 32)
    captions = torch.arange(10)[:, None, None].expand(10, 4, 5)
    random = torch.Generator().manual_seed(0)
    images, tokens = next(train.pairs(pixels, labels, captions, random))
    expected = list(range(10)) * train.GROUPS
    assert images.mean(dim=(1, 2, 3)).round().int().tolist() == expected
    assert tokens[:, 0].tolist() == expected


def test_loss_is_clips_within_a_group() -> None:
    features = torch.eye(10)
    scale = torch.tensor(2.0)
    expected = np.log(np.exp(2.0) + 9) - 2.0
    assert train.contrastive_loss(features, features, scale).item() == pytest.approx(expected)
    two_groups = features.repeat(2, 1)
    loss = train.contrastive_loss(two_groups, two_groups, scale)
    assert loss.item() == pytest.approx(expected)


def test_unseen_words_say_nothing() -> None:
    model = load_model("tiny-clip-digits", device="cpu")._module
    unseen = torch.ones(49408, dtype=torch.bool)
    unseen[train.caption_tokens().unique()] = False
    weights = model.token_embedding.weight
    assert (weights[unseen] == 0).all() and (weights[~unseen] != 0).any(dim=1).all()
    assert len(train.caption_tokens()) == len(DIGIT_NAMES)
