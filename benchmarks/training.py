"""What training costs on this machine, stage by stage of a full run, and how far that is from a floor.

OMP_NUM_THREADS=2 python -m benchmarks.training [PHOTOS] [--device cuda] [--compile] [--float32] [--give-back]

A stage's step is measured in its parts: scenes are drawn and rendered (synthesis), encoded by the frozen VGG-16, and
learned from in pairs: decoders forward (with truth and loss), and backward (with the optimiser). Photographs are in
memory by then; without PHOTOS smooth noise takes their place. The floor is the time that the floating-point operations
of encoder and decoders, forward and backward, would take at the rate of a plain 3x3 convolution of 256 channels.
"""

import argparse
import copy
import dataclasses
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from glunet.inference import memory
from glunet.inference.frames import prepare
from glunet.loading import pick_device
from glunet.training import loop
from glunet.training.averaging import average, train_mode
from glunet.training.photographs import Photographs, find
from glunet.training.pool import SCENES, Pool, encode, encoder_alone
from glunet.training.recipes import RECIPES, Settings, Stage
from glunet.training.views import make_views

VIEWS = 4


@dataclasses.dataclass(frozen=True)
class Cost:
    """A stage's step: seconds of its parts, and its floating-point operations.

    Attributes:
        synthesis, encoding: of the share of a batch of new scenes that a step stands for (`Stage.refresh`).
    """

    stage: Stage
    frame: tuple[int, int]
    synthesis: float
    encoding: float
    forward: float
    backward: float
    operations: float

    @property
    def seconds(self) -> float:
        """Of one pair."""
        return (self.synthesis + self.encoding + self.forward + self.backward) / self.stage.batch

    def floor(self, rate: float) -> float:
        """Seconds of one pair, had all operations the rate given."""
        return self.operations / rate / self.stage.batch


def measure(stage: Stage, settings: Settings, photographs: Photographs, device: torch.device, repeats: int = 2) -> Cost:
    """The cost of a stage's steps on its largest frame but one; means of `repeats`, after one that does not count."""
    frame = sorted(stage.frames, key=lambda f: f[0] * f[1])[-2:][0]
    network = loop._start(settings, None).to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    network.encoder.requires_grad_(False)
    averaged = copy.deepcopy(network)
    encoder = encoder_alone(network.encoder, torch.bfloat16 if settings.bf16 else torch.float32)
    trained = [p for p in network.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=1e-5)
    pool = Pool(encoder, photographs, settings.scenes, frame, capacity=SCENES, views=VIEWS)
    pool.refresh()
    parts: dict[str, list[float]] = {"synthesis": [], "encoding": [], "forward": [], "backward": []}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        _wait(device)
        began = time.perf_counter()
        result = work()
        _wait(device)
        parts[name].append(time.perf_counter() - began)
        return result

    def synthesise(number: int) -> torch.Tensor:
        seed = (settings.seed, number)
        return make_views(photographs, SCENES, VIEWS, frame, seed, settings.scenes, device).images.flatten(0, 1)

    @torch.no_grad()
    def encoded(images: torch.Tensor) -> None:
        encode(encoder, *prepare(images, frame))

    def forward(number: int) -> torch.Tensor:
        train_mode(network, settings.freeze_norms)
        # Without the further pairs of the coarse levels: a row is of the pairs that all its levels see.
        return loop._computation(pool.batch(stage.batch, number), None, stage, 0, 1, settings)(network)[0]

    def backward(value: torch.Tensor) -> None:
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_([p for p in trained if p.grad is not None], settings.clip)
        optimiser.step()
        average(averaged, network, settings.ema)

    images = synthesise(0)
    with FlopCounterMode(display=False) as encoding:
        encoded(images)
    with FlopCounterMode(display=False) as decoding:
        backward(forward(0))
    operations = stage.refresh * encoding.get_total_flops() + decoding.get_total_flops()
    if settings.compile and loop.compile_decoders(network, device):
        backward(forward(0))
    for number in range(1, repeats + 1):
        images = timed("synthesis", lambda: synthesise(number))  # noqa: B023
        timed("encoding", lambda: encoded(images))  # noqa: B023
        value = timed("forward", lambda: forward(number))  # noqa: B023
        timed("backward", lambda: backward(value))  # noqa: B023
    seconds = {name: statistics.mean(times) for name, times in parts.items()}
    for name in ("synthesis", "encoding"):
        seconds[name] *= stage.refresh
    return Cost(stage, frame, **seconds, operations=operations)


def convolution_rate(device: torch.device, bf16: bool, repeats: int = 5) -> float:
    """Floating-point operations a second of the best of some 3x3 convolutions, 256 to 256 channels, at 8 x 64 x 64."""
    dtype = torch.bfloat16 if bf16 else torch.float32
    x = torch.randn(8, 256, 64, 64, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(256, 256, 3, 3, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
    best = float("inf")
    for _ in range(repeats):
        _wait(device)
        began = time.perf_counter()
        F.conv2d(x, weight, padding=1)
        _wait(device)
        best = min(best, time.perf_counter() - began)
    return 2 * 8 * 64 * 64 * 256 * 256 * 9 / best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


class Noise(Photographs):
    """Smooth random pictures, of the size that photographs are kept at."""

    def __init__(self, count: int = 8) -> None:
        super().__init__([])
        noise = torch.rand((count, 3, 50, 66), generator=torch.Generator().manual_seed(0))
        self.pictures = (F.interpolate(noise, size=(400, 533), mode="bilinear") * 255).to(torch.uint8)

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, number: int) -> torch.Tensor:
        return self.pictures[number]


def table(costs: list[Cost], rate: float) -> str:
    """A line a stage."""
    lines = [
        f"{'stage':8s} {'frame':>9s} {'pairs/s':>8s} {'synthesis':>10s} {'encoding':>9s} {'forward':>8s} "
        f"{'backward':>9s} {'s/pair':>8s} {'floor':>8s} {'times':>6s}"
    ]
    for cost in costs:
        step = cost.seconds * cost.stage.batch
        shares = [part / step for part in (cost.synthesis, cost.encoding, cost.forward, cost.backward)]
        lines.append(
            f"{cost.stage.name:8s} {cost.frame[0]:4d}x{cost.frame[1]:<4d} {1 / cost.seconds:8.2f} {shares[0]:10.0%} "
            f"{shares[1]:9.0%} {shares[2]:8.0%} {shares[3]:9.0%} {cost.seconds:8.4f} {cost.floor(rate):8.4f} "
            f"{cost.seconds / cost.floor(rate):6.1f}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="What a training step costs here.")
    parser.add_argument("photos", nargs="?", type=Path)
    parser.add_argument("--device")
    parser.add_argument("--compile", action="store_true", help="decoders through torch.compile (CUDA only)")
    parser.add_argument("--float32", action="store_true", help="what bfloat16 is to be compared with")
    parser.add_argument("--give-back", action="store_true", help="memory to the system, as glibc does by itself")
    arguments = parser.parse_args()
    device = pick_device(arguments.device)
    if not arguments.give_back:
        memory.keep()
    settings = dataclasses.replace(RECIPES["full"], compile=arguments.compile, bf16=not arguments.float32)
    photographs = Photographs(find(arguments.photos)[:32]) if arguments.photos else Noise()
    rate = convolution_rate(device, settings.bf16)
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    print(f"torch {torch.__version__}, {name}; a 3x3 convolution makes {rate / 1e9:.0f} GFLOP/s", flush=True)
    costs = [measure(stage, settings, photographs, device) for stage in settings.stages]
    print(table(costs, rate))


if __name__ == "__main__":
    main()
