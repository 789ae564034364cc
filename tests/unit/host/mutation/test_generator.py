# SPDX-License-Identifier: GPL-2.0-only
"""Generated mutants: they change only lines of the series, and their patches apply."""

from pathlib import Path

import pytest

from fixtures.host.kernel.patch_series import PatchSeries
from fixtures.host.mutation import generator
from fixtures.host.mutation.equivalent_mutants import EquivalentMutant
from fixtures.host.mutation.mutant import load_all
from fixtures.host.util.errors import UserError
from fixtures.host.util.subprocess_util import run

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
	spin_lock(&it);
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
def series(tree: Path, tmp_path: Path) -> PatchSeries:
    return _series(tree, tmp_path, AFTER)


def _series(tree: Path, tmp_path: Path, after: str) -> PatchSeries:
    (tmp_path / "new.c").write_text(after)
    argv = ["git", "diff", "--no-index", "--no-prefix", "tree/net/netfilter/x.c", "new.c"]
    diff = run(argv, cwd=tmp_path, check=False).stdout
    diff = diff.replace("tree/net/netfilter/x.c", "a/net/netfilter/x.c")
    diff = diff.replace(" new.c", " b/net/netfilter/x.c")
    return PatchSeries(tree, "patches", (("0001.patch", diff.encode()),))


def test_generated_patches_change_only_added_lines(
    series: PatchSeries, tree: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "made"
    generator.generate(series, tree, folder)
    found = load_all(folder, [])
    assert len(found) == 2
    profiles = {mutant.subject: mutant.profile for mutant in found}
    assert profiles == {"without spin_lock(&it)": "debug", "8 for 7 in return 7;": "base"}
    assert {mutant.clauses for mutant in found} == {("SN",)}
    assert {mutant.patch for mutant in found} == {1}


UNWINDING = """
int unwinding(void)
{
	if (fill(a))
		goto undo;
	return done(a);

undo:
	drop(a);
	kfree(a);
	a->b = NULL;
	return -ENOMEM;
}
"""


def test_profile_is_chosen_by_kind_of_change(tree: Path, tmp_path: Path) -> None:
    folder = tmp_path / "made"
    generator.generate(_series(tree, tmp_path, BEFORE + UNWINDING), tree, folder)
    assert {mutant.subject: mutant.profile for mutant in load_all(folder, [])} == {
        "if not (fill(a))": "base",
        "without drop(a)": "debug",  # only with fault injection
        "without kfree(a)": "leak",
        "without a->b = NULL": "debug",
        "-EINVAL for -ENOMEM": "debug",
    }


LOOPING = """
int looping(void)
{
	if ((u32)thing >= __MAX_THING)
		return 8;
	for (i = 0; i < THINGS_MAX; i++)
		a[i] = b;
	return 7;
}
"""


def test_out_of_bounds_index_gets_profile_with_ubsan(tree: Path, tmp_path: Path) -> None:
    folder = tmp_path / "made"
    generator.generate(_series(tree, tmp_path, BEFORE + LOOPING), tree, folder)
    profiles = {mutant.subject: mutant.profile for mutant in load_all(folder, [])}
    assert profiles["<= in i < THINGS_MAX"] == "debug"
    assert profiles["> in (u32)thing >= __MAX_THING"] == "debug"
    assert profiles["1 for 0 in i = 0"] == "base"


def test_generated_patches_apply_on_top_of_series(
    series: PatchSeries, tree: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "made"
    generator.generate(series, tree, folder)
    (tree / "net/netfilter/x.c").write_text(AFTER)
    for mutant in load_all(folder, []):
        run(["git", "apply", "--check", mutant.path], cwd=tree)


def test_equivalent_mutant_has_survives_header(
    series: PatchSeries, tree: Path, tmp_path: Path
) -> None:
    change = "without spin_lock(&it)"
    known = EquivalentMutant("net/netfilter/x.c", "fresh", change, "no concurrency yet")
    generator.generate(series, tree, tmp_path / "made", [known])
    survives = {mutant.subject: mutant.survives for mutant in load_all(tmp_path / "made", [])}
    assert survives == {change: known.reason, "8 for 7 in return 7;": ""}


@pytest.mark.parametrize(
    ("function", "change"), [("old", "8 for 7 in return 7;"), ("fresh", "9 for 7")]
)
def test_equivalent_without_matching_change_is_rejected(
    series: PatchSeries, tree: Path, tmp_path: Path, function: str, change: str
) -> None:
    stale = EquivalentMutant("net/netfilter/x.c", function, change, "no concurrency yet")
    with pytest.raises(UserError, match=f"no change '.*' in {function}"):
        generator.generate(series, tree, tmp_path / "made", [stale])


def test_sample_depends_only_on_seed() -> None:
    names = [f"change-{number}" for number in range(20)]
    drawn = generator.sample(names, range(5), 1)
    assert drawn == generator.sample(reversed(names), range(5), 1)
    assert drawn != generator.sample(names, range(5), 2)
    assert len(set(generator.sample(names, range(99), 1))) == 20


def test_sample_ranges_of_same_seed_are_consecutive() -> None:
    names = [f"change-{number}" for number in range(20)]
    first, rest = (generator.sample(names, part, 1) for part in (range(5), range(5, 20)))
    assert first + rest == generator.sample(names, range(20), 1)
    assert generator.sample(names, range(20, 30), 1) == []
