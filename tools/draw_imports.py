"""Draw which folders of the package import which: ``docs/imports.svg``, from the same graph as ``make lint`` checks.

python -m tools.draw_imports [OUT.svg]
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import grimp

FLOORS = (("apps",), ("codec",), ("fit",), ("decoding", "pranc"), ("network", "images"), ("format",))
"""From the top; rooms of one floor know nothing of each other."""
OUT = Path(__file__).parents[1] / "docs" / "imports.svg"
WIDTH, HEIGHT, ROOM, GAP = 640, 430, 150, 74


def imports() -> Counter[tuple[str, str]]:
    """How many imports lead from one room to another."""
    graph = grimp.build_graph("prancimg", exclude_type_checking_imports=True)
    rooms = {room for floor in FLOORS for room in floor}
    found: Counter[tuple[str, str]] = Counter()
    for importer in sorted(graph.modules):
        for imported in sorted(graph.find_modules_directly_imported_by(importer)):
            ends = [name.split(".")[1] if "." in name else "" for name in (importer, imported)]
            if ends[0] != ends[1] and rooms.issuperset(ends):
                found[ends[0], ends[1]] += 1
    return found


def drawing() -> str:
    """The SVG."""
    places = {}
    for row, floor in enumerate(FLOORS):
        for column, room in enumerate(floor):
            across = WIDTH * (column + 1) / (len(floor) + 1)
            places[room] = (across, 30 + row * GAP)
    style = "text{font:14px sans-serif;text-anchor:middle}path{fill:none;stroke:#888}rect{fill:#eef;stroke:#557}"
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"><style>{style}</style>']
    out.append('<defs><marker id="a" markerWidth="8" markerHeight="8" refX="7" refY="4" orient="auto">')
    out.append('<path d="M0,0L8,4L0,8z" style="fill:#888"/></marker></defs>')
    for (start, end), number in sorted(imports().items()):
        (x0, y0), (x1, y1) = places[start], places[end]
        side = 1 if x0 + x1 >= WIDTH else -1
        bend = side * 62 * max(0, (y1 - y0) / GAP - 1)  # past the floors between
        path = f"M{x0:.0f},{y0 + 16} Q{(x0 + x1) / 2 + bend:.0f},{(y0 + y1) / 2:.0f} {x1:.0f},{y1 - 17}"
        out.append(f'<path d="{path}" marker-end="url(#a)" stroke-width="{1 + number / 12:.1f}">')
        out.append(f"<title>{start} → {end}: {number} imports</title></path>")
    for room, (x, y) in places.items():
        out.append(f'<rect x="{x - ROOM / 2:.0f}" y="{y - 16}" width="{ROOM}" height="32" rx="6"/>')
        out.append(f'<text x="{x:.0f}" y="{y + 5}">{room}</text>')
    return "\n".join([*out, "</svg>\n"])


if __name__ == "__main__":
    (Path(sys.argv[1]) if len(sys.argv) > 1 else OUT).write_text(drawing(), encoding="utf-8")
