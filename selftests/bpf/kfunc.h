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

#endif
