"""Write the tests' compact copy of the golden figures.

python tools/sample_goldens.py ../shared/golden tests/data/golden GLUNet_256x256 ...
"""

import sys
from pathlib import Path

import numpy as np

STRIDES = {"flow": 8, "flow1": 4, "flow2": 4, "flow3": 2, "flow4": 1}  # more for wide images
KEPT = ("flow", "flow1", "flow2", "flow3", "flow4", "extra0_flow", "corr4", "corr3", "flow_iter3_7")
KEPT += ("p_r", "p_r_iter3_7", *(f"{name}{level}" for name in ("log_var", "weight") for level in (4, 3, 2, 1)))


def main(golden: str, out: str, *names: str) -> None:
    for name in names:
        kept = {}
        with np.load(Path(golden) / f"{name}.npz") as file:
            for key in file.files:
                base, _, stride = key.partition("_s")
                if base not in KEPT:
                    continue
                values = file[key].astype(np.float32)
                if base.startswith("corr"):
                    values = values[:, ::5]
                    more = 4
                else:
                    more = max(1, STRIDES.get(base, 2) // int(stride or 1)) * (2 if values.shape[-1] > 300 else 1)
                kept[f"{base}_s{int(stride or 1) * more}"] = values[..., ::more, ::more]
        np.savez_compressed(Path(out) / f"{name}.npz", **kept)
        print(name, {key: value.shape for key, value in kept.items()})


if __name__ == "__main__":
    main(*sys.argv[1:])
