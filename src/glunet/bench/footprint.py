"""Start-up and peak memory of one row: run as a file in a fresh process, so that nothing was imported before.

python -P footprint.py '{"row": "twin", "weights": "glunet", "device": "cpu", "height": 520, "width": 520,
"matches": 1}'

prints one line of JSON: seconds to import torch, to import glunet, to load, of the first match; bytes that the process
took at its peak above the peak after `import torch`; on CUDA the peak of what torch allocated there.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any


def peak_bytes() -> int | None:
    """The most resident memory this process has had; None where the system does not say."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return None


def measure(asked: dict[str, Any]) -> dict[str, Any]:
    """See the module; `asked` is what its command line holds."""
    clock, times = time.perf_counter, [time.perf_counter()]
    import torch

    bare = peak_bytes()
    times.append(clock())
    from glunet import loading  # noqa: F401 - what `glunet.load` brings in

    times.append(clock())
    from glunet.bench import rows

    device = torch.device(asked["device"])
    pair = rows.make_pair(asked["height"], asked["width"], device)
    before_load = clock()
    run = rows.make(asked["row"], asked["weights"], device)
    loaded = clock()
    run(pair)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    matched = clock()
    for _ in range(asked["matches"] - 1):
        run(pair)
    peak = peak_bytes()
    return {
        "import_torch": times[1] - times[0],
        "import_glunet": times[2] - times[1],
        "load": loaded - before_load,
        "first": matched - loaded,
        "memory": None if peak is None or bare is None else peak - bare,
        "device_memory": torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure(json.loads(sys.argv[1]))) + "\n")
