# SPDX-License-Identifier: GPL-2.0-only
"""Result cache: which results are found again, and after which changes they are not."""

from pathlib import Path

import pytest

from fixtures.host.model.mutation_results import BOOT, MutantResult, MutantStatus
from fixtures.host.mutation import result_cache
from fixtures.host.mutation.result_cache import ResultCache, SourceHashes, hash_sources
from fixtures.host.util.paths import ROOT
from tests.unit.host.mutation.mutation_samples import KILLED, SOURCES, SURVIVED, make_mutant


def test_result_is_found_with_same_sources_only(tmp_path: Path) -> None:
    mutant = make_mutant(tmp_path)
    ResultCache(tmp_path / "cache", SOURCES).store(mutant, KILLED)
    assert ResultCache(tmp_path / "cache", SOURCES).find(mutant) == KILLED
    other = SourceHashes("another profile", SOURCES.tests)
    assert ResultCache(tmp_path / "cache", other).find(mutant) is None


@pytest.mark.parametrize(
    ("fate", "test", "changed", "found"),
    [
        (MutantStatus.KILLED, "selftests/lookup/t.py::t", "selftests/lookup/t.py", False),
        (MutantStatus.KILLED, "selftests/lookup/t.py::t", "selftests/lookup/u.py", True),
        (MutantStatus.KILLED, "selftests/lookup/t.py::t", "selftests/new/v.py", True),
        (MutantStatus.KILLED, BOOT, "selftests/lookup/t.py", True),
        (MutantStatus.SURVIVED, "", "selftests/lookup/u.py", False),
        (MutantStatus.SURVIVED, "", "selftests/new/v.py", False),
    ],
)
def test_kill_depends_on_its_test_file_and_survival_on_all(
    tmp_path: Path, fate: MutantStatus, test: str, changed: str, found: bool
) -> None:
    mutant, result = make_mutant(tmp_path), MutantResult("a-bug", fate, test=test)
    ResultCache(tmp_path / "cache", SOURCES).store(mutant, result)
    later = SourceHashes(SOURCES.common, {**SOURCES.tests, changed: "b"})
    assert ResultCache(tmp_path / "cache", later).find(mutant) == (result if found else None)


def test_hashed_test_files_are_those_that_pytest_collects() -> None:
    found = hash_sources("a hash", {}, {})
    assert "selftests/lookup/test_hit.py" in found.tests
    assert "selftests/races/interleavings.py" not in found.tests
    assert found.common != hash_sources("another hash", {}, {}).common


def test_common_hash_depends_on_environment() -> None:
    hashes = [
        hash_sources("a hash", {}, environment).common
        for environment in ({"qemu": "7.2"}, {"qemu": "9.2"}, {"accelerator": "7.2"})
    ]
    assert len(set(hashes)) == 3


def test_result_is_not_found_on_other_kernel(tmp_path: Path) -> None:
    mutant = make_mutant(tmp_path)
    kernels = {mutant.profile: "7.3.4", "other": "1"}
    sources = SourceHashes(SOURCES.common, SOURCES.tests, kernels)
    ResultCache(tmp_path / "cache", sources).store(mutant, KILLED)
    same = SourceHashes(SOURCES.common, SOURCES.tests, {mutant.profile: "7.3.4"})
    assert ResultCache(tmp_path / "cache", same).find(mutant) == KILLED
    other = SourceHashes(SOURCES.common, SOURCES.tests, {mutant.profile: "7.3.5"})
    assert ResultCache(tmp_path / "cache", other).find(mutant) is None


def test_all_results_are_read_whatever_their_sources(tmp_path: Path) -> None:
    ResultCache(tmp_path / "cache", SOURCES).store(make_mutant(tmp_path), KILLED)
    other = ResultCache(tmp_path / "cache", SourceHashes("other tests", {}))
    other.store(make_mutant(tmp_path, "b-bug"), SURVIVED)
    (tmp_path / "cache/broken.json").write_text("{")
    assert sorted(result.name for result in other.all_results()) == ["a-bug", "b-bug"]


def test_changed_patch_is_not_found(tmp_path: Path) -> None:
    mutant = make_mutant(tmp_path)
    cache = ResultCache(tmp_path / "cache", SOURCES)
    cache.store(mutant, KILLED)
    mutant.path.write_text("changed")
    assert cache.find(mutant) is None


@pytest.mark.parametrize("fate", [MutantStatus.BUILD_FAILED, MutantStatus.INCONCLUSIVE])
def test_inconclusive_result_is_not_stored(tmp_path: Path, fate: MutantStatus) -> None:
    mutant = make_mutant(tmp_path)
    cache = ResultCache(tmp_path / "cache", SOURCES)
    cache.store(mutant, MutantResult("a-bug", fate))
    assert cache.find(mutant) is None


def test_hashed_directories_exist() -> None:
    for folder in result_cache._SOURCE_DIRS:
        assert (ROOT / folder).is_dir(), folder


def test_every_host_package_decides_results_or_is_named_as_other() -> None:
    packages = {path.parent.name for path in (ROOT / "fixtures/host").glob("*/__init__.py")}
    hashed = {Path(name).name for name in result_cache._SOURCE_DIRS if "/host/" in name}
    assert packages == hashed | result_cache.OTHER_PACKAGES
    assert not hashed & result_cache.OTHER_PACKAGES
