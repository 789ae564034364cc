// SPDX-License-Identifier: GPL-2.0-only
/*
 * Look a flow up and read both MAC addresses of its value, each in one aligned access of 8 bytes.
 * A count for each address that was one of the expected ones, zero, or anything else.
 */
#include "vmlinux.h"

#include <bpf/bpf_helpers.h>

#include "counters.h"
#include "flowmap.h"

/* Slots of `counters`, for h_dest and, after DEST_SLOTS, for h_source. */
enum counter { EXPECTED, ZERO, OTHER, DEST_SLOTS };

#define MISS (2 * DEST_SLOTS)
#define CHOICES 2

struct expectation {
	struct flow_key key;
	__u64 dest[CHOICES];
	__u64 source[CHOICES];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct expectation);
} expected SEC(".maps");

static __always_inline void count_address(__u64 seen, const __u64 *choices, __u32 slots)
{
	if (seen == choices[0] || seen == choices[1])
		count(slots + EXPECTED);
	else
		count(slots + (seen ? OTHER : ZERO));
}

SEC("xdp")
int read_macs(struct xdp_md *ctx)
{
	struct expectation *want;
	struct flow_value *value;
	__u32 slot = 0;

	want = bpf_map_lookup_elem(&expected, &slot);
	if (!want)
		return XDP_ABORTED;
	value = bpf_map_lookup_elem(&flows, &want->key);
	if (!value) {
		count(MISS);
		return XDP_PASS;
	}
	count_address(*(volatile __u64 *)value->h_dest, want->dest, 0);
	count_address(*(volatile __u64 *)value->h_source, want->source, DEST_SLOTS);
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "GPL";
