// SPDX-License-Identifier: GPL-2.0-only
/*
 * One lookup each, to be run many times over by BPF_PROG_TEST_RUN: what a run costs beyond one
 * of `nothing` is the lookup.  All take their question from the same list, one after the other,
 * so that with many flows each run asks for another one; keys are ready to be used.
 */
#include "vmlinux.h"

#include <bpf/bpf_helpers.h>

#include "flowmap.h"
#include "kfunc.h"

#define QUESTIONS 1024 /* a power of two */

struct question {
	struct flow_key key;
	__u32 padding;
	struct bpf_fib_lookup tuple; /* the same for the kfunc */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, QUESTIONS);
	__type(key, __u32);
	__type(value, struct question);
} questions SEC(".maps");

/* Slot 0: the number of the next question; slot 1: how many were answered. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u64);
} state SEC(".maps");

/* As large as the flow map's, and as many as fit: what a user would keep flows in otherwise. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, QUESTIONS);
	__type(key, struct flow_key);
	__type(value, struct flow_value);
} plain SEC(".maps");

static __always_inline struct question *ask(void)
{
	__u32 slot = 0;
	__u64 *next = bpf_map_lookup_elem(&state, &slot);

	if (!next)
		return NULL;
	slot = (*next)++ & (QUESTIONS - 1);
	return bpf_map_lookup_elem(&questions, &slot);
}

static __always_inline int told(bool found)
{
	__u32 slot = 1;
	__u64 *answered = bpf_map_lookup_elem(&state, &slot);

	if (answered && found)
		(*answered)++;
	return XDP_PASS;
}

SEC("xdp")
int nothing(struct xdp_md *ctx)
{
	struct question *question = ask();

	return told(question);
}

SEC("xdp")
int by_flowmap(struct xdp_md *ctx)
{
	struct question *question = ask();

	return told(question && bpf_map_lookup_elem(&flows, &question->key));
}

SEC("xdp")
int by_hash(struct xdp_md *ctx)
{
	struct question *question = ask();

	return told(question && bpf_map_lookup_elem(&plain, &question->key));
}

SEC("xdp")
int by_kfunc(struct xdp_md *ctx)
{
	struct bpf_flowtable_opts___local opts = {};
	struct question *question = ask();

	return told(question &&
		    bpf_xdp_flow_lookup(ctx, &question->tuple, &opts, sizeof(opts)));
}

char LICENSE[] SEC("license") = "GPL";
