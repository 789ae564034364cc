# SPDX-License-Identifier: GPL-2.0-only
"""Kernel options: parsing and formatting are inverse."""

from argparse import ArgumentParser
from pathlib import Path

import pytest

from fixtures.host.kernel.kernel_cli_options import (
    KernelOptions,
    add_options,
    from_namespace,
    to_arguments,
)
from fixtures.host.util.paths import ROOT


@pytest.mark.parametrize(
    "options",
    [
        KernelOptions(),
        KernelOptions(tree=Path("/a b"), apply_series=True, allow_dirty=True, patches="2"),
        KernelOptions(tarball=Path("/t"), tarball_sha256="0", mutant=Path("/m")),
        KernelOptions(compiler="clang-19"),
        KernelOptions(image=Path("/i"), modules=Path("/o")),
    ],
    ids=["none", "tree", "tarball", "compiler", "image"],
)
def test_formatted_options_parse_to_equal_options(options: KernelOptions) -> None:
    parser = ArgumentParser()
    add_options(parser.add_argument)
    assert from_namespace(parser.parse_args(to_arguments(options))) == options


def test_path_in_project_is_relative() -> None:
    inside = Path("patches/a.patch")
    assert to_arguments(KernelOptions(mutant=ROOT / inside)) == ["--mutant", str(inside)]
