// SPDX-License-Identifier: GPL-2.0-only
/*
 * Lookups where the program may sleep, which are refused when it is loaded (clause MM-9): a
 * value is only kept for an RCU read side section.  Of its own maps the verifier knows at
 * once which suit such a program; what is in a map of maps it sees at the call.
 */
#include "vmlinux.h"

#include <bpf/bpf_helpers.h>

#include "flowmap.h"

struct {
	__uint(type, BPF_MAP_TYPE_HASH_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} outer SEC(".maps");

static bool found_inside(void)
{
	struct flow_key key = {};
	__u32 first = 0;
	void *inner;

	inner = bpf_map_lookup_elem(&outer, &first);
	return inner && bpf_map_lookup_elem(inner, &key);
}

SEC("xdp")
int inside_awake(struct xdp_md *ctx)
{
	return found_inside() ? XDP_DROP : XDP_PASS;
}

SEC("syscall")
int inside(void *ctx)
{
	return found_inside();
}

SEC("syscall")
int itself(void *ctx)
{
	struct flow_key key = {};

	return bpf_map_lookup_elem(&flows, &key) ? 1 : 0;
}

char LICENSE[] SEC("license") = "GPL";
