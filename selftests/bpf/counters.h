/* SPDX-License-Identifier: GPL-2.0-only */
/* Counters of a program; the program defines the meaning of each slot. */
#ifndef COUNTERS_H
#define COUNTERS_H

#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 32);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

static __always_inline void count(__u32 slot)
{
	__u64 *value = bpf_map_lookup_elem(&counters, &slot);

	if (value)
		__sync_fetch_and_add(value, 1);
}

#endif
