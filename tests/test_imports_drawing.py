"""The drawing of the imports between folders: without what goes without saying, and up to date."""

from tools.draw_imports import OUT, drawing, imports, reduced


def test_arrows_that_others_lead_along_are_left_out():
    edges = {("a", "b"), ("b", "c"), ("a", "c"), ("c", "d"), ("a", "d"), ("e", "d")}
    assert reduced(edges) == {("a", "b"), ("b", "c"), ("c", "d"), ("e", "d")}


def test_the_committed_drawing_is_up_to_date():
    assert OUT.read_text(encoding="utf-8") == drawing(imports()), "run python -m tools.draw_imports"
