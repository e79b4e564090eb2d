"""`nas cost`: published networks by name and setting, files, the table; what is wrong is one clear line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.cost import lines, record
from experiments.named import find, read_settings
from searchspace.architecture import Architecture, ArchitectureError, Chain, Conv, Pool
from searchspace.checkpoint import save
from searchspace.cost import cost
from searchspace.network import build
from searchspace.notation import to_json
from searchspace.published import NETWORKS

OWN = Architecture((3, 32, 32), Chain((Conv(16, 3), Pool(label="halve"), Conv(32, 3))))


def nas(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "experiments.cli", "cost", *words],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        timeout=55,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def test_settings_after_one_set_an_input_and_json_for_machines() -> None:
    words = ["csn", "--set", "depth=50", "interactions=preserved", "--input", "3x8x224x224"]
    price = json.loads(nas(*words, "--json").stdout)
    assert (price["params"], price["macs"], price["interactions"]) == (14396176, 11913630208, 5679210688)
    assert (price["params_without_bn"], price["input"], price["breaches"]) == (14335504, [3, 8, 224, 224], [])
    said = nas(*words).stdout
    assert "14,396,176   trainable" in said
    assert "none of the design principles" in said


def test_every_figure_is_said_with_its_unit_and_every_breach_with_its_place() -> None:
    text = lines(NETWORKS["alexnet"]())
    for name, value in {"macs_without_classifier": "720,310,816", "receptive_field": "195 x 195"}.items():
        assert any(line.split()[:1] == [name] and value in line for line in text)
    said = " ".join(" ".join(text).split())
    assert "breach: stacked groups without shuffle at stage3/spatial (body.2.4): a convolution in 2 groups" in said
    assert all(len(line) <= 100 for line in text[1:])


def test_json_holds_all_of_the_cost_and_the_breaches() -> None:
    price = record(OWN)
    assert price["macs_without_classifier"] == cost(OWN).macs_without_classifier
    assert [(b["principle"], b["place"]) for b in price["breaches"]] == [
        ("representational bottleneck", "halve (body.1)")
    ]
    json.dumps(price)


def test_a_setting_is_read_as_its_function_declares_it() -> None:
    def network(
        *,
        depth: int = 1,
        width: float = 1.0,
        aux: bool = True,
        groups: int | str = 1,
        stem: int | None = None,
        kind: str = "a",
        input: tuple[int, ...] = (3, 8, 8),
    ) -> Architecture:
        return OWN

    given = ["depth=3", "width=2", "aux=no", "groups=depthwise", "stem=none", "kind=1", "input=3x4x8x8"]
    values = read_settings("network", network, given)
    assert values == {
        "depth": 3, "width": 2.0, "aux": False, "groups": "depthwise", "stem": None, "kind": "1", "input": (3, 4, 8, 8)
    }  # fmt: skip
    assert type(values["width"]) is float
    assert read_settings("network", network, ["groups=4", "stem=8"]) == {"groups": 4, "stem": 8}


@pytest.mark.parametrize(
    ("word", "settings", "message"),
    [
        ("resnte", [], r"NETWORK must be a file or one of alexnet, .*\(got 'resnte'; did you mean 'resnet'\?\)"),
        ("resnet", ["dpeth=50"], r"must be one of depth, .*\(got 'dpeth'; did you mean 'depth'\?\)"),
        ("resnet", ["depth=fifty"], r"`depth` of resnet must be a whole number \(got 'fifty'\)"),
        ("resnet", ["depth=51"], "`depth`.*50.*51"),
        ("resnet", ["depth=50", "depth=18"], "must be set once"),
        ("resnet", ["depth"], "must be NAME=VALUE"),
        ("mobilenet_v1", ["width=nan"], "`width` of mobilenet_v1 must be a number"),
        ("googlenet", ["aux=maybe"], "`aux` of googlenet must be true or false"),
        ("shufflenet_v1", ["stem=x"], "must be a whole number or none"),
        ("resnet", ["input=3x224"], "`input` must be"),
        ("resnet", ["input=foo"], "must be sizes such as 3x224x224"),
        ("resnet", ["classes=0"], "must be a whole number >= 1"),
        ("googlenet", ["input=3x4x4"], "window must fit"),
        ("csn", ["input=3x224x224"], "input"),
        ("nowhere.json", [], "must be a readable file"),
        ("./resnet", [], "must be a readable file"),
        ("pyproject.toml", ["depth=50"], "a file says all of its network"),
    ],
)
def test_what_is_wrong_is_said_with_what_there_is(word: str, settings: list[str], message: str) -> None:
    with pytest.raises(ArchitectureError, match=message) as caught:
        find(word, settings)
    assert "\n" not in str(caught.value)


def test_the_exit_code_of_wrong_words_is_2() -> None:
    done = nas("resnte")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1].startswith("nas: NETWORK must be")
    assert nas("--list", "resnet").returncode == nas().returncode == 2


def test_a_networks_name_beats_a_file_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("vgg").mkdir()
    Path("resnet").write_text(json.dumps(to_json(OWN)))
    Path("mine").write_text(json.dumps(to_json(OWN)))
    assert find("vgg") == NETWORKS["vgg"]()
    assert find("resnet") == NETWORKS["resnet"]()
    assert find("./resnet") == find("mine") == OWN
    save(Path("mine.safetensors"), build(OWN, 0))
    assert find("mine.safetensors") == OWN


def test_every_network_can_be_asked_for_with_nothing_but_its_name_and_a_number_of_classes() -> None:
    for name in NETWORKS:
        assert find(name) == NETWORKS[name]()
    assert find("resnet", ["depth=18"], "1x32x32", 10).output.channels == 10


def test_the_list_is_whole_in_a_pipe_and_for_machines() -> None:
    done = nas("--list")
    assert done.returncode == 0, done.stderr
    rows = done.stdout.splitlines()
    assert max(map(len, rows)) <= 100
    assert rows[0].split() == ["name", "input", "params", "macs", "interactions", "deviation"]
    at = next(i for i, line in enumerate(rows) if line.startswith("mobilenet_v1_0.25_192"))
    assert rows[at].split()[1:] == ["3x192x192", "470.1K", "30.21M", "16.08M"]
    name, params, macs, *deviation = rows[at + 1].split()
    assert (name, params, macs, deviation[:2]) == ("slim", "0.47M", "34M", ["+12.5", "%"])
    assert any(line.startswith(deviation[2] + " slim's table is wrong") for line in rows)
    networks = {row["name"]: row for row in json.loads(nas("--list", "--json").stdout)["networks"]}
    assert len(networks) == 176
    assert networks["resnet50_v1.5"]["cost"]["params"] == 25557032
    assert networks["resnet50_v1.5"]["settings"] == {"depth": 50}
    assert [p["agrees"] for p in networks["resnet50_v1.5"]["prints"]] == [True, True]


def test_help_shows_the_defaults_that_stand_in_brackets() -> None:
    """Rich reads a bracket as markup and swallows it, unless it is escaped."""
    done = subprocess.run(
        [sys.executable, "-m", "experiments.cli", "search", "--help"], capture_output=True, text=True, check=True
    )
    said = " ".join(done.stdout.replace("│", " ").split())
    assert all(default in said for default in ("[runs/NAME]", "[local Ray]", "[sqlite in OUT]"))


def test_costs_of_a_huge_input_are_exact_and_their_columns_stand() -> None:
    small, huge = (find("resnet", ["depth=50"], f"3x{size}x{size}") for size in (32, 100_000))
    assert cost(huge).macs_without_classifier == cost(small).macs_without_classifier * 3125**2
    assert cost(huge).activations - 1000 == (cost(small).activations - 1000) * 3125**2
    for architecture in (small, huge):
        figures = lines(architecture)[1:-1]
        assert len({line.index("   ", 24 + len(line[24:]) - len(line[24:].lstrip())) for line in figures}) == 1
    assert f"macs_without_classifier {cost(huge).macs_without_classifier:,}   without" in "\n".join(lines(huge))


@pytest.mark.parametrize("input", ["3x0x0", "3x-5x4", "3", "3x1e3x1e3", f"3x{10**30}x3", "3x2x3x4x5", "", "3x224x224x"])
def test_an_input_that_is_none_is_refused_with_the_rule(input: str) -> None:
    with pytest.raises(
        ArchitectureError, match=r"`input` .*must be (sizes such as 3x224x224|\(channels, height, width\))"
    ):
        find("resnet", ["depth=50"], input)
