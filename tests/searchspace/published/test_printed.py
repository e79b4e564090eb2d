"""What is printed elsewhere, beside the exact figures: every network is there, and every real deviation has a cause."""

import json
from collections import Counter
from dataclasses import fields
from decimal import Decimal
from pathlib import Path

import pytest

from searchspace.architecture import Architecture, Chain, Conv
from searchspace.cost import Cost, cost
from searchspace.published import NETWORKS, printed
from searchspace.published.printed import compared, read, rows

RECORD = json.loads(Path(printed.__file__).with_suffix(".json").read_text())
GOLDEN = json.loads((Path(__file__).parent / "costs.json").read_text())


@pytest.fixture(scope="module")
def table():
    return {row.name: row for row in rows()}


def test_every_network_of_the_golden_table_is_listed_once_with_its_exact_cost(table):
    assert list(table) == [entry["name"] for entry in GOLDEN]
    for entry in GOLDEN:
        row = table[entry["name"]]
        assert {"network": row.network, **row.settings} == entry["call"]
        assert (list(row.input), row.classes) == (entry["input"], entry["classes"])
        assert (row.cost.params, row.cost.macs) == (entry["params"], entry["macs"])


def test_a_print_that_the_exact_figure_does_not_round_to_has_a_cause(table):
    prints = [p for row in table.values() for p in row.prints]
    assert len(prints) > 200
    assert [p for p in prints if not p.agrees and not p.cause] == []


def test_a_print_of_less_than_it_says_tells_so(table):
    prints = [p for row in table.values() for p in row.prints]
    assert all(p.cause for p in prints if p.of in ("params_without_bn", "macs_without_classifier"))


def test_causes_are_used_and_name_what_a_reader_can_check(table):
    used = Counter(key for entry in RECORD["networks"] for p in entry["prints"] for key in p.get("cause", ()))
    assert used.keys() == RECORD["causes"].keys()
    assert all(10 < len(cause) < 130 for cause in RECORD["causes"].values())


def test_prints_stand_for_figures_of_a_cost_and_settings_for_arguments():
    figures = {f.name for f in fields(Cost)}
    for entry in RECORD["networks"]:
        assert entry["network"] in NETWORKS
        assert {p["of"] for p in entry["prints"]} <= figures


@pytest.mark.parametrize(
    ("text", "value", "step"),
    [
        ("25557032", 25557032, 1),
        ("4.089G", 4089000000, 1000000),
        ("569M", 569000000, 1000000),
        ("6798K", 6798000, 1000),
        ("3.40M", 3400000, 10000),
        ("98MB", 98 * 2**18, 2**18),
    ],
)
def test_a_print_is_read_with_the_worth_of_its_last_digit(text, value, step):
    assert read(text) == (Decimal(value), Decimal(step))


@pytest.mark.parametrize("text", ["", "4,1G", "-3M", "3 M", "1e9", "4.G"])
def test_what_is_no_print_is_refused(text):
    with pytest.raises(ValueError, match="A print must be a number"):
        read(text)


@pytest.mark.parametrize(
    ("text", "agrees"),
    [("1248", True), ("1.2K", True), ("1.25K", True), ("1.3K", False), ("1.24K", False), ("1K", True)],
)
def test_a_print_agrees_where_the_exact_figure_rounds_to_it(text, agrees):
    exact = cost(Architecture((4, 1, 1), Chain((Conv(312),))))
    assert exact.params == 1248
    p = compared("us", "params", text, exact)
    assert p.agrees == agrees
    assert p.deviation == pytest.approx(float(read(text)[0]) / 1248 - 1)


def test_the_known_deviations_are_what_they_are(table):
    """The list of the reference, by name: each of these prints is off, by this much."""
    off = {
        (row.name, p.by, p.printed): round(100 * p.deviation, 1)
        for row in table.values()
        for p in row.prints
        if not p.agrees
    }
    for key, percent in {
        ("mobilenet_v1_0.25_192", "slim", "34M"): 12.5,
        ("mobilenet_v2_1.4_224", "paper", "6.9M"): 13.0,
        ("inception_v3", "paper", "4.8G"): -16.0,
        ("ir_csn_152@32x224", "VMZ", "96.7G"): 30.6,
        ("ir_csn_101@32x256", "pytorchvideo", "75.62G"): 2.5,
        ("oct_mobilenet_v1_1.0_a.5", "paper", "321M"): 0.9,
        ("googlenet_torchvision_aux", "torchvision", "6624904"): -49.1,
        ("resnet50_v1_original", "paper, recalled", "3.8G"): -1.5,
    }.items():
        assert off[key] == percent
    networks = {name for name, _, _ in off}
    assert not any(name.startswith(("shufflenet_v1_1.0x", "resnext", "densenet", "oct_resnet")) for name in networks)
