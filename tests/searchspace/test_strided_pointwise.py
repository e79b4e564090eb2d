"""A strided 1 x 1 convolution is the function torch computes, and does not corrupt memory in training."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from searchspace.architecture import Architecture, Chain, Conv
from searchspace.network import build

CHECKER = Path("/lib/x86_64-linux-gnu/libc_malloc_debug.so.0")  # glibc's heap checks, where there is one

TRAIN = """
import torch
from searchspace.architecture import Architecture, Chain, Conv
from searchspace.network import build
torch.set_num_threads(1)
network = build(Architecture((4, 8, 8), Chain((Conv(8, 1, 2),))), 0).to(memory_format=torch.channels_last)
for _ in range(100):
    x = torch.randn(15, 4, 8, 8).contiguous(memory_format=torch.channels_last).requires_grad_()
    network(x).square().sum().backward()
print("done")
"""


@pytest.mark.parametrize("stride", [2, 3])
@pytest.mark.parametrize("space", [(8, 8), (7, 5), (1, 1), (3, 8, 7)])
def test_it_equals_the_strided_convolution(space: tuple[int, ...], stride: int) -> None:
    network = build(Architecture((6, *space), Chain((Conv(8, 1, stride, groups=2, bias=True),))), 0).double()
    weight = network.state_dict()["body.0.weight"]
    plain = (nn.Conv2d if len(space) == 2 else nn.Conv3d)(6, 8, 1, stride, groups=2).double()
    plain.load_state_dict({"weight": weight, "bias": network.state_dict()["body.0.bias"]})
    x = torch.randn(2, 6, *space, dtype=torch.float64)
    torch.testing.assert_close(network(x), plain(x), rtol=0, atol=1e-14)


def test_training_it_leaves_the_heap_whole() -> None:
    environment = {**os.environ, "MALLOC_CHECK_": "3"}
    if CHECKER.exists():
        environment["LD_PRELOAD"] = str(CHECKER)
    done = subprocess.run([sys.executable, "-c", TRAIN], capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
