"""Weights: what comes with the package, our files, official checkpoints, recognised by content."""

import hashlib
import json
import pickle
import re
import zipfile
from dataclasses import asdict
from functools import partial
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from glunet import __version__
from glunet.errors import GlunetError, needed
from glunet.flow.files import writing
from glunet.inference.confidence import Calibration
from glunet.inference.frames import FRAMINGS
from glunet.inference.settings import Settings
from glunet.inference.speed import own_state
from glunet.network.checkpoint import bare_state, is_official, official_config, our_state
from glunet.network.family import Config, Network, build, configure
from glunet.network.glunet import GLUNet

if TYPE_CHECKING:
    from collections.abc import Sequence

    from glunet.inference.hypotheses import PointSource
    from glunet.matcher import Matcher

DEFAULT = "glunet"
ENCODER = "vgg16"
FORMAT = "glunet 1"
HUB, HUB_FILE = "hf://", "model.safetensors"  # how an address of the Hugging Face Hub begins, and the usual file there
_ADDRESS = re.compile(r"hf://(?P<repo>[^/@]+/[^/@]+)(@(?P<revision>[^/]+))?(/(?P<file>.+))?")


def folder() -> Path:
    """Where the package keeps its weights."""
    return Path(str(resources.files("glunet") / "weights"))


def weights() -> dict[str, dict[str, Any]]:
    """The weights that come with the package: name -> its metadata (settings, training, numbers, licence, sha256)."""
    found = {}
    for path in sorted(folder().glob("*.safetensors")):
        found[path.stem] = _metadata(path) | {"sha256": sha256(path), "bytes": path.stat().st_size}
    return found


@own_state()
def load(
    name: str | Path = DEFAULT,
    device: str | torch.device | None = None,
    points: "PointSource | Sequence[PointSource]" = (),
    **settings: Any,
) -> "Matcher":
    """A matcher, ready to use.

    Args:
        name: the name of weights in the package (`weights()` lists them), a file of ours (.safetensors), an official
            checkpoint (.pth), recognised by their content, or a file of ours on the Hugging Face Hub ("hf://OWNER/NAME",
            `from_hub`; the one case in which something is downloaded).
        device: where to compute; None takes CUDA or MPS where there is one, else the CPU.
        points: for the search, one's own source of matching points beside SIFT, or several: a function from source and
            target (H x W x 3 uint8, RGB) to N x 2 points of the source and N x 2 of the target, in pixels.
        settings: how to match, by name: uint8_truncation, flipping, iterative_refinement, pyramid, passes, enlarge_to,
            speed, search, polish, plane and confidence (`glunet.inference.settings.Settings` says what each is). What
            is left out, or None, is what the weights were made for; for official checkpoints the published protocol.

    Raises:
        TypeError: for a setting that there is not.
        GlunetError: a value that a setting cannot have; if there are no such weights, the file is none of ours or
            damaged, or the device is not there.
    """
    from glunet.matcher import Matcher

    with torch.inference_mode(False):
        network, metadata, path = _read(name)
    chosen, digest = pick_device(device), sha256(path)
    return Matcher(
        network.to(chosen).eval(),
        name=metadata.get("name", path.stem),
        sha256=digest,
        settings=Settings.of(metadata, settings),
        calibration=_calibration(metadata, path, "confidence"),
        learned=_calibration(metadata, path, "learned"),
        points=points,
        again=partial(_again, path, digest, chosen),
    )


@own_state()
@torch.inference_mode(False)
def _again(path: Path, digest: str, device: torch.device) -> Network:
    """The network of a matcher that was loaded, once more."""
    network, _, _ = _read(path)
    if sha256(path) != digest:
        raise GlunetError(f"{path} has changed since it was loaded: load it again.")
    return network.to(device).eval()


def _calibration(metadata: dict[str, Any], path: Path, name: str) -> Calibration | None:
    """What the weights know of their own errors; None where they were never calibrated."""
    if name not in metadata:
        return None
    try:
        return Calibration.from_metadata(metadata[name])
    except (KeyError, TypeError, ValueError) as error:
        raise GlunetError(f"{path} has a calibration that cannot be read: calibrate these weights again.") from error


@own_state()
@torch.inference_mode(False)
def read_network(name: str | Path) -> tuple[Network, dict[str, Any]]:
    """The network that `name` (see `load`) holds, on the CPU, in float32, and its metadata.

    Raises:
        GlunetError: as `load`.
    """
    return _read(name)[:2]


def read_weights(name: str | Path) -> tuple[GLUNet, dict[str, Any]]:
    """As `read_network`, for what works with GLU-Net's own levels (the semantic network has the same).

    Raises:
        GlunetError: as `load`, and if `name` holds another network of the family.
    """
    network, metadata = read_network(name)
    if not isinstance(network, GLUNet):
        raise GlunetError(f"Weights '{name}' are {network.config.network}'s, but GLU-Net's are expected here.")
    return network, metadata


def _read(name: str | Path) -> tuple[Network, dict[str, Any], Path]:
    path = find(name)
    if is_safetensors(path):
        state, metadata = _read_ours(path)
        try:
            config = configure(metadata.get("network", "glunet"), **metadata["config"])
        except (KeyError, TypeError) as error:
            raise GlunetError(
                f"{path} is a safetensors file without glunet's settings; expected weights of ours."
            ) from error
    else:
        state = read_official(path)
        config = official_config(state)
        state = our_state(state, config.network)
        # Their scripts have it on, where the network knows extra levels.
        metadata = {"iterative_refinement": FRAMINGS[config.network].again}
    with _Undrawn():
        network = build(config)
    _load_whole(network, state, path)
    return network, metadata, path


def save_weights(
    path: Path, state: dict[str, Tensor], config: Config, metadata: dict[str, Any], half: bool = True
) -> None:
    """Write weights of ours: safetensors, float16 (BatchNorm's statistics float32), settings in the metadata.

    A state without an encoder refers to the package's own VGG-16.

    Raises:
        GlunetError: if the file cannot be written.
    """
    tensors = {}
    for key, value in state.items():
        if not value.is_floating_point():
            continue  # counters of batches, of no use after training
        keep = not half or key.endswith(("running_mean", "running_var"))
        tensors[key] = value.detach().cpu().to(torch.float32 if keep else torch.float16).contiguous()
    settings = asdict(config)
    network = settings.pop("network")
    header = {"format": FORMAT, "version": __version__, "network": network, "config": settings} | metadata
    if not any(key.startswith("encoder.") for key in tensors):
        header["encoder"] = ENCODER
    with writing(path) as part:
        try:
            save_file(tensors, part, metadata={"glunet": json.dumps(header)})
        except SafetensorError as error:
            raise GlunetError(f"{path} cannot be written ({error}); choose another place with room.") from error


def network_state(network: Network, encoder: bool = False) -> dict[str, Tensor]:
    """A network's tensors, without the encoder's unless asked for."""
    return {k: v for k, v in network.state_dict().items() if encoder or not k.startswith("encoder.")}


def _encoder_file() -> dict[str, Tensor]:
    path = folder() / f"{ENCODER}.safetensors"
    if not path.exists():
        raise GlunetError(f"{path} is missing; the package is incomplete: install it again.")
    return load_file(path)


def encoder_state() -> dict[str, Tensor]:
    """VGG-16's tensors (Simonyan and Zisserman 2014), float32, under the network's names."""
    return {key: value.float() for key, value in _encoder_file().items()}


def sha256(path: Path) -> str:
    """Of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def find(name: str | Path) -> Path:
    """The file that `name` (see `load`) means.

    Raises:
        GlunetError: if there is none.
    """
    if str(name).startswith(HUB):
        return from_hub(str(name))
    path = Path(name)
    if path.is_file():
        return path
    inside = folder() / f"{name}.safetensors"
    if str(name) != ENCODER and len(path.parts) == 1 and inside.is_file():
        return inside
    names = ", ".join(n for n in sorted(p.stem for p in folder().glob("*.safetensors")) if n != ENCODER) or "none"
    what = "is a folder" if path.is_dir() else "is no file and no name of weights in the package"
    raise GlunetError(f"Weights '{name}': it {what}; expected a .safetensors or .pth file, or one of: {names}.")


def is_safetensors(path: Path) -> bool:
    """Recognised by the first bytes: an eight-byte length, then a JSON object."""
    try:
        with path.open("rb") as file:
            return file.read(9)[8:] == b"{"
    except OSError as error:
        raise GlunetError(f"{path} cannot be read ({error.strerror}); check its rights.") from error


def _metadata(path: Path) -> dict[str, Any]:
    try:
        with safe_open(path, framework="pt") as file:
            return json.loads((file.metadata() or {}).get("glunet", "{}"))
    except (SafetensorError, ValueError) as error:
        raise GlunetError(f"{path} is a damaged safetensors file ({error}); copy it again.") from error


def _read_ours(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    metadata = _metadata(path)
    try:
        state = {key: value.float() for key, value in load_file(path).items()}
    except (SafetensorError, OSError) as error:
        raise GlunetError(f"{path} is a damaged safetensors file ({error}); copy it again.") from error
    if metadata.get("encoder") == ENCODER:
        state |= encoder_state()
    return state, metadata


def read_official(path: Path) -> dict[str, Tensor]:
    """An official checkpoint's tensors, by its own names.

    Raises:
        GlunetError: if it is none, or damaged.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (
        RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, zipfile.BadZipFile, pickle.UnpicklingError
    ) as error:  # fmt: skip
        raise GlunetError(
            f"{path} is neither a safetensors file nor a PyTorch checkpoint of plain tensors, or it is damaged; "
            "expected weights of ours or an official checkpoint of the GLU-Net family."
        ) from error
    state = bare_state(content, str(path))
    if not is_official(state):
        raise GlunetError(
            f"{path} holds tensors such as '{next(iter(state))}', which no GLU-Net has; expected an official one."
        )
    return state


class _Undrawn(TorchFunctionMode):
    """While it lasts no random numbers are drawn: weights that are read are not first made.

    That took 0.2 s, and the memory of another network: what is never written to is not resident.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (Tensor.normal_, Tensor.uniform_, nn.init.kaiming_uniform_):
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


def _load_whole(network: Network, state: dict[str, Tensor], path: Path) -> None:
    """Every tensor in its place, none left over; BatchNorm's counters may be absent."""
    own = network.state_dict()
    missing = [k for k in own if k not in state and not k.endswith("num_batches_tracked")]
    extra = [k for k in state if k not in own]
    wrong = [k for k in own if k in state and own[k].shape != state[k].shape]
    for keys, what in ((extra, "has left over"), (missing, "lacks"), (wrong, "has in another shape")):
        if keys:
            raise GlunetError(
                f"{path} {what} {len(keys)} of the network's tensors, the first '{keys[0]}'; "
                "expected a whole GLU-Net checkpoint, unchanged."
            )
    counters = {k: torch.zeros((), dtype=torch.int64) for k in own if k.endswith("num_batches_tracked")}
    network.load_state_dict({k: v.contiguous() for k, v in {**counters, **state}.items()}, assign=True)


def pick_device(device: str | torch.device | None) -> torch.device:
    """The device asked for, or the best there is for None: CUDA, MPS, else the CPU.

    Raises:
        GlunetError: if it cannot be used here.
    """
    if device is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise GlunetError(
            f"Device '{device}' cannot be used here; expected cpu, or cuda or mps where there is one."
        ) from error
    return chosen


def from_hub(address: str) -> Path:
    """A weights file from the Hugging Face Hub, by its own library: safetensors only, so that nothing is unpickled.

    What was fetched before comes from the hub's cache, and with HF_HUB_OFFLINE nothing else does.

    Args:
        address: hf://OWNER/NAME, with @REVISION and /FILE where they are not the newest and model.safetensors.

    Raises:
        GlunetError: another address, a file of another kind, or one that cannot be had.
    """
    found = _ADDRESS.fullmatch(address)
    if found is None:
        raise GlunetError(f"Weights '{address}': expected hf://OWNER/NAME, or hf://OWNER/NAME@REVISION/FILE.")
    file = found["file"] or HUB_FILE
    if not file.endswith(".safetensors"):
        raise GlunetError(f"Weights '{address}': only .safetensors files are taken from the hub; convert it first.")
    with needed("Weights from the hub need huggingface_hub", "hub"):
        from huggingface_hub import hf_hub_download
    try:
        return Path(hf_hub_download(found["repo"], file, revision=found["revision"]))
    except Exception as error:
        reason = " ".join(str(error).split()).split(". ")[0] or type(error).__name__
        raise GlunetError(f"Weights '{address}' cannot be had from the hub: {reason}.") from error
