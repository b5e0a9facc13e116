"""Draw which folders of the package import which: ``docs/imports.svg``, from the same graph as ``make lint`` checks.

python -m tools.draw_imports [OUT.svg]

An arrow is left out where others lead the same way; the small print of a room names the rooms at its end.
"""

from __future__ import annotations

import sys
from pathlib import Path

import grimp

FLOORS = (("apps",), ("codec",), ("fit",), ("decoding", "pranc"), ("images", "network"), ("format",))
"""From the top; rooms of one floor know nothing of each other."""
OUT = Path(__file__).parents[1] / "docs" / "imports.svg"
WIDTH, ROOM, FLOOR, GAP = 560, 200, 44, 32
"""Of the drawing, a room across and down, and between two floors."""
STYLE = (
    "text{font:600 15px sans-serif;text-anchor:middle}text.small{font:11px sans-serif;fill:#666}"
    "path{fill:none;stroke:#557;stroke-width:1.5}path.head{fill:#557;stroke:none}rect{fill:#eef;stroke:#557}"
)


def imports() -> set[tuple[str, str]]:
    """Pairs of rooms of which the first imports the second."""
    graph = grimp.build_graph("prancimg", exclude_type_checking_imports=True)
    rooms = {room for floor in FLOORS for room in floor}
    found = set()
    for importer in graph.modules:
        for imported in graph.find_modules_directly_imported_by(importer):
            importing, other = ([*name.split("."), ""][1] for name in (importer, imported))
            if importing != other and rooms.issuperset((importing, other)):
                found.add((importing, other))
    return found


def reduced(edges: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """The edges without those that a longer way leads along: the transitive reduction."""

    def reaches(start: str, end: str) -> bool:
        return any(there == end or reaches(there, end) for here, there in edges if here == start)

    return {
        (start, end)
        for start, end in edges
        if not any(here == start and there != end and reaches(there, end) for here, there in edges)
    }


def drawing(edges: set[tuple[str, str]]) -> str:
    """The SVG."""
    drawn = reduced(edges)
    places = {
        room: (WIDTH * (column + 1) // (len(floor) + 1) if len(floor) == 1 else WIDTH * (1 + 2 * column) // 4, row)
        for row, floor in enumerate(FLOORS)
        for column, room in enumerate(floor)
    }
    height = len(FLOORS) * (FLOOR + GAP) - GAP + 20
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}">', f"<style>{STYLE}</style>"]
    out.append('<defs><marker id="head" markerWidth="9" markerHeight="8" refX="8" refY="4" orient="auto">')
    out.append('<path class="head" d="M0,0L9,4L0,8z"/></marker></defs>')
    for start, end in sorted(drawn):
        (x0, row0), (x1, row1) = places[start], places[end]
        top, bottom = 10 + row0 * (FLOOR + GAP) + FLOOR, 10 + row1 * (FLOOR + GAP)
        lean = (x1 - x0) // 4
        out.append(f'<path d="M{x0 + lean},{top} L{x1 - lean},{bottom - 1}" marker-end="url(#head)"/>')
    for room, (x, row) in places.items():
        y = 10 + row * (FLOOR + GAP)
        also = [other for floor in FLOORS for other in floor if (room, other) in edges - drawn]
        out.append(f'<rect x="{x - ROOM // 2}" y="{y}" width="{ROOM}" height="{FLOOR}" rx="6"/>')
        out.append(f'<text x="{x}" y="{y + (18 if also else 27)}">{room}</text>')
        if also:
            out.append(f'<text class="small" x="{x}" y="{y + 35}">and {", ".join(also)}</text>')
    return "\n".join([*out, "</svg>\n"])


if __name__ == "__main__":
    (Path(sys.argv[1]) if len(sys.argv) > 1 else OUT).write_text(drawing(imports()), encoding="utf-8")
