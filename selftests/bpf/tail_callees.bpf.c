// SPDX-License-Identifier: GPL-2.0-only
/*
 * Programs of several types as callees of tail calls (clause MM-9): each once with a lookup in a
 * flow map, and once without. A test loads them one by one, each with a program array of its own.
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

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} outer SEC(".maps");

static __always_inline int hit(void)
{
	struct flow_key key = {};

	return !!bpf_map_lookup_elem(&flows, &key);
}

static __always_inline int inner_hit(void)
{
	struct flow_key key = {};
	__u32 slot = 0;
	void *inner;

	inner = bpf_map_lookup_elem(&outer, &slot);
	return inner && bpf_map_lookup_elem(inner, &key);
}

static __noinline int function(void)
{
	return hit();
}

/* The result is 0 or RESULT, which the type allows. */
#define CALLEES(name, section, result)		\
	SEC(section)				\
	int name##_with(void *ctx)		\
	{					\
		return hit() ? (result) : 0;	\
	}					\
						\
	SEC(section)				\
	int name##_inner(void *ctx)		\
	{					\
		return inner_hit() ? (result) : 0;	\
	}					\
						\
	SEC(section)				\
	int name##_function(void *ctx)		\
	{					\
		return function() ? (result) : 0;	\
	}					\
						\
	SEC(section)				\
	int name##_without(void *ctx)		\
	{					\
		return 0;			\
	}

/* Program types that have sleepable programs. */
CALLEES(kprobe, "kprobe/bpf_fentry_test1", 1)
CALLEES(kretprobe, "kretprobe/bpf_fentry_test1", 1)
CALLEES(uprobe, "uprobe", 1)
CALLEES(tracepoint, "tp/sched/sched_switch", 1)
CALLEES(raw_tracepoint, "raw_tp/sched_switch", 1)
CALLEES(tp_btf, "tp_btf/sched_switch", 0)
CALLEES(fentry, "fentry/bpf_fentry_test1", 0)
CALLEES(fexit, "fexit/bpf_fentry_test1", 0)
CALLEES(iter, "iter/task", 0)
CALLEES(lsm, "lsm/bpf_map_create", 0)

/* Program types that have none. */
CALLEES(xdp, "xdp", 1)
CALLEES(tc, "tc", 1)
CALLEES(cgroup_skb, "cgroup_skb/egress", 1)
CALLEES(connect, "cgroup/connect4", 1)
CALLEES(socket, "socket", 1)

char LICENSE[] SEC("license") = "GPL";
