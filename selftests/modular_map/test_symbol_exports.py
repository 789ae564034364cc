# SPDX-License-Identifier: GPL-2.0-only
"""The licence that a module needs to use the symbols which the series exports."""

from pathlib import Path

import pytest

from fixtures.flowmap import series
from fixtures.guest.bpf import dummy_map_module
from fixtures.guest.core.expect_errno import errno_of
from fixtures.guest.kernel import modules
from fixtures.guest.kernel.module_file import FOUND_ERRNO, NOT_FOUND_ERRNO, ModuleFile
from fixtures.guest.pytest_plugin.plugin_api import require_suite_module

_GPL_PREFIXES = ("bpf_map_", "generic_map_", "nf_flow_snoop_")
"""Prefixes of the symbols that the series exports for modules with map types."""
_PLAIN_EXPORT = "kfree"
"""A symbol of another export (EXPORT_SYMBOL), which a module of any licence may use."""


def _load_errno(path: Path) -> int:
    def load() -> int:
        modules.load_file(path)
        raise AssertionError("the module was loaded")

    return errno_of(load)


@pytest.mark.clause("MM-1.2")
def test_registration_symbols_are_gpl_only(flowmap_unloaded: None, tmp_path: Path) -> None:  # noqa: ARG001
    """A module without a GPL licence cannot use the series' symbols: they are not found for it.

    "GPL exports" (MM-1), shown for the two functions of the registration and for every other
    symbol of the series that a module with a map type imports.
    """
    require_suite_module(dummy_map_module.MODULE)
    # Exports of nf_flow_table exist only while it is loaded.
    modules.modprobe(modules.FLOWTABLE_MODULE)
    copy = tmp_path / "copy.ko"
    tried: set[str] = set()
    for name in (dummy_map_module.MODULE, modules.FLOWMAP_MODULE):
        module = ModuleFile(modules.module_path(name))
        symbols = {symbol for symbol in module.imports() if symbol.startswith(_GPL_PREFIXES)}
        for symbol in sorted(symbols - tried):
            module.write_importing_only(symbol, copy)
            assert _load_errno(copy) == FOUND_ERRNO, f"{symbol} of {name}, licence GPL"
            module.write_importing_only(symbol, copy, "MIT")
            assert _load_errno(copy) == NOT_FOUND_ERRNO, f"{symbol} of {name}, licence MIT"
        tried |= symbols
        # Control: the licence alone is no reason.
        module.write_importing_only(_PLAIN_EXPORT, copy, "MIT")
        assert _load_errno(copy) == FOUND_ERRNO, f"{_PLAIN_EXPORT} of {name}, licence MIT"
    assert tried >= set(series.EXPORTED_SYMBOLS)
    assert not modules.loaded(dummy_map_module.MODULE)
    assert not modules.loaded(modules.FLOWMAP_MODULE)
