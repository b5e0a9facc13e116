"""The benchmark of learning codes a file's own integers again, at every pace."""

import json
import sys

import pytest

from benchmarks.learning.__main__ import main, measure
from prancimg.format.header import FROZEN
from tools.make_golden import field


@pytest.fixture
def files(tmp_path):
    """Fields of the same integers whose context models learn differently, the last without the finest level."""
    made = {"still": {}, "fast": {"pace": 3}, "coarse": {"levels": (1, 2)}}
    for name, how in made.items():
        (tmp_path / f"{name}.prc").write_bytes(field(40, 30, **{"levels": (0, 1), "adapted": FROZEN, **how}))
    return [tmp_path / f"{name}.prc" for name in made]


def test_figures_do_not_depend_on_how_a_file_was_coded(files):
    still, fast = ([(row["pace"], row["bits"], row["finest"]) for row in measure(path)] for path in files[:2])
    assert still == fast and [pace for pace, *_ in still] == [0, 1, 2, 3] and len({bits for _, bits, _ in still}) > 1


def test_every_file_is_a_row(files, tmp_path, monkeypatch, capsys):
    out = tmp_path / "results.json"
    monkeypatch.setattr(sys, "argv", ["learning", *map(str, files), "--out", str(out)])
    main()
    rows = capsys.readouterr().out.splitlines()[2:]
    assert len(json.loads(out.read_text())) == 12 and len(rows) == 3
    assert rows[0].count("%") == 5 and rows[2].count("%") == 4, "there is no finest level"
