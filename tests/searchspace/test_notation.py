"""JSON there and back, digests, words, and what is refused."""

import hashlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import architectures

from searchspace.architecture import (
    Activation,
    AdaptivePool,
    Add,
    Architecture,
    ArchitectureError,
    Chain,
    Conv,
    Depthwise,
    Flatten,
    Linear,
    Norm,
    Pool,
)
from searchspace.notation import FORMAT, digest, from_json, to_json, words

HEAD = Chain((AdaptivePool(), Flatten(), Linear(3)), label="head")
NET = Architecture((3, 8, 8), Chain((Conv(8, 3, label="stem"), Norm(), Activation("gelu"), Pool("average"), HEAD)))

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
names = st.sampled_from(["node", "kind", "items", "branches", "head", "out", "kernel", "label", "low", "x"])
values = st.recursive(scalars, lambda v: st.lists(v, max_size=4) | st.dictionaries(names, v, max_size=4), max_leaves=12)


@given(architectures())
@settings(max_examples=100)
def test_json_there_and_back_is_the_same_with_labels(a):
    record = json.loads(json.dumps(to_json(a)))
    back = from_json(record)
    assert back == a
    assert back.digest == a.digest
    assert [(s.path, s.role) for s in back.sites] == [(s.path, s.role) for s in a.sites]
    assert to_json(back) == record


def test_json_keeps_fields_named_kind():
    assert from_json(to_json(NET)) == NET
    assert [s.leaf for s in from_json(to_json(NET)).sites[2:4]] == [Activation("gelu"), Pool("average")]


def test_json_says_its_format_and_leaves_defaults_out():
    record = to_json(NET)
    assert record["format"] == FORMAT == "architecture/1"
    assert record["body"]["items"][0] == {"node": "conv", "label": "stem", "out": 8, "kernel": 3}
    assert record["body"]["items"][1] == {"node": "norm"}


@given(architectures())
@settings(max_examples=100)
def test_the_digest_is_that_of_the_json_without_labels(a):
    def bare(record):
        if isinstance(record, list):
            return [bare(item) for item in record]
        if isinstance(record, dict):
            return {name: bare(value) for name, value in record.items() if name != "label"}
        return record

    record = to_json(a)
    text = json.dumps([list(a.input), bare(record["body"])], separators=(",", ":"), sort_keys=True)
    assert a.digest == hashlib.sha256(text.encode()).hexdigest()[:16]


def test_the_digest_is_pinned():
    """A change here makes every stored digest stale: it needs another format."""
    assert digest(NET) == NET.digest == "8fed92ba577e6c87"


@given(values)
@settings(max_examples=300)
def test_any_json_is_an_architecture_or_an_architecture_error(value):
    for record in (value, {"format": FORMAT, "input": value, "body": value}):
        try:
            from_json(record)
        except ArchitectureError:
            pass
        else:
            pytest.fail("arbitrary JSON was an architecture")


def _places(record, path=()):
    yield path
    if isinstance(record, dict | list):
        for key, value in record.items() if isinstance(record, dict) else enumerate(record):
            yield from _places(value, (*path, key))


@given(architectures(), st.data())
@settings(max_examples=300)
def test_a_broken_record_is_another_architecture_or_an_architecture_error(a, data):
    record = json.loads(json.dumps(to_json(a)))
    *path, last = data.draw(st.sampled_from([p for p in _places(record) if p]))
    inner = record
    for key in path:
        inner = inner[key]
    inner[last] = data.draw(values)
    try:
        found = from_json(record)
    except ArchitectureError:
        return
    assert from_json(to_json(found)) == found


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"format": "architecture/2"}, "format 'architecture/1', but got 'architecture/2'"),
        ({"input": 3}, "`input` must be a list of sizes, but got 3"),
        ({"input": [3, 8]}, r"`input` must be \(channels, height, width\)"),
        ({"body": {"node": "convolution"}}, "`node` at body must be one of conv, .* but got 'convolution'"),
        ({"body": {"node": "chain", "items": [{"node": "conv"}]}}, "conv at body.0 must have all its fields: .*'out'"),
        (
            {"body": {"node": "chain", "items": [{"node": "norm"}, {"node": "conv", "out": 3, "width": 3}]}},
            "conv at body.1 has no field 'width'; it has bias, dilation",
        ),
        ({"body": {"node": "chain", "items": {}}}, "`items` at body must be a list"),
        ({"body": {"node": "tap", "head": 3}}, "`node` at body.0 must be one of"),
        ({"body": {"node": "norm"}}, "`body` must be a Chain, but got Norm"),
        ({"body": None}, "`node` at body must be one of .* but got None"),
    ],
)
def test_a_record_is_refused_with_rule_and_place(change, rule):
    with pytest.raises(ArchitectureError, match=rule):
        from_json(to_json(NET) | change)


@pytest.mark.parametrize("record", [None, [], "architecture/1", 3])
def test_a_record_must_be_an_object(record):
    with pytest.raises(ArchitectureError, match="must be an object with format 'architecture/1'"):
        from_json(record)


def test_endless_nesting_is_refused():
    body = {"node": "chain", "items": []}
    for _ in range(150):
        body = {"node": "chain", "items": [body]}
    with pytest.raises(ArchitectureError, match="at most 100 deep"):
        from_json({"format": FORMAT, "input": [3, 8, 8], "body": body})


def test_words_read_as_the_field_writes():
    block = Chain((Add((Chain((Depthwise(5, 1, dilation=2), Norm(), Conv(8, low=2, groups=2))), Conv(8, low=2))),))
    a = Architecture((3, 8, 8), Chain((Conv(8, 3, 2, label="stem"), Chain((block,), label="stage1"), HEAD)))
    assert words(a) == str(a) == "8x8x3 > 3x3 8/2 > stage1 (dw5x5 d2, 1x1 8 g2 α0.25) + 1x1 8 α0.25 > head pool, fc 3"


@given(architectures())
@settings(max_examples=50)
def test_words_fit_a_line(a):
    assert "\n" not in str(a)
    assert str(a).startswith("x".join(map(str, (*a.input[1:], a.input[0]))))
