"""The results as a Markdown table and a plot."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.figure import Figure

METHODS = {"full": "all weights", "pranc": "PRANC", "small": "a narrower network", "pruned": "pruned"}
_LOOKS = {"full": ("#5a5a5a", "*"), "pranc": ("#b3001b", "o"), "small": ("#0060a8", "s"), "pruned": ("#2a7f3f", "^")}

Record = dict[str, Any]


def name(record: Record) -> str:
    """A record in words."""
    if record["method"] == "full":
        return "all weights"
    if record["method"] == "pranc":
        shape = f"{record['structure']} of {record['rows']}" if record["rows"] else record["structure"]
        nested = ", nested" if record["nested"] else ""
        return f"PRANC, k = {record['k']:,} ({record['basis']}, {shape}{nested})"
    return f"{METHODS[record['method']]}, bytes of k = {record['k']:,}"


def table(records: Sequence[Record]) -> str:
    """A row for every record."""
    lines = [
        "| | numbers trained | file, bytes | of that apart | bits a number | test accuracy | epochs × pictures |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    order = {method: i for i, method in enumerate(METHODS)}
    for r in sorted(records, key=lambda r: (r["k"], order[r["method"]], r["structure"], r["basis"], r["nested"])):
        bits = 8 * (r["bytes"] - r["bytes_apart"]) / r["numbers"]
        lines.append(
            f"| {name(r)} | {r['numbers']:,} | {r['bytes']:,} | {r['bytes_apart']:,} | {bits:.2f} "
            f"| {100 * r['accuracy']:.2f} % | {r['epochs'] + r.get('prune_epochs', 0)} × {r['pictures']:,} |"
        )
    return "\n".join(lines)


def plot(records: Sequence[Record], title: str) -> bytes:
    """Accuracy against bytes, SVG."""
    with matplotlib.rc_context({"font.size": 9, "svg.hashsalt": "prancimg", "svg.fonttype": "path"}):
        figure = Figure((7, 4.2), layout="constrained")
        axes = figure.add_subplot()
        for method, (colour, marker) in _LOOKS.items():
            points = sorted((r["bytes"], 100 * r["accuracy"]) for r in records if r["method"] == method)
            if points:
                sizes, heights = zip(*points, strict=True)
                axes.plot(sizes, heights, marker + "-", color=colour, label=METHODS[method], linewidth=1.5)
        axes.set_xscale("log")
        axes.set_xlabel("bytes of the file, logarithmic")
        axes.set_ylabel("test accuracy, %")
        axes.set_title(title, fontsize=9)
        axes.grid(color="#e4e4e4", linewidth=0.6)
        axes.legend(frameon=False)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
        return buffer.getvalue()
