// SPDX-License-Identifier: GPL-2.0-only
/*
 * Programs of several types that look up the key in lookup_key and write what they found to
 * lookup_result. The packet that they run on does not matter.
 */
#include "vmlinux.h"

#include <bpf/bpf_helpers.h>

#include "flowmap.h"

#define TC_ACT_OK 0

struct lookup_result {
	__u32 lookups; /* number of lookups so far */
	__u32 hit; /* whether the last lookup found a value */
	struct flow_value value;
};

/* Read the whole value, or only version 0 of it, which every map has. */
enum value_part { WHOLE, VER0 };

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct flow_key);
} lookup_key SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct lookup_result);
} lookup_result SEC(".maps");

static __always_inline void look_up(enum value_part part)
{
	struct flow_value *value;
	struct flow_key *key;
	struct lookup_result *result;
	__u32 slot = 0;

	key = bpf_map_lookup_elem(&lookup_key, &slot);
	result = bpf_map_lookup_elem(&lookup_result, &slot);
	if (!key || !result)
		return;
	value = bpf_map_lookup_elem(&flows, key);
	result->lookups++;
	result->hit = !!value;
	if (value && part == WHOLE)
		result->value = *value;
	else if (value)
		__builtin_memcpy(&result->value, value, FLOW_VALUE_SIZE_VER0);
}

SEC("xdp")
int by_xdp(struct xdp_md *ctx)
{
	look_up(WHOLE);
	return XDP_PASS;
}

SEC("xdp")
int by_xdp_ver0(struct xdp_md *ctx)
{
	look_up(VER0);
	return XDP_PASS;
}

SEC("tc")
int by_tc(struct __sk_buff *ctx)
{
	look_up(WHOLE);
	return TC_ACT_OK;
}

SEC("cgroup_skb/egress")
int by_cgroup(struct __sk_buff *ctx)
{
	look_up(WHOLE);
	return 1;
}

SEC("socket")
int by_socket(struct __sk_buff *ctx)
{
	look_up(WHOLE);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
