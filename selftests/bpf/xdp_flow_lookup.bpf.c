// SPDX-License-Identifier: GPL-2.0-only
/*
 * Look every packet's tuple up in a flow map, count what came of it, and let it pass.
 *
 * Ethernet, up to two VLAN tags, IPv4 without options or IPv6 without extension headers,
 * TCP or UDP.  What is none of these counts as unparsed.
 */
#include "vmlinux.h"

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "flowmap.h"

#define AF_INET 2
#define AF_INET6 10
#define ETH_P_IP 0x0800
#define ETH_P_IPV6 0x86dd
#define ETH_P_8021Q 0x8100
#define ETH_P_8021AD 0x88a8

enum counter { HIT_ORIGINAL, HIT_REPLY, MISS, UNPARSED, ALIASED, COUNTERS };

struct {
	__uint(type, BPF_MAP_TYPE_FLOWMAP);
	__uint(max_entries, 1024);
	__uint(map_flags, BPF_F_RDONLY_PROG);
	__type(key, struct flow_key);
	__type(value, struct flow_value);
} flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

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

static __always_inline void count(__u32 which)
{
	__u64 *value = bpf_map_lookup_elem(&counters, &which);

	if (value)
		__sync_fetch_and_add(value, 1);
}

/* Fill the key from the packet; false when it is not one that flow tables serve. */
static __always_inline bool parse(struct xdp_md *ctx, struct flow_key *key)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	void *next = eth + 1;
	__be16 proto, *ports;

	if (next > end)
		return false;
	proto = eth->h_proto;

#pragma unroll
	for (int i = 0; i < 2; i++) {
		__be16 *tag = next;

		if (proto != bpf_htons(ETH_P_8021Q) && proto != bpf_htons(ETH_P_8021AD))
			break;
		if ((void *)(tag + 2) > end)
			return false;
		key->encap[i].id = tag[0] & bpf_htons(0x0fff);
		key->encap[i].proto = proto;
		proto = tag[1];
		next = tag + 2;
	}

	if (proto == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = next;

		next = ip + 1;
		if (next > end || ip->ihl != 5)
			return false;
		key->l3proto = AF_INET;
		key->l4proto = ip->protocol;
		key->src[0] = ip->saddr;
		key->dst[0] = ip->daddr;
	} else if (proto == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip = next;

		next = ip + 1;
		if (next > end)
			return false;
		key->l3proto = AF_INET6;
		key->l4proto = ip->nexthdr;
		__builtin_memcpy(key->src, &ip->saddr, sizeof(key->src));
		__builtin_memcpy(key->dst, &ip->daddr, sizeof(key->dst));
	} else {
		return false;
	}

	if (key->l4proto != IPPROTO_TCP && key->l4proto != IPPROTO_UDP)
		return false;
	ports = next;
	if ((void *)(ports + 2) > end)
		return false;
	key->src_port = ports[0];
	key->dst_port = ports[1];
	key->iifindex = ctx->ingress_ifindex;
	return true;
}

SEC("xdp")
int xdp_flow_lookup(struct xdp_md *ctx)
{
	struct flow_value *value;
	struct flow_key key = {};
	__u32 slot = 0;

	if (!parse(ctx, &key)) {
		count(UNPARSED);
		return XDP_PASS;
	}
	bpf_map_update_elem(&last_key, &slot, &key, BPF_ANY);

	value = bpf_map_lookup_elem(&flows, &key);
	if (!value) {
		count(MISS);
		return XDP_PASS;
	}

	/* v0 gave the caller its own key back (V0-3). */
	if ((void *)value == (void *)&key)
		count(ALIASED);
	slot = value->dir & 1;
	count(slot ? HIT_REPLY : HIT_ORIGINAL);
	bpf_map_update_elem(&last_values, &slot, value, BPF_ANY);
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "GPL";
