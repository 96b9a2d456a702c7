"""One process, or several that torchrun started: on more than one GPU or machine, through lightning-fabric.

    torchrun --standalone --nproc-per-node 2 -m glunet train PHOTOS --out RUN --minutes 120

A process (a rank) makes scenes of its own, and learns from `Stage.batch` pairs of them a step; the gradients of all are
averaged, so that all hold the same weights. Rank 0's clock is everybody's, a stop request to one stops all, and rank 0
alone writes.

BatchNorm is not synchronised while it learns: a rank's batch of 8 to 32 different scenes says enough, synchronising
would add two exchanges a layer to every step, and torch has it for CUDA only. The running statistics of the network
that learns are rank 0's. What is saved does not hang on them: the statistics of the averaged weights are estimated anew
at each checkpoint, over batches of all ranks (`averaging`).
"""

import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from glunet.errors import GlunetError, needed
from glunet.network.family import Network

Computed = tuple[Tensor, float]  # a loss to differentiate, and a number
Learner = Callable[[Callable[[Network], Computed]], Computed]


class Alone:
    """The only process: nobody to agree with."""

    rank, world = 0, 1

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def learner(self, network: Network) -> Learner:
        """Calls a function with the network; what it returns can be differentiated with `backward`."""
        return lambda compute: compute(network)

    def backward(self, value: Tensor) -> None:
        """Gradients of a learner's loss, the mean over all ranks."""
        value.backward()

    def sum(self, values: Tensor) -> Tensor:
        """Over all ranks, the same for each."""
        return values

    def agree(self, elapsed: float, stop: bool) -> tuple[float, bool]:
        """Rank 0's seconds, and whether any rank was asked to stop."""
        return elapsed, stop

    def from_first(self, value: Any) -> Any:
        """Rank 0's value, for all."""
        return value


class Together(Alone):
    """One of several processes, which lightning-fabric connects."""

    def __init__(self, device: torch.device) -> None:
        with needed("torchrun started several processes, which needs lightning-fabric", "train"):
            from lightning_fabric import Fabric
            from lightning_fabric.strategies import DDPStrategy
        if device.type not in ("cpu", "cuda"):
            raise GlunetError(f"Several processes can train on cpu or cuda, not on {device.type}: start one.")
        here = int(os.environ["LOCAL_WORLD_SIZE"])
        self.fabric = Fabric(
            accelerator=device.type,
            devices=here,
            num_nodes=int(os.environ["WORLD_SIZE"]) // here,
            strategy=DDPStrategy(find_unused_parameters=True),  # a stage may leave levels out
        )
        self.fabric.launch()
        super().__init__(self.fabric.device)
        self.rank, self.world = self.fabric.global_rank, self.fabric.world_size

    def learner(self, network: Network) -> Learner:
        return self.fabric.setup_module(_Whole(network))

    def backward(self, value: Tensor) -> None:
        self.fabric.backward(value)

    def sum(self, values: Tensor) -> Tensor:
        total = self.fabric.all_reduce(values.to(self.device, copy=True), reduce_op="sum")
        assert isinstance(total, Tensor)
        return total.to(values.device)

    def agree(self, elapsed: float, stop: bool) -> tuple[float, bool]:
        mine = (0.0 if self.rank else elapsed, float(stop))
        total = self.sum(torch.tensor(mine, dtype=torch.float64)).tolist()
        return total[0], total[1] > 0

    def from_first(self, value: Any) -> Any:
        return self.fabric.broadcast(value)


class _Whole(nn.Module):
    """A step's whole computation as one forward pass, which is what averages the gradients of all ranks."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, compute: Callable[[Network], Computed]) -> Computed:
        return compute(self.network)


def join(device: torch.device | str) -> Alone:
    """This process's place: among the others where torchrun started several, else alone; call it once.

    Raises:
        GlunetError: several processes without lightning-fabric, or on a device that cannot.
    """
    several = "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1
    return Together(torch.device(device)) if several else Alone(torch.device(device))
