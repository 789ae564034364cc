// SPDX-License-Identifier: GPL-2.0-only
/*
 * An object as applications have it: its maps are created by the loader. One flow map is plain,
 * one is pinned by its name, and one is the inner map of a map of maps. The program looks the key
 * in lookup_key up in each of them.
 */
#include "vmlinux.h"

#include <bpf/bpf_helpers.h>

#include "flowmap.h"

/* The slots of lookup_results. */
enum flow_map { PLAIN, PINNED, INNER, FLOW_MAPS };

struct map_lookup_result {
	__u32 hit;
	__u32 reserved;
	struct flow_value value;
};

struct {
	__uint(type, BPF_MAP_TYPE_FLOWMAP);
	__uint(max_entries, 2048);
	__uint(map_flags, BPF_F_RDONLY_PROG);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, struct flow_key);
	__type(value, struct flow_value);
} pinned_flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH_OF_MAPS);
	__uint(max_entries, 4);
	__type(key, __u32);
	__array(values, struct {
		__uint(type, BPF_MAP_TYPE_FLOWMAP);
		__uint(max_entries, 2048);
		__uint(map_flags, BPF_F_RDONLY_PROG);
		__type(key, struct flow_key);
		__type(value, struct flow_value);
	});
} outer SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct flow_key);
} lookup_key SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, FLOW_MAPS);
	__type(key, __u32);
	__type(value, struct map_lookup_result);
} lookup_results SEC(".maps");

static __always_inline void store(__u32 slot, struct flow_value *value)
{
	struct map_lookup_result *result = bpf_map_lookup_elem(&lookup_results, &slot);

	if (!result)
		return;
	result->hit = !!value;
	if (value)
		result->value = *value;
}

SEC("xdp")
int look_up_in_all(struct xdp_md *ctx)
{
	struct flow_key *key;
	__u32 slot = 0;
	void *inner;

	key = bpf_map_lookup_elem(&lookup_key, &slot);
	if (!key)
		return XDP_ABORTED;
	store(PLAIN, bpf_map_lookup_elem(&flows, key));
	store(PINNED, bpf_map_lookup_elem(&pinned_flows, key));
	inner = bpf_map_lookup_elem(&outer, &slot);
	store(INNER, inner ? bpf_map_lookup_elem(inner, key) : NULL);
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "GPL";
