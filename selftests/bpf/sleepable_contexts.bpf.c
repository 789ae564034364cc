// SPDX-License-Identifier: GPL-2.0-only
/*
 * Lookups at several places of programs of several types (clause MM-9). In those whose name begins
 * with "allowed" the program cannot sleep at the lookup; in the others it may. What counts is the
 * place, not the type of the program that it is in.
 */
#include "vmlinux.h"

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "flowmap.h"

#define CLOCK_MONOTONIC 1

struct element {
	struct bpf_wq work;
	struct bpf_timer timer;
};

#include "work_item.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} outer SEC(".maps");

static __always_inline int inner_hit(void)
{
	struct flow_key key = {};
	__u32 slot = 0;
	void *inner;

	inner = bpf_map_lookup_elem(&outer, &slot);
	return inner && bpf_map_lookup_elem(inner, &key);
}

static __noinline int static_function(void)
{
	return hit();
}

static long loop_body(__u32 index, void *context)
{
	return hit();
}

static long inner_loop_body(__u32 index, void *context)
{
	return inner_hit();
}

static int looks_up_inner(void *map, int *key, void *value)
{
	return inner_hit() & 0;
}

static int calls_static(void *map, int *key, void *value)
{
	return static_function() & 0;
}

static int loops(void *map, int *key, void *value)
{
	bpf_loop(1, loop_body, NULL, 0);
	return 0;
}

static int loops_over_inner(void *map, int *key, void *value)
{
	bpf_loop(1, inner_loop_body, NULL, 0);
	return 0;
}

static int on_timer(void *map, int *key, void *value)
{
	return hit() & 0;
}

static __always_inline struct element *element(void)
{
	__u32 slot = 0;

	return bpf_map_lookup_elem(&elements, &slot);
}

static __always_inline void start_work(int (*callback)(void *map, int *key, void *value))
{
	struct element *own = element();

	if (own && !bpf_wq_init(&own->work, &elements, 0))
		bpf_wq_set_callback(&own->work, callback, 0);
}

#define WITH_WORK(section, context, name, callback)	\
	SEC(section)					\
	int name(struct context *ctx)			\
	{						\
		start_work(callback);			\
		return 0;				\
	}

WITH_WORK("tc", __sk_buff, inner_map_in_work, looks_up_inner)
WITH_WORK("tc", __sk_buff, static_function_in_work, calls_static)
WITH_WORK("tc", __sk_buff, loop_in_work, loops)
WITH_WORK("tc", __sk_buff, inner_map_loop_in_work, loops_over_inner)
WITH_WORK("xdp", xdp_md, work_of_xdp, looks_up_inner)
WITH_WORK("cgroup_skb/egress", __sk_buff, work_of_cgroup, calls_static)

/* The same function in the program, which cannot sleep, and in the callback, which may. */
SEC("tc")
int static_function_in_both(struct __sk_buff *ctx)
{
	start_work(calls_static);
	return static_function();
}

/* Sleepable programs: directly, and through an inner map. */
SEC("fentry.s/bpf_fentry_test1")
int BPF_PROG(sleepable_fentry, int number)
{
	return hit() & 0;
}

SEC("uprobe.s")
int sleepable_uprobe(struct pt_regs *ctx)
{
	return inner_hit();
}

SEC("iter.s/task")
int sleepable_iterator(struct bpf_iter__task *ctx)
{
	return inner_hit() & 0;
}

SEC("syscall")
int loop_in_syscall(void *ctx)
{
	bpf_loop(1, inner_loop_body, NULL, 0);
	return 0;
}

SEC("tc")
int allowed_in_timer(struct __sk_buff *ctx)
{
	struct element *own = element();

	if (own && !bpf_timer_init(&own->timer, &elements, CLOCK_MONOTONIC))
		bpf_timer_set_callback(&own->timer, on_timer);
	return 0;
}

SEC("xdp")
int allowed_in_loop(struct xdp_md *ctx)
{
	bpf_loop(1, loop_body, NULL, 0);
	bpf_loop(1, inner_loop_body, NULL, 0);
	return XDP_PASS;
}

SEC("fentry/bpf_fentry_test1")
int BPF_PROG(allowed_fentry, int number)
{
	return hit() & 0;
}

SEC("uprobe")
int allowed_uprobe(struct pt_regs *ctx)
{
	return hit() + inner_hit();
}

SEC("iter/task")
int allowed_iterator(struct bpf_iter__task *ctx)
{
	return hit() & 0;
}

char LICENSE[] SEC("license") = "GPL";
