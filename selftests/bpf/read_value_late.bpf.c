// SPDX-License-Identifier: GPL-2.0-only
/*
 * Look a flow up, and copy the value with an update of an array: a test holds the task there, and
 * ends the flow meanwhile.
 */
#include "vmlinux.h"

#include <bpf/bpf_helpers.h>

#include "flowmap.h"

#define TC_ACT_OK 0
#define CGROUP_OK 1

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct flow_key);
} wanted_key SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct flow_value);
} read_value SEC(".maps");

static __always_inline void read_late(void)
{
	struct flow_value *value;
	struct flow_key *key;
	__u32 slot = 0;

	key = bpf_map_lookup_elem(&wanted_key, &slot);
	if (!key)
		return;
	value = bpf_map_lookup_elem(&flows, key);
	if (value)
		bpf_map_update_elem(&read_value, &slot, value, BPF_ANY);
}

SEC("xdp")
int late_by_xdp(struct xdp_md *ctx)
{
	read_late();
	return XDP_PASS;
}

SEC("tc")
int late_by_tc(struct __sk_buff *ctx)
{
	read_late();
	return TC_ACT_OK;
}

SEC("cgroup_skb/egress")
int late_by_cgroup(struct __sk_buff *ctx)
{
	read_late();
	return CGROUP_OK;
}

SEC("socket")
int late_by_socket(struct __sk_buff *ctx)
{
	read_late();
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
