# SPDX-License-Identifier: GPL-2.0-only
"""Clients of the flow map: bpftool, libbpf, loops of common loaders, xdp-tools."""
