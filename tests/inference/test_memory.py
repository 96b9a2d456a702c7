"""What a process takes of the system's memory, and keeps."""

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource
import torch
from glunet.inference import memory

def touch():
    torch.empty(16_000_000).fill_(1)  # 64 MB, more than glibc would keep

kept = KEEP
for _ in range(5):
    touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    touch()
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_kept_memory_is_not_had_anew() -> None:
    faults = {}
    for call in ("None", "memory.keep()"):
        code = FAULTS.replace("KEEP", call)
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        kept, count = run.stdout.split()
        faults[call] = int(count)
    if kept == "False":
        pytest.skip("this glibc takes no such thresholds")
    assert faults["None"] > 20 * 100, "otherwise there is nothing to gain, and nothing is tested"
    # Not next to none: what threads take meanwhile may move the end of the heap, and a touch or two begins anew.
    assert faults["memory.keep()"] < faults["None"] / 2
