"""What a context model that learns while it codes is worth, on finished files: the same integers, at every pace.

    python -m benchmarks.learning FILE.prc... --out results.json

Nothing is fitted again, so that this is the least it is worth: the coefficients were chosen for what their file does.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.kodak.curves import markdown
from prancimg.decoding.decoder import Model, read_coefficients, read_field
from prancimg.format.bitstream import Segment, read_header
from prancimg.format.header import MAX_PACE
from prancimg.format.layout import Pyramid
from prancimg.network import context
from prancimg.network.field import Coefficients
from prancimg.network.siren import FRACTION

Row = dict[str, float | int | str]


def measure(path: Path) -> list[Row]:
    """Bits of a file's field by pace and level, and the seconds of processor time to decode all of it."""
    header, segments = read_header(path.read_bytes())
    theta = Model.of(header).parameters(read_coefficients(header, segments), header.tensors)
    pyramid, q, rows = header.pyramid, read_field(header, segments, theta), []
    field = range(Segment.FIELD_0, Segment.FIELD_6 + 1)
    apart = 8 * sum(len(payload) for kind, payload in segments.items() if kind not in field)
    for pace in range(MAX_PACE + 1):
        nets = context.networks(theta, FRACTION, header.rate, pace)
        levels = range(pyramid.levels)
        stream = context.encode_field(pyramid, q, nets, levels)
        began = time.process_time()
        decoded = context.decode_field(pyramid, stream, nets, levels, {})
        seconds = time.process_time() - began
        assert all(np.array_equal(decoded[key], q[key]) for key in q)
        finest = context.cost(pyramid, q, nets) - context.cost(coarser(pyramid, 1), above(q, 1), nets)
        rows.append(
            {
                "file": "/".join(path.parts[-2:]),
                "bpp": 8 * path.stat().st_size / (header.width * header.height),
                "pace": pace,
                "bits": 8 * len(stream),
                "finest": finest,
                "apart": apart,
                "seconds": seconds,
            }
        )
    return rows


def coarser(pyramid: Pyramid, level: int) -> Pyramid:
    """Without the grids below a level."""
    return replace(pyramid, luma_from=max(pyramid.luma_from, level), chroma_from=max(pyramid.chroma_from, level))


def above(q: Coefficients, level: int) -> Coefficients:
    """The grids from a level up."""
    return {key: grid for key, grid in q.items() if key[1] >= level}


def table(results: list[Row]) -> str:
    """File by file: its bits at every pace relative to those without learning, and at the best one; level 0 alone."""
    rows = []
    for still, *moving in (results[i : i + MAX_PACE + 1] for i in range(0, len(results), MAX_PACE + 1)):
        whole = [float(row["bits"]) + float(row["apart"]) for row in (still, *moving)]
        best = int(np.argmin(whole))
        finest, before = (float(row["finest"]) for row in ((still, *moving)[best], still))
        cells = [f"{100 * (bits / whole[0] - 1):+.2f} %" for bits in (*whole[1:], min(whole))]
        times = f"{float(still['seconds']):.2f} s", f"{float(moving[1]['seconds']):.2f} s"
        rows.append(
            [
                str(still["file"]),
                f"{float(still['bpp']):.3f}",
                *cells,
                f"{100 * (finest / before - 1):+.2f} %" if before else "",
                *times,
            ]
        )
    return markdown(["", "bpp", "pace 1", "pace 2", "pace 3", "best", "of it level 0", "decoding", "at pace 2"], rows)


def main() -> None:
    """Parse the command line, measure, print and write a JSON file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    results: list[Row] = []
    for path in args.files:
        results += measure(path)
        args.out.write_text(json.dumps(results, indent=1) + "\n")
    print(table(results), end="")


if __name__ == "__main__":
    main()
