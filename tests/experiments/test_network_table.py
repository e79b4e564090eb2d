"""docs/networks.md is what `nas cost --list --markdown` prints."""

from pathlib import Path

from experiments.network_table import markdown
from searchspace.published.printed import rows

PAGE = Path(__file__).parents[2] / "docs" / "networks.md"


def test_the_page_of_published_networks_is_fresh() -> None:
    assert PAGE.read_text() == markdown(list(rows())) + "\n", "nas cost --list --markdown > docs/networks.md"
