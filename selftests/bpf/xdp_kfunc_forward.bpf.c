// SPDX-License-Identifier: GPL-2.0-only
/*
 * Forward without a flow map, as on any kernel: bpf_xdp_flow_lookup() finds the flow, the tuple of
 * its other direction has the NAT addresses and ports, and bpf_fib_lookup() returns the next hop.
 * The program reads the kernel's own structures. It does not support VLANs, does not check TCP
 * windows, and passes FIN, RST and SYN to the stack.
 */
#include "vmlinux.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "counters.h"
#include "flowmap.h"
#include "kfunc.h"
#include "packet_parse.h"
#include "packet_rewrite.h"

enum counter { FORWARDED };

/* NAT result for the packet: the tuple of the other direction, reversed. */
static __always_inline void read_nat_tuple(struct flow_offload_tuple_rhash___local *found,
					   struct flow_value *value)
{
	const long size = bpf_core_type_size(struct flow_offload_tuple_rhash___local);
	struct flow_offload_tuple_rhash___local *other;

	if (BPF_CORE_READ_BITFIELD_PROBED(&found->tuple, dir))
		other = (void *)found - size;
	else
		other = (void *)found + size;
	BPF_CORE_READ_INTO(&value->src, other, tuple.dst_v6);
	BPF_CORE_READ_INTO(&value->dst, other, tuple.src_v6);
	BPF_CORE_READ_INTO(&value->src_port, other, tuple.dst_port);
	BPF_CORE_READ_INTO(&value->dst_port, other, tuple.src_port);
	BPF_CORE_READ_INTO(&value->mtu, found, tuple.mtu);
}

static __always_inline bool is_translated(const struct flow_key *key,
					  const struct flow_value *value)
{
	__u32 changed = (key->src_port ^ value->src_port) | (key->dst_port ^ value->dst_port);

#pragma unroll
	for (int i = 0; i < 4; i++)
		changed |= (key->src[i] ^ value->src[i]) | (key->dst[i] ^ value->dst[i]);
	return changed;
}

SEC("xdp")
int xdp_kfunc_forward(struct xdp_md *ctx)
{
	struct bpf_flowtable_opts___local opts = {};
	struct flow_offload_tuple_rhash___local *found;
	struct flow_value value = {};
	struct bpf_fib_lookup fib = {};
	struct flow_key key = {};
	struct pkt_offsets off = {};
	__u8 flags;
	__u32 size;

	if (parse_packet(ctx, &key, &off) != PARSE_OK || off.tags)
		return XDP_PASS;
	size = ip_length(ctx, &off);
	if (!size || off.ttl <= 1)
		return XDP_PASS;
	if (key.l4proto == IPPROTO_TCP) {
		/* SYN, FIN, RST */
		if (bpf_xdp_load_bytes(ctx, off.l4 + 13, &flags, sizeof(flags)) || flags & 7)
			return XDP_PASS;
	}

	fib.family = key.l3proto;
	fib.l4_protocol = key.l4proto;
	fib.sport = key.src_port;
	fib.dport = key.dst_port;
	fib.ifindex = key.iifindex;
	__builtin_memcpy(fib.ipv6_src, key.src, sizeof(fib.ipv6_src));
	__builtin_memcpy(fib.ipv6_dst, key.dst, sizeof(fib.ipv6_dst));
	found = (void *)bpf_xdp_flow_lookup(ctx, &fib, &opts, sizeof(opts));
	if (!found)
		return XDP_PASS;
	read_nat_tuple(found, &value);
	/* The tuple does not say whether there is NAT; the cheapest is to compare. */
	if (is_translated(&key, &value))
		value.flags = FLOW_F_SNAT | FLOW_F_DNAT;
	if (size > value.mtu)
		return XDP_PASS;

	__builtin_memcpy(fib.ipv6_src, value.src, sizeof(fib.ipv6_src));
	__builtin_memcpy(fib.ipv6_dst, value.dst, sizeof(fib.ipv6_dst));
	fib.sport = value.src_port;
	fib.dport = value.dst_port;
	fib.tot_len = 0;
	if (bpf_fib_lookup(ctx, &fib, sizeof(fib), 0) != BPF_FIB_LKUP_RET_SUCCESS)
		return XDP_PASS;
	__builtin_memcpy(value.h_source, fib.smac, sizeof(value.h_source));
	__builtin_memcpy(value.h_dest, fib.dmac, sizeof(value.h_dest));

	if (!rewrite_l3_l4(ctx, &key, &value, &off) || !write_l2_header(ctx, &key, &value, 0, 0))
		return XDP_DROP;
	count(FORWARDED);
	return bpf_redirect(fib.ifindex, 0);
}

char LICENSE[] SEC("license") = "GPL";
