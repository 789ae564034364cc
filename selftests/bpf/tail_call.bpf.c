// SPDX-License-Identifier: GPL-2.0-only
/*
 * Tail calls to programs that look flows up (clause MM-9). `from_extension` replaces the function
 * `replaceable` of `sleepable_uprobe_target`, and neither has a flow map. A test loads them one by one,
 * each with a program array of its own. The other programs are callees for that of the extension.
 */
#include "vmlinux.h"

#include <bpf/bpf_helpers.h>

#include "flowmap.h"

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} programs SEC(".maps");

static __always_inline int hit(void)
{
	struct flow_key key = {};

	return !!bpf_map_lookup_elem(&flows, &key);
}

/* An extension may only have a tail call if the function that it replaces has one. */
__attribute__((noinline)) int replaceable(struct pt_regs *ctx)
{
	bpf_tail_call(ctx, &programs, 0);
	return 0;
}

SEC("uprobe.s")
int sleepable_uprobe_target(struct pt_regs *ctx)
{
	return replaceable(ctx);
}

SEC("freplace")
int from_extension(struct pt_regs *ctx)
{
	bpf_tail_call(ctx, &programs, 0);
	return 0;
}

SEC("uprobe")
int uprobe_with_lookup(struct pt_regs *ctx)
{
	return hit();
}

/* Control: the same program without a flow map. */
SEC("uprobe")
int uprobe_without_flowmap(struct pt_regs *ctx)
{
	return 0;
}

SEC("xdp")
int xdp_with_lookup(struct xdp_md *ctx)
{
	return hit() ? XDP_DROP : XDP_PASS;
}

SEC("tc")
int tc_with_lookup(struct __sk_buff *ctx)
{
	return hit();
}

char LICENSE[] SEC("license") = "GPL";
