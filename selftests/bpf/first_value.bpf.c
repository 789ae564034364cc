// SPDX-License-Identifier: GPL-2.0-only
/*
 * Look up both directions of a flow that is not there yet, and keep the first value that was found
 * of each: a value has to be complete as soon as it can be found.
 */
#include "vmlinux.h"

#include <bpf/bpf_helpers.h>

#include "flowmap.h"

#define LOOKUPS 64

struct first_value {
	__u32 found;
	__u32 padding;
	struct flow_key key;
	struct flow_value value;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct first_value);
} first_values SEC(".maps");

SEC("xdp")
int keep_first_values(struct xdp_md *ctx)
{
	struct first_value *first;
	struct flow_value *value;

	for (int i = 0; i < LOOKUPS; i++) {
		__u32 direction = i & 1;

		first = bpf_map_lookup_elem(&first_values, &direction);
		if (!first || first->found)
			continue;
		value = bpf_map_lookup_elem(&flows, &first->key);
		if (!value)
			continue;
		first->value = *value;
		first->found = 1;
	}
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "GPL";
