"""The specification names the constants that the code has."""

from pathlib import Path

import pytest

from prancimg.format import range_coder
from prancimg.format.bitstream import SIGNATURE
from prancimg.format.header import STEPS
from prancimg.format.layout import SCALES
from prancimg.network import context_features, prior

DOCS = Path(__file__).parents[1] / "docs"


def test_the_format_page_has_every_constant():
    page = " ".join((DOCS / "format.md").read_text().split())
    assert SIGNATURE[:4].hex(" ").upper() in page and SIGNATURE[4:].hex(" ").upper() in page
    assert ", ".join(map(str, range_coder._DECAY)) in page
    assert f"(0 … {STEPS - 1})" in page and f"(0 … {SCALES - 1})" in page
    assert ", ".join(str(height) for _, height in context_features._KNOTS) in page.replace(" is 0,", " 0,")
    for number, digest in prior._DIGESTS.items():
        assert f"| {number} | `{digest}` |" in page


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page):
    for part in page.read_text().split("](")[1:]:
        target = part.partition(")")[0].partition("#")[0]
        assert "://" in target or (page.parent / target).exists(), target
