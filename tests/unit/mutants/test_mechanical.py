# SPDX-License-Identifier: GPL-2.0-only
"""Patches that a program makes: of the series' lines only, and such that they apply."""

from pathlib import Path

import pytest

from fixtures.host.kernel.series import Series
from fixtures.host.mutants import mechanical
from fixtures.host.mutants.mutant import load_all
from fixtures.host.run import run

BEFORE = """\
int old(void)
{
	return 1;
}
"""
AFTER = (
    BEFORE
    + """
int fresh(void)
{
	lock();
	return 7;
}
"""
)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    place = tmp_path / "tree/net/netfilter"
    place.mkdir(parents=True)
    (place / "x.c").write_text(BEFORE)
    return tmp_path / "tree"


@pytest.fixture
def series(tree: Path, tmp_path: Path) -> Series:
    (tmp_path / "new.c").write_text(AFTER)
    argv = ["git", "diff", "--no-index", "--no-prefix", "tree/net/netfilter/x.c", "new.c"]
    told = run(argv, cwd=tmp_path, check=False).stdout
    told = told.replace("tree/net/netfilter/x.c", "a/net/netfilter/x.c")
    told = told.replace(" new.c", " b/net/netfilter/x.c")
    return Series(tree, "patches", (("0001.patch", told.encode()),))


def test_patches_change_what_the_series_adds(series: Series, tree: Path, tmp_path: Path) -> None:
    folder = tmp_path / "made"
    assert mechanical.generate(series, tree, folder) == 2
    found = load_all(folder, [])
    assert {mutant.subject for mutant in found} == {"without lock()", "8 for 7"}
    assert {mutant.clauses for mutant in found} == {("SN",)}
    assert {mutant.patch for mutant in found} == {1}


def test_patches_apply_on_top_of_the_series(series: Series, tree: Path, tmp_path: Path) -> None:
    folder = tmp_path / "made"
    mechanical.generate(series, tree, folder)
    (tree / "net/netfilter/x.c").write_text(AFTER)
    for mutant in load_all(folder, []):
        run(["git", "apply", "--check", mutant.path], cwd=tree)


def test_sample_hangs_on_the_seed_alone(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"{number}.patch").touch()
    drawn = mechanical.sample(tmp_path, 5, 1)
    assert drawn == mechanical.sample(tmp_path, 5, 1)
    assert drawn != mechanical.sample(tmp_path, 5, 2)
    assert len(set(mechanical.sample(tmp_path, 99, 1))) == 20
