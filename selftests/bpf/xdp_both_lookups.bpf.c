// SPDX-License-Identifier: GPL-2.0-only
/*
 * Look up the tuple of every packet both in the flow map and with bpf_xdp_flow_lookup(), count how
 * the results compare, and pass the packet to the stack. If both find a flow, it has to be the
 * same direction of the same flow. The kfunc uses the flow table of the device and does not
 * support VLAN tags.
 */
#include "vmlinux.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "counters.h"
#include "flowmap.h"
#include "kfunc.h"
#include "packet_parse.h"

enum counter { BOTH, NEITHER, ONLY_MAP, ONLY_KFUNC, FAILED, OTHER_TUPLE, OTHER_VALUE };

/* A tuple as the key and the value have it. */
struct plain_tuple {
	__be32 src[4];
	__be32 dst[4];
	__be16 src_port;
	__be16 dst_port;
};

static __always_inline void read_tuple(struct flow_offload_tuple_rhash___local *from,
				       struct plain_tuple *to)
{
	BPF_CORE_READ_INTO(&to->src, from, tuple.src_v6);
	BPF_CORE_READ_INTO(&to->dst, from, tuple.dst_v6);
	BPF_CORE_READ_INTO(&to->src_port, from, tuple.src_port);
	BPF_CORE_READ_INTO(&to->dst_port, from, tuple.dst_port);
}

static __always_inline bool addresses_differ(const __be32 *one, const __be32 *other)
{
	__u32 changed = 0;

#pragma unroll
	for (int i = 0; i < 4; i++)
		changed |= one[i] ^ other[i];
	return changed;
}

static __always_inline void compare(struct flow_offload_tuple_rhash___local *found,
				    const struct flow_key *key, const struct flow_value *value)
{
	const long size = bpf_core_type_size(struct flow_offload_tuple_rhash___local);
	struct plain_tuple this = {}, other = {};
	struct flow_offload_tuple_rhash___local *reverse;
	u8 l3proto = 0, l4proto = 0;
	u16 mtu = 0;
	int iifidx = 0;
	__u64 dir;

	read_tuple(found, &this);
	BPF_CORE_READ_INTO(&iifidx, found, tuple.iifidx);
	BPF_CORE_READ_INTO(&l3proto, found, tuple.l3proto);
	BPF_CORE_READ_INTO(&l4proto, found, tuple.l4proto);
	BPF_CORE_READ_INTO(&mtu, found, tuple.mtu);
	if (addresses_differ(this.src, key->src) || addresses_differ(this.dst, key->dst) ||
	    this.src_port != key->src_port || this.dst_port != key->dst_port ||
	    iifidx != (int)key->iifindex || l3proto != key->l3proto || l4proto != key->l4proto)
		count(OTHER_TUPLE);

	/* What leaves is what the other direction's packets answer to. */
	/* Not &found->tuple: its offset would count twice. */
	dir = BPF_CORE_READ_BITFIELD_PROBED(found, tuple.dir);
	reverse = dir ? (void *)found - size : (void *)found + size;
	read_tuple(reverse, &other);
	if (dir != value->dir || mtu != value->mtu || addresses_differ(other.dst, value->src) ||
	    addresses_differ(other.src, value->dst) || other.dst_port != value->src_port ||
	    other.src_port != value->dst_port)
		count(OTHER_VALUE);
}

SEC("xdp")
int xdp_both_lookups(struct xdp_md *ctx)
{
	struct bpf_flowtable_opts___local opts = {};
	struct flow_offload_tuple_rhash___local *by_kfunc;
	struct bpf_fib_lookup tuple = {};
	struct flow_key key = {};
	struct flow_value *by_map;

	if (!parse_key(ctx, &key))
		return XDP_PASS;
	by_map = bpf_map_lookup_elem(&flows, &key);

	tuple.family = key.l3proto;
	tuple.l4_protocol = key.l4proto;
	tuple.sport = key.src_port;
	tuple.dport = key.dst_port;
	tuple.ifindex = key.iifindex;
	if (key.l3proto == AF_INET) {
		tuple.ipv4_src = key.src[0];
		tuple.ipv4_dst = key.dst[0];
	} else {
		__builtin_memcpy(tuple.ipv6_src, key.src, sizeof(tuple.ipv6_src));
		__builtin_memcpy(tuple.ipv6_dst, key.dst, sizeof(tuple.ipv6_dst));
	}
	by_kfunc = (void *)bpf_xdp_flow_lookup(ctx, &tuple, &opts, sizeof(opts));

	/* The kfunc reports -ENOENT when there is no such flow. */
	if (!by_kfunc && opts.error && opts.error != -2) {
		count(FAILED);
	} else if (by_map && by_kfunc) {
		count(BOTH);
		compare(by_kfunc, &key, by_map);
	} else if (by_map) {
		count(ONLY_MAP);
	} else {
		count(by_kfunc ? ONLY_KFUNC : NEITHER);
	}
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "GPL";
