"""YAML as people write it, and the line of each part, so that a fault can say where it is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from nas.sweep import SweepError
from searchspace.choices import Place


class _Loader(yaml.SafeLoader):
    """YAML's safe loader; a key that stands twice in one mapping is a fault, not the last one's victory."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key must be a word", problem_mark=key.start_mark)
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"the key {key.value!r} stands twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, ArithmeticError) as error:  # a day that is none, a number of 5,000 digits
            raise yaml.MarkedYAMLError(problem=str(error), problem_mark=node.start_mark) from None


# YAML 1.1 takes 1e-3 for text, where all else takes it for a number.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def load_yaml(path: Path) -> tuple[str, dict[str, object]]:
    """The text of a file and the mapping in it. Raises `SweepError`."""
    try:
        text = path.read_text()
        record = yaml.load(text, Loader=_Loader)
    except OSError as error:
        raise SweepError([f"{path}: must be a readable file ({error.strerror})"]) from None
    except UnicodeDecodeError:
        raise SweepError([f"{path}: must be text in UTF-8"]) from None
    except RecursionError:
        raise SweepError([f"{path}: must be YAML of a few levels (got too many)"]) from None
    except yaml.YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None) or error
        line = f":{mark.line + 1}" if mark else ""
        hint = "; is the indentation right?" if "expected <block end>" in str(problem) else ""
        raise SweepError([f"{path}{line}: must be YAML ({' '.join(str(problem).split())}{hint})"]) from None
    if not isinstance(record, dict):
        got = "nothing" if record is None else f"a {type(record).__name__}"
        raise SweepError([f"{path}: must be a mapping, lines of `name: value` (got {got})"])
    return text, record


def fault(path: Path, text: str, place: Place, rule: str) -> str:
    """`file:line: field: rule`, of what stands at `place` in the file."""
    name = ".".join(str(part + 1) if isinstance(part, int) else part for part in place)
    return f"{path}:{_line(text, place)}: {name + ': ' if name else ''}{rule}"


def _line(text: str, place: Place) -> int:
    """The line (from 1) of the deepest part of `place` that the file has."""
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    line = 1
    for part in place:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value == str(part):
                    line, node = key.start_mark.line + 1, value
                    break
            else:
                return line
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            return line
    return line
