# SPDX-License-Identifier: GPL-2.0-only
"""Constants of the series name files that exist."""

from fixtures.flowmap import series
from fixtures.host.util.paths import ROOT


def test_patch_dir_has_series_file() -> None:
    assert (ROOT / series.PATCH_DIR / "series").is_file()


def test_config_fragment_exists() -> None:
    assert (ROOT / "vmconfigs" / series.CONFIG_FRAGMENT).is_file()


def test_areas_include_every_selftests_folder_with_tests() -> None:
    folders = {path.parent.name for path in (ROOT / "selftests").glob("*/test_*.py")}
    assert folders <= set(series.AREAS)
