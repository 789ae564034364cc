/* SPDX-License-Identifier: GPL-2.0-only */
/* The kfunc bpf_xdp_flow_lookup(); its types are in a module's BTF, not in vmlinux.h. */
#ifndef KFUNC_H
#define KFUNC_H

#include <bpf/bpf_helpers.h>

struct bpf_flowtable_opts___local {
	s32 error;
};

struct flow_offload_tuple_rhash;

struct flow_offload_tuple_rhash *
bpf_xdp_flow_lookup(struct xdp_md *ctx, struct bpf_fib_lookup *fib_tuple,
		    struct bpf_flowtable_opts___local *opts, u32 opts_len) __ksym;

/* The members that programs read of structures in the BTF of nf_flow_table. */
struct flow_offload_tuple___local {
	struct in6_addr src_v6;
	struct in6_addr dst_v6;
	__be16 src_port;
	__be16 dst_port;
	int iifidx;
	u8 l3proto;
	u8 l4proto;
	u16 dir : 2;
	u16 mtu;
} __attribute__((preserve_access_index));

struct flow_offload_tuple_rhash___local {
	struct flow_offload_tuple___local tuple;
} __attribute__((preserve_access_index));

#endif
