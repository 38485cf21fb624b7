"""One process or many (torchrun): the same global batches, cut into slices by rank."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass(frozen=True)
class World:
    """This process among all.

    Args:
        rank: its number, from 0
        size: how many there are
        device: where it computes
        local_size: how many of them run on this machine
    """

    rank: int
    size: int
    device: torch.device
    local_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and talks."""
        return self.rank == 0


def start(device: str = "") -> World:
    """Joins the other processes, where torchrun started this one.

    Args:
        device: e.g. "cpu"; empty = CUDA where there is any, else the CPU

    Returns:
        the place of this process

    Raises:
        ValueError: if there are more processes than GPUs, or the device is not there
    """
    kind = device or ("cuda" if torch.cuda.is_available() else "cpu")
    _check_device(kind)
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return World(0, 1, torch.device(kind))
    local = int(os.environ.get("LOCAL_RANK", "0"))
    local_size = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if kind.startswith("cuda"):
        if local_size > torch.cuda.device_count():
            raise ValueError(
                f"{local_size} processes for {torch.cuda.device_count()} GPUs: "
                "give torchrun a smaller --nproc_per_node"
            )
        kind = f"cuda:{local}"
        torch.cuda.set_device(local)
    dist.init_process_group("nccl" if kind.startswith("cuda") else "gloo")
    return World(dist.get_rank(), dist.get_world_size(), torch.device(kind), local_size)


def _check_device(device: str) -> None:
    kind, _, number = device.partition(":")
    if kind not in ("cuda", "cpu", "mps") or (number and not number.isdecimal()):
        raise ValueError(f"--device {device!r} is unknown: give cuda, cpu or mps")
    found = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if kind in found and not found[kind]:
        raise ValueError(f"--device {device}: this machine has no device of that kind for torch")
    if number and int(number) >= found.get(kind, 1):
        raise ValueError(f"--device {device}: there are {found.get(kind, 1)}, counted from 0")


def stop() -> None:
    """Leaves the group, where there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def wrap(network: nn.Module, world: World) -> nn.Module:
    """Makes gradients the mean over all processes, and starts all from the weights of rank 0.

    On CUDA batch normalisation uses the statistics of the global batch. torch has that for CUDA
    only: on CPUs they are those of each process's slice.
    """
    if world.size == 1:
        return network
    if world.device.type == "cuda":
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        return nn.parallel.DistributedDataParallel(network, device_ids=[world.device.index])
    return nn.parallel.DistributedDataParallel(network)


def unwrap(network: nn.Module) -> nn.Module:
    """Returns the network itself, whose tensors have the same names in one and many processes."""
    if isinstance(network, nn.parallel.DistributedDataParallel):
        inner: nn.Module = network.module
        return inner
    return network


def share_buffers(network: nn.Module, world: World) -> None:
    """Gives all processes the running statistics of rank 0, so that they predict alike."""
    if world.size > 1:
        for buffer in network.buffers():
            dist.broadcast(buffer, 0)


def gather_batch(rows: Tensor, world: World) -> Tensor:
    """Joins equal slices of all processes in the order of their ranks.

    Args:
        rows: (b, ...) this process's slice

    Returns:
        (b · size, ...) the global batch
    """
    if world.size == 1:
        return rows
    parts = [torch.empty_like(rows) for _ in range(world.size)]
    dist.all_gather(parts, rows.contiguous())
    return torch.cat(parts)


def own_part(count: int, world: World) -> np.ndarray:
    """Returns the rows of ``count`` that this process predicts: every size-th one."""
    return np.arange(world.rank, count, world.size)


def gather_parts(rows: Tensor, count: int, world: World) -> Tensor:
    """Undoes ``own_part``: joins what the processes computed, so that all hold the same.

    Args:
        rows: (⌈(count − rank) / size⌉, ...) results for the rows of ``own_part``
        count: number of rows in all

    Returns:
        (count, ...)
    """
    if world.size == 1:
        return rows
    longest = -(-count // world.size)
    padded = rows.new_zeros((longest, *rows.shape[1:]))
    padded[: len(rows)] = rows
    joined = gather_batch(padded, world).reshape(world.size, longest, *rows.shape[1:])
    return joined.transpose(0, 1).reshape(world.size * longest, *rows.shape[1:])[:count]


def any_rank(flags: np.ndarray, world: World) -> np.ndarray:
    """Returns (N,) bool: true where the flag of any process is."""
    if world.size == 1:
        return flags
    total = torch.from_numpy(flags.astype(np.uint8)).to(world.device)
    dist.all_reduce(total, op=dist.ReduceOp.MAX)
    return total.cpu().numpy().astype(bool)


def mean_over_ranks(value: Tensor, world: World) -> Tensor:
    """Returns the mean of a scalar over all processes."""
    if world.size > 1:
        value = value.clone()
        dist.all_reduce(value)
        value /= world.size
    return value


def broadcast_bytes(data: bytes | None, world: World) -> bytes | None:
    """Sends bytes (or None) from rank 0 to all: its checkpoint, which others may not reach."""
    if world.size == 1:
        return data
    length = torch.tensor([-1 if data is None else len(data)], device=world.device)
    dist.broadcast(length, 0)
    if int(length) < 0:
        return None
    buffer = torch.empty(int(length), dtype=torch.uint8, device=world.device)
    if data is not None:
        buffer.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
    dist.broadcast(buffer, 0)
    return buffer.cpu().numpy().tobytes()
