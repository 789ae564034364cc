# SPDX-License-Identifier: GPL-2.0-only
"""Stores in x86-64 machine code: bpf_map_register_ops() as gcc translates it, and other forms."""

from fixtures.guest.kernel.store_instructions import store_offsets

_CHECK_AND_STORE = bytes.fromhex(
    "48c7c700514b82"  # mov $bpf_modular_map_mutex,%rdi
    "e8157c4e00"  # call mutex_lock
    "48833d348f380100"  # cmpq $0,slot(%rip)
    "7509"  # jne
    "48891d2b8f3801"  # mov %rbx,slot(%rip)
    "31ed"  # xor %ebp,%ebp
)


def test_store_to_slot_is_found_and_register_moves_are_not() -> None:
    assert store_offsets(_CHECK_AND_STORE) == [22]
    assert store_offsets(bytes.fromhex("4889f3" + "4883c408" + "c3")) == []  # mov %rsi,%rbx


def test_exchanges_are_found_with_their_lock_prefix() -> None:
    assert store_offsets(bytes.fromhex("90" + "f0480fb11d00000000")) == [1]
    assert store_offsets(bytes.fromhex("90" + "48871d00000000")) == [1]
