// SPDX-License-Identifier: GPL-2.0-only
/*
 * Look up the tuple of every packet both in the flow map and with bpf_xdp_flow_lookup(), count how
 * the results compare, and pass the packet to the stack. The kfunc uses the flow table of the
 * device and does not support VLAN tags.
 */
#include "vmlinux.h"

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "counters.h"
#include "flowmap.h"
#include "kfunc.h"
#include "packet_parse.h"

enum counter { BOTH, NEITHER, ONLY_MAP, ONLY_KFUNC, FAILED };

SEC("xdp")
int xdp_both_lookups(struct xdp_md *ctx)
{
	struct bpf_flowtable_opts___local opts = {};
	struct bpf_fib_lookup tuple = {};
	struct flow_key key = {};
	bool by_map, by_kfunc;

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
	by_kfunc = bpf_xdp_flow_lookup(ctx, &tuple, &opts, sizeof(opts));

	/* The kfunc reports -ENOENT when there is no such flow. */
	if (!by_kfunc && opts.error && opts.error != -2)
		count(FAILED);
	else if (by_map)
		count(by_kfunc ? BOTH : ONLY_MAP);
	else
		count(by_kfunc ? ONLY_KFUNC : NEITHER);
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "GPL";
