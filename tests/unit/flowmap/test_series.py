# SPDX-License-Identifier: GPL-2.0-only
"""Constants of the series name files that exist."""

from fixtures.flowmap import series
from fixtures.host.config.vm_profile import load_profile
from fixtures.host.util.paths import ROOT


def test_patch_count_is_that_of_the_series_file() -> None:
    folder = load_profile("base").kernel.series
    assert folder is not None
    names = (ROOT / folder / "series").read_text().split()
    assert len(names) == series.PATCH_COUNT


def test_config_fragment_exists() -> None:
    assert (ROOT / "vmconfigs" / series.CONFIG_FRAGMENT).is_file()


def test_areas_include_every_selftests_folder_with_tests() -> None:
    folders = {path.parent.name for path in (ROOT / "selftests").glob("*/test_*.py")}
    assert folders <= set(series.AREAS)
