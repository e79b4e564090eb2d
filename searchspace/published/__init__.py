"""Published networks, each a function of its paper's own choices that returns an `Architecture`.

Every function takes keywords alone: what the paper varies, then `classes` and `input` (channels, [frames,] height,
width), which default to the paper's. `NETWORKS` names them all. Params and multiply-adds equal the originals to
the unit; where a paper prints another number, `published.printed` says why.
"""

from __future__ import annotations

from collections.abc import Callable

from searchspace.architecture import Architecture
from searchspace.published.alexnet import alexnet
from searchspace.published.csn import csn
from searchspace.published.densenet import densenet
from searchspace.published.dilated import dilated_context
from searchspace.published.googlenet import googlenet
from searchspace.published.inception import inception_v3
from searchspace.published.mixed import frame_r2d, mixed_convolution, r2d, r3d
from searchspace.published.mobilenet import mobilenet_v1, mobilenet_v2, mobilenet_v3
from searchspace.published.octave import oct_mobilenet_v1, oct_mobilenet_v2, oct_resnet, oct_resnext
from searchspace.published.p3d import p3d
from searchspace.published.r2plus1d import r2plus1d
from searchspace.published.resnet import resnet, resnext
from searchspace.published.resnet3d import resnet3d
from searchspace.published.s3d import s3d
from searchspace.published.shufflenet import shufflenet_v1
from searchspace.published.squeezenet import squeezenet
from searchspace.published.vgg import vgg
from searchspace.published.xception import xception

NETWORKS: dict[str, Callable[..., Architecture]] = {
    "alexnet": alexnet,
    "vgg": vgg,
    "googlenet": googlenet,
    "inception_v3": inception_v3,
    "squeezenet": squeezenet,
    "mobilenet_v1": mobilenet_v1,
    "mobilenet_v2": mobilenet_v2,
    "mobilenet_v3": mobilenet_v3,
    "shufflenet_v1": shufflenet_v1,
    "xception": xception,
    "resnet": resnet,
    "resnext": resnext,
    "oct_resnet": oct_resnet,
    "oct_resnext": oct_resnext,
    "oct_mobilenet_v1": oct_mobilenet_v1,
    "oct_mobilenet_v2": oct_mobilenet_v2,
    "densenet": densenet,
    "dilated_context": dilated_context,
    "resnet3d": resnet3d,
    "csn": csn,
    "r3d": r3d,
    "mixed_convolution": mixed_convolution,
    "r2d": r2d,
    "frame_r2d": frame_r2d,
    "r2plus1d": r2plus1d,
    "s3d": s3d,
    "p3d": p3d,
}
