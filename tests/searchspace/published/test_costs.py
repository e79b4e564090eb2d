"""The golden table: every published network costs what its original costs, to the unit.

`costs.json` gives, for each variant, the call that builds it and the figures counted on the original.
"""

import json
from pathlib import Path

import pytest

from searchspace.cost import cost
from searchspace.published import NETWORKS

FIGURES = {
    "params": "params",
    "macs": "macs",
    "fvcore_total": "flops",
    "params_without_bn": "params_without_bn",
    "macs_without_fc": "macs_without_classifier",
    "channel_interactions": "interactions",
}
ENTRIES = json.loads((Path(__file__).parent / "costs.json").read_text())


def test_the_table_has_every_network_and_176_variants():
    assert len({entry["name"] for entry in ENTRIES}) == len(ENTRIES) == 176
    assert {entry["call"]["network"] for entry in ENTRIES} == set(NETWORKS)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry["name"])
def test_figures_equal_the_table_to_the_unit(entry):
    call = dict(entry["call"])
    network = NETWORKS[call.pop("network")]
    counts = cost(network(**call, classes=entry["classes"], input=tuple(entry["input"])))
    expected = {ours: entry[theirs] for theirs, ours in FIGURES.items() if theirs in entry}
    assert {name: getattr(counts, name) for name in expected} == expected
