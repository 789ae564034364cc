# SPDX-License-Identifier: GPL-2.0-only
"""Plots: which there are, what is in them, and that they can be compared byte by byte."""

from pathlib import Path

import pytest

from fixtures.host.bench import plots
from tests.unit.host.bench.bench_samples import bench, figure

pytest.importorskip("matplotlib", reason="only the environments bench and unit have it")

_RUN = bench(
    [
        figure("lookup", 1.0, 2.0, by="flow map"),
        figure("lookup", 2.0, by="kfunc"),
        figure("add", 900.0, tables=0),
        figure("add", 874.0, tables=0, profile="unpatched"),
        figure("dump at size", 3500.0, flows=1000),
        figure("dump at size", 3100.0, flows=10000),
    ]
)


def test_each_kind_of_figure_has_its_plot(tmp_path: Path) -> None:
    drawn = [path.name for path in plots.draw(_RUN, tmp_path)]
    assert drawn == ["lookup-counting.svg", "add.svg", "size.svg"]
    assert "unpatched" in (tmp_path / "add.svg").read_text()


def test_same_figures_make_the_same_file(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
        plots.draw(_RUN, folder)
    for path in first.iterdir():
        assert path.read_bytes() == (second / path.name).read_bytes()
