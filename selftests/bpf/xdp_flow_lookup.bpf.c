// SPDX-License-Identifier: GPL-2.0-only
/*
 * Look up the tuple of every packet in a flow map, count hits and misses, and pass the packet to
 * the stack. Packets that packet_parse.h cannot parse count as UNPARSED.
 */
#include "vmlinux.h"

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "counters.h"
#include "flowmap.h"
#include "packet_parse.h"

enum counter { HIT_ORIGINAL, HIT_REPLY, MISS, UNPARSED, ALIASED };

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct flow_value);
} last_values SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct flow_key);
} last_key SEC(".maps");

SEC("xdp")
int xdp_flow_lookup(struct xdp_md *ctx)
{
	struct flow_value *value;
	struct flow_key key = {};
	__u32 slot = 0;

	if (!parse_key(ctx, &key)) {
		count(UNPARSED);
		return XDP_PASS;
	}
	bpf_map_update_elem(&last_key, &slot, &key, BPF_ANY);

	value = bpf_map_lookup_elem(&flows, &key);
	if (!value) {
		count(MISS);
		return XDP_PASS;
	}

	/* Version 0 of the series returned a pointer to the caller's key (clause V0-3). */
	if ((void *)value == (void *)&key)
		count(ALIASED);
	slot = value->dir & 1;
	count(slot ? HIT_REPLY : HIT_ORIGINAL);
	bpf_map_update_elem(&last_values, &slot, value, BPF_ANY);
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "GPL";
