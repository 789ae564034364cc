// SPDX-License-Identifier: GPL-2.0-only
/*
 * Programs that call the global function `replaceable`, which a program of type EXT replaces
 * (clause MM-9). Each has a copy of the function of its own. The packet that they run on does not
 * matter.
 */
#include "vmlinux.h"

#include <bpf/bpf_helpers.h>

#define TC_ACT_OK 0

/* The empty asm statement keeps the compiler from using what the function returns here. */
__attribute__((noinline)) int replaceable(int number)
{
	asm volatile("" : "+r"(number));
	return number;
}

SEC("xdp")
int xdp_target(struct xdp_md *ctx)
{
	return replaceable(XDP_PASS);
}

SEC("tc")
int tc_target(struct __sk_buff *ctx)
{
	return replaceable(TC_ACT_OK);
}

SEC("socket")
int socket_target(struct __sk_buff *ctx)
{
	return replaceable(0);
}

SEC("syscall")
int syscall_target(void *ctx)
{
	return replaceable(0);
}

SEC("uprobe")
int uprobe_target(struct pt_regs *ctx)
{
	return replaceable(0);
}

SEC("uprobe.s")
int sleepable_uprobe_target(struct pt_regs *ctx)
{
	return replaceable(0);
}

char LICENSE[] SEC("license") = "GPL";
