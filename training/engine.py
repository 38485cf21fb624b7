"""A network at work: training on a planned epoch, and predicting."""

from __future__ import annotations

import logging
import os
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot
from torch.utils.data import DataLoader

from . import parallel
from .images import ImageReadError, ImageSet, available_memory
from .mixfix import mix, soft_cross_entropy
from .networks import build, load_weights
from .parallel import World
from .plan import Batches, Plan, plain_batches
from .presets import Preset
from .report import Progress

logger = logging.getLogger(__name__)


class Engine:
    """Network, optimizer and images of one process.

    Args:
        settings: the settings
        num_classes: K
        images: N images
        world: this process among all
        seed: of the run
        strict: stop at an image that cannot be read
        amp: "auto", "bf16", "fp16" or "off"
        compiled: whether to torch.compile the network
        workers: processes that load images; None = by device
        cache: "auto", "on" or "off": whether to keep decoded images
        state: what ``state()`` returned in an earlier process, None = start from scratch
        show_progress: paint progress lines on a terminal
    """

    def __init__(
        self,
        settings: Preset,
        num_classes: int,
        images: ImageSet,
        world: World,
        *,
        seed: int,
        strict: bool = False,
        amp: str = "off",
        compiled: bool = False,
        workers: int | None = None,
        cache: str = "auto",
        state: dict[str, Any] | None = None,
        show_progress: bool = False,
    ) -> None:
        self.settings, self.num_classes, self.images = settings, num_classes, images
        self.world, self.seed, self.show_progress = world, seed, show_progress
        on_cuda = world.device.type == "cuda"
        if on_cuda:
            torch.backends.cudnn.benchmark = True
            torch.set_float32_matmul_precision("high")
        # Convolutions in half precision read channels_last without a copy
        self.layout = torch.channels_last if on_cuda else torch.contiguous_format
        self.half = _half_precision(amp, world.device)

        torch.manual_seed(seed)
        network = build(settings, num_classes)
        if settings.weights and state is None and world.is_main:  # wrap() sends them to the others
            load_weights(network, settings)
        network = network.to(world.device).to(memory_format=self.layout)
        self.wrapped = parallel.wrap(network, world)
        self.network = parallel.unwrap(self.wrapped)
        self.forward: Any = torch.compile(self.wrapped) if compiled else self.wrapped
        self.optimizer = torch.optim.SGD(
            self.network.parameters(),
            lr=settings.lr,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
        )
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=self.half == torch.float16)

        self.workers = default_workers(world) if workers is None else workers
        self.unreadable = np.zeros(len(images), dtype=bool)
        self.strict = strict
        self._fill_cache(cache)
        if state is not None:
            self.network.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.scaler.load_state_dict(state["scaler"])
            self.unreadable |= state["unreadable"].numpy()
        self.train_batches, self.predict_batches = Batches(), Batches()
        self.train_loader = self._loader(self.train_batches)
        self.predict_loader = self._loader(self.predict_batches)

        # Images travel as bytes; (x - mean) / std follows on the device
        channels = torch.tensor([settings.mean, settings.std], device=world.device) * 255
        self.mean, self.std = channels.view(2, 1, 3, 1, 1)

    def state(self) -> dict[str, Any]:
        """Returns what a later process needs to go on."""
        return {
            "model": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "unreadable": torch.from_numpy(self.unreadable),
        }

    def train(
        self,
        plan: Plan,
        labels: np.ndarray,
        weights: np.ndarray,
        lr: float,
        mixup: bool,
        epoch: int,
    ) -> float:
        """Takes one step a batch of the plan.

        Args:
            plan: the epoch's draws
            labels: (N,) int64, current labels
            weights: (N,) float32, factors of the losses
            lr: learning rate
            mixup: whether to mix images and labels by the plan's partners and lambdas
            epoch: from 0; with the seed it decides what dropout drops

        Returns:
            the mean loss

        Raises:
            ValueError: if the loss is not finite
        """
        world, own, device = self.world, plan.slice_of(self.world), self.world.device
        torch.manual_seed(self.seed + 1_000_003 * (epoch * world.size + world.rank + 1))
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        all_labels = torch.from_numpy(labels[plan.indices]).to(device)
        all_weights = torch.from_numpy(weights[plan.indices]).to(device)
        all_partners = torch.from_numpy(plan.partners).to(device)
        self.train_batches.batches = plan.batches(world)
        self.network.train()
        total = torch.zeros((), device=device)
        bar = Progress(f"epoch {epoch + 1}", len(plan.indices), self.show_progress)
        for step, (pixels, readable) in enumerate(self.train_loader):
            self._note_unreadable(plan.indices[step, own][~readable.numpy()])
            images = pixels.to(device, non_blocking=True)
            usable = readable.to(device, non_blocking=True).byte()
            targets = one_hot(all_labels[step], self.num_classes).float()
            factors = all_weights[step, own] * usable
            if mixup:
                # Partners come from the global batch: they do not depend on how it is sliced
                partners, lam = all_partners[step, own], float(plan.lambdas[step])
                others = parallel.gather_batch(images, world)[partners]
                images = mix(images.float(), others.float(), lam)
                factors = factors * parallel.gather_batch(usable, world)[partners]
                targets = mix(targets[own], targets[partners], lam)
            else:
                targets = targets[own]
            with self._autocast():
                logits = self.forward(self._normalised(images))
            loss = soft_cross_entropy(logits, targets, factors)
            self.optimizer.zero_grad(set_to_none=True)
            self.scaler.scale(loss).backward()
            self.scaler.step(self.optimizer)
            self.scaler.update()
            total += loss.detach()
            bar.step(step + 1)
        bar.close()
        self._agree_on_unreadable()
        mean = float(parallel.mean_over_ranks(total / len(plan.indices), world))
        if not np.isfinite(mean):
            raise ValueError(
                f"Epoch {epoch + 1}: the loss is {mean}. Try a smaller --lr than {lr:g}, or "
                "--amp off"
            )
        return mean

    @torch.no_grad()
    def predict(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Predicts samples without augmentation; each by one process, told to all.

        Args:
            indices: (n,) int, which

        Returns:
            (N,) int64 classes and (N,) float32 probabilities; -1 where not asked, or unreadable
        """
        world = self.world
        parallel.share_buffers(self.network, world)
        self.network.eval()
        own = indices[parallel.own_part(len(indices), world)]
        batches = plain_batches(own, max(1, 2 * self.settings.batch_size // world.size))
        self.predict_batches.batches = batches
        answers = [torch.empty(0, 2, device=world.device)]
        bar = Progress("predict", len(batches), self.show_progress)
        for step, (pixels, readable) in enumerate(self.predict_loader):
            self._note_unreadable(np.array([i for i, _ in batches[step]])[~readable.numpy()])
            images = pixels.to(world.device, non_blocking=True)
            with self._autocast():
                logits = self.network(self._normalised(images))
            confidence, predicted = logits.float().softmax(dim=1).max(dim=1)
            answer = torch.stack([predicted.float(), confidence], dim=1)
            answers.append(answer.masked_fill(~readable.to(world.device)[:, None], -1))
            bar.step(step + 1)
        bar.close()
        self._agree_on_unreadable()
        joined = parallel.gather_parts(torch.cat(answers), len(indices), world).cpu().numpy()
        all_predicted = np.full(len(self.images), -1, dtype=np.int64)
        all_confidence = np.full(len(self.images), -1, dtype=np.float32)
        all_predicted[indices] = joined[:, 0].astype(np.int64)
        all_confidence[indices] = joined[:, 1]
        return all_predicted, all_confidence

    def _normalised(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) 0..255, bytes or floats → floats as the network wants them."""
        floats = (images.float() - self.mean) / self.std
        return floats.contiguous(memory_format=self.layout)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(
            self.world.device.type, dtype=self.half, enabled=self.half is not None
        )

    def _note_unreadable(self, indices: np.ndarray) -> None:
        for index in np.unique(indices[~self.unreadable[indices]]):
            self.unreadable[index] = True
            if self.strict:
                raise ImageReadError(self.images.reason(index))
            if self.unreadable.sum() <= 5:
                logger.warning("Left out: %s", self.images.reason(index))

    def _agree_on_unreadable(self) -> None:
        """Before the next draw, which all processes must do alike."""
        self.unreadable = parallel.any_rank(self.unreadable, self.world)

    def _fill_cache(self, wanted: str) -> None:
        estimate = self.images.cache_bytes()
        room = available_memory() // 2 // self.world.local_size
        if wanted == "off" or (wanted == "auto" and estimate > room):
            return
        logger.info("Reading %d images, about %.1f GB", len(self.images), estimate / 1e9)
        cpus = (os.cpu_count() or 1) // self.world.local_size
        missing = self.images.fill_cache(threads=max(1, min(32, cpus)))
        self._note_unreadable(np.flatnonzero(missing))

    def _loader(self, batches: Batches) -> DataLoader[Any]:
        return DataLoader(
            self.images,
            batch_sampler=batches,
            num_workers=self.workers,
            pin_memory=self.world.device.type == "cuda",
            persistent_workers=self.workers > 0,
            prefetch_factor=4 if self.workers > 0 else None,
            # Otherwise each epoch would take a number from torch's global generator
            generator=torch.Generator(),
        )


def default_workers(world: World) -> int:
    """Returns how many processes load images: none where the CPU has to train as well."""
    if world.device.type == "cpu":
        return 0
    return max(1, min(16, (os.cpu_count() or 1) // world.local_size - 1))


def _half_precision(amp: str, device: torch.device) -> torch.dtype | None:
    if amp == "auto":
        if device.type != "cuda":
            return None
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if amp != "off" and device.type != "cuda":
        raise ValueError(f"--amp {amp} needs a CUDA device, this is {device}: leave it out")
    return {"bf16": torch.bfloat16, "fp16": torch.float16, "off": None}[amp]
