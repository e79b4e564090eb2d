"""Transforms: what the papers propose as plug-ins, as rewrites of any architecture into another.

| transform | rewrites |
|---|---|
| `widen`, `octave` | widths, and the share of them at half resolution |
| `regroup`, `separate` | which channels meet: groups and shuffles; depthwise kernels, behind a 1 x 1 or not |
| `factorize`, `dilate` | kernels: into smaller ones, or spread |
| `resize`, `inflate`, `retime` | the input's size, a time axis for images, what happens along it |
| `renorm`, `drop` | single leaves: the eps of norms, leaves taken out |

Most take `where`, a predicate over sites (`under("stage2") & ~role("projection")`), and return an equal
architecture where nothing matches. Labels survive. What a rewrite does follows from the values alone:

* `widen` and `octave` change a width only where everything it meets can follow: a convolution whose output is added
  to one that `where` leaves out, is picked from by a `Select`, or (octave) is read by a layer that takes no pair,
  stays as it is. The output of the network and of each auxiliary head keeps its width and its one resolution.
* The others do exactly what was asked or raise `ArchitectureError` with the place; a site that has nothing to
  rewrite (a 1 x 1 kernel has no factors) stays.
"""

from searchspace.transforms.channels import octave, regroup, widen
from searchspace.transforms.frames import inflate, resize, retime
from searchspace.transforms.kernels import dilate, factorize, separate
from searchspace.transforms.rewriting import drop, renorm
from searchspace.transforms.where import Predicate, Where, divisible_by, everywhere, leaf, role, under

__all__ = [
    "Predicate",
    "Where",
    "dilate",
    "divisible_by",
    "drop",
    "everywhere",
    "factorize",
    "inflate",
    "leaf",
    "octave",
    "regroup",
    "renorm",
    "resize",
    "retime",
    "role",
    "separate",
    "under",
    "widen",
]
