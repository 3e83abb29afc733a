"""Batches of target frames, each accompanied by replay frames.

An epoch is one pass over the target set in exactly the order that it has without replay.
Every step adds `batch_size` frames of an endless shuffled stream of the replay set. So the
size of the replay set decides the variety of what is replayed, never the balance with the
target: that is the loss's replay weight alone (`retemper.finetune.mace.loss`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from mace.tools import torch_geometric


def target_loader(frames: Any, batch_size: int, seed: int) -> Any:
    """The loader that MACE itself makes for a single head (shuffled, last partial batch dropped)."""
    return torch_geometric.dataloader.DataLoader(
        dataset=frames,
        batch_size=batch_size,
        shuffle=True,
        drop_last=True,
        generator=torch.Generator().manual_seed(seed),
    )


class PairedLoader:
    """Iterates over batches of target and replay frames; knows its own random state.

    Parameters
    ----------
    target, replay : sequences of AtomicData
    batch_size, replay_batch_size : int
        Frames of each head in a step.
    seed : int
        The target's order is that of `target_loader` with the same seed.
    """

    def __init__(
        self, target: Sequence[Any], replay: Sequence[Any], batch_size: int, replay_batch_size: int, seed: int
    ):
        self.target = target
        self.replay = replay
        self.batch_size = batch_size
        self.replay_batch_size = min(replay_batch_size, len(replay))
        self._order = target_loader(range(len(target)), batch_size, seed)  # batches of indices
        self._replay_generator = torch.Generator().manual_seed(seed + 1)
        self._queue: list[int] = []

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[Any]:
        for indices in self._order:
            graphs = [self.target[i] for i in indices.tolist()]
            graphs += [self.replay[i] for i in self._next_replay()]
            yield torch_geometric.Batch.from_data_list(graphs)

    def _next_replay(self) -> list[int]:
        while len(self._queue) < self.replay_batch_size:
            self._queue += torch.randperm(len(self.replay), generator=self._replay_generator).tolist()
        drawn, self._queue = self._queue[: self.replay_batch_size], self._queue[self.replay_batch_size :]
        return drawn

    def state(self) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
        """What is needed to go on with the same batches after a restart."""
        return self._order.generator.get_state(), self._replay_generator.get_state(), list(self._queue)

    def restore(self, state: tuple[torch.Tensor, torch.Tensor, list[int]]) -> None:
        """Take up a state given by `state`."""
        order, replay, queue = state
        self._order.generator.set_state(order.cpu())
        self._replay_generator.set_state(replay.cpu())
        self._queue = list(queue)
