"""Signs: what some options of the built-in blocks leave to be seen in a fragment, whatever its widths.

`Space.encode` asks which settings make a fragment; settings whose signs are not there need not be built.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from searchspace.architecture import Activation, Conv, Depthwise, Node, Shuffle, SqueezeExcite, children
from searchspace.choices import Stage, Value


@dataclass(frozen=True, slots=True)
class Signs:
    """Activations and groups that occur, and whether anything is shuffled, dilated, biased, squeezed."""

    activations: frozenset[str]
    groups: frozenset[int]
    shuffled: bool
    dilated: bool
    biased: bool
    squeezed: bool

    @classmethod
    def of(cls, fragment: Node) -> Self:
        leaves = [*_leaves(fragment)]
        convolutions = [leaf for leaf in leaves if isinstance(leaf, Conv | Depthwise)]
        return cls(
            activations=frozenset(leaf.kind for leaf in leaves if isinstance(leaf, Activation)),
            groups=frozenset(leaf.groups for leaf in convolutions if isinstance(leaf, Conv)),
            shuffled=any(isinstance(leaf, Shuffle) for leaf in leaves),
            dilated=any(leaf.dilation != 1 for leaf in convolutions),  # (1, 1) is written 1
            biased=any(leaf.bias for leaf in convolutions),
            squeezed=any(isinstance(leaf, SqueezeExcite) for leaf in leaves),
        )

    def allow(self, stage: Stage, names: Mapping[str, Value], setting: Mapping[str, Value]) -> bool:
        """Whether the options `names`, part of `setting`, may have made a fragment with these signs."""
        if not stage.knows(str(setting["block"])):
            return True
        return all(
            self._allows(name, value, stage.effect(name, value, setting), setting) for name, value in names.items()
        )

    def _allows(self, name: str, value: Value, done: Value | None, setting: Mapping[str, Value]) -> bool:
        match name:
            case "activation":
                return value in self.activations
            case "groups":
                return value in self.groups if done is not None and value != 1 else self.groups <= {1}
            case "shuffle":  # an inverted residual that does not expand has none, whatever is said
                return setting["block"] == "inverted_residual" or self.shuffled == bool(done)
            case "dilation":
                return self.dilated == (done not in (None, 1))
            case "bias":
                return self.biased == value
            case "squeeze_excite":
                return self.squeezed == bool(value)
        return True


def _leaves(node: Node) -> list[Node]:
    below = children(node)
    return [leaf for child in below for leaf in _leaves(child)] if below else [node]
