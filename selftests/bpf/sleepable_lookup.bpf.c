// SPDX-License-Identifier: GPL-2.0-only
/*
 * Flow map lookups in sleepable programs, which the verifier must refuse (clause MM-9): a value is
 * valid only within an RCU read-side critical section. The verifier checks the maps that a program
 * uses directly when it resolves them, and the inner maps of a map-in-map at the helper call.
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

static bool inner_map_hit(void)
{
	struct flow_key key = {};
	__u32 slot = 0;
	void *inner;

	inner = bpf_map_lookup_elem(&outer, &slot);
	return inner && bpf_map_lookup_elem(inner, &key);
}

SEC("xdp")
int inner_map_xdp(struct xdp_md *ctx)
{
	return inner_map_hit() ? XDP_DROP : XDP_PASS;
}

SEC("syscall")
int inner_map_sleepable(void *ctx)
{
	return inner_map_hit();
}

SEC("syscall")
int flowmap_sleepable(void *ctx)
{
	struct flow_key key = {};

	return bpf_map_lookup_elem(&flows, &key) ? 1 : 0;
}

char LICENSE[] SEC("license") = "GPL";
