// SPDX-License-Identifier: GPL-2.0-only
/*
 * Programs of several types that look one given key up and write down what they found; the
 * packet that they are run on does not matter.
 */
#include "vmlinux.h"

#include <bpf/bpf_helpers.h>

#include "flowmap.h"

#define TC_ACT_OK 0

struct answer {
	__u32 asked;
	__u32 found;
	struct flow_value value;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct flow_key);
} question SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct answer);
} answer SEC(".maps");

static __always_inline void ask(void)
{
	struct flow_value *value;
	struct flow_key *key;
	struct answer *out;
	__u32 slot = 0;

	key = bpf_map_lookup_elem(&question, &slot);
	out = bpf_map_lookup_elem(&answer, &slot);
	if (!key || !out)
		return;
	value = bpf_map_lookup_elem(&flows, key);
	out->asked++;
	out->found = !!value;
	if (value)
		out->value = *value;
}

SEC("xdp")
int by_xdp(struct xdp_md *ctx)
{
	ask();
	return XDP_PASS;
}

SEC("tc")
int by_tc(struct __sk_buff *ctx)
{
	ask();
	return TC_ACT_OK;
}

SEC("cgroup_skb/egress")
int by_cgroup(struct __sk_buff *ctx)
{
	ask();
	return 1;
}

SEC("socket")
int by_socket(struct __sk_buff *ctx)
{
	ask();
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
