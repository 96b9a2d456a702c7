"""Write the package's encoder file from a VGG-16 under torchvision's names.

python tools/pack_encoder.py ../shared/vgg16/vgg16_imagenet_conv1_to_conv4.safetensors
"""

import json
import sys
from pathlib import Path

from safetensors.torch import load_file, save_file

from glunet.network.encoder import VGG16Pyramid

OUT = Path(__file__).parent.parent / "src" / "glunet" / "weights" / "vgg16.safetensors"
CREDIT = {
    "format": "glunet 1",
    "name": "vgg16",
    "what": "ImageNet VGG-16, convolutions 1_1 to 4_3, float16",
    "credit": "Simonyan and Zisserman, Very Deep Convolutional Networks for Large-Scale Image Recognition, 2014",
    "licence": "CC BY 4.0",
}


def main(path: str) -> None:
    given = load_file(path)
    # torchvision numbers all layers through, the pyramid those of each level: both are in the order of the network.
    theirs = sorted({key.rsplit(".", 1)[0] for key in given}, key=lambda name: int(name.split(".")[1]))
    ours = [key.rsplit(".", 1)[0] for key in VGG16Pyramid().state_dict() if key.endswith("weight")]
    state = {
        f"encoder.{own}.{part}": given[f"{name}.{part}"]
        for own, name in zip(ours, theirs, strict=True)
        for part in ("weight", "bias")
    }
    save_file(state, OUT, metadata={"glunet": json.dumps(CREDIT)})
    print(OUT, OUT.stat().st_size, "bytes")


if __name__ == "__main__":
    main(*sys.argv[1:])
