# SPDX-License-Identifier: GPL-2.0-only
"""A test is skipped if BTF says that the kernel's flow tables lack a feature."""

import pytest

from fixtures.guest.kernel import btf, flow_table_features, modules


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Types of a kernel: structures, and the enumerators of ``enum nf_flow_flags``."""
    types: dict[str, object] = {"structs": {"flow_offload"}, "flags": {"NF_FLOW_SNAT": 0}}

    def struct_size(name: str, module: str) -> int:
        assert module == "nf_flow_table"
        structs = types["structs"]
        assert isinstance(structs, set)
        if name not in structs:
            raise LookupError(name)
        return 8

    monkeypatch.setattr(modules, "modprobe", lambda _: None)
    monkeypatch.setattr(btf, "struct_size", struct_size)
    monkeypatch.setattr(btf, "enum_values", lambda *_: types["flags"])
    return types


@pytest.mark.usefixtures("kernel")
def test_test_of_absent_feature_is_skipped_with_reason() -> None:
    with pytest.raises(pytest.skip.Exception, match="NF_FLOW_CLOSING"):
        flow_table_features.require("closing")
    with pytest.raises(pytest.skip.Exception, match="flow_offload_tunnel"):
        flow_table_features.require("tunnels")


def test_test_of_present_feature_runs(kernel: dict[str, object]) -> None:
    kernel["flags"] = {"NF_FLOW_SNAT": 0, "NF_FLOW_CLOSING": 2}
    kernel["structs"] = {"flow_offload", "flow_offload_tunnel"}
    for feature in ("closing", "tunnels"):
        flow_table_features.require(feature)


def test_kernel_without_types_of_flow_tables_is_an_error(kernel: dict[str, object]) -> None:
    """It would look like one that has no feature at all."""
    kernel["structs"] = set()
    with pytest.raises(LookupError):
        flow_table_features.require("closing")
    with pytest.raises(LookupError):
        flow_table_features.require("no such feature")
