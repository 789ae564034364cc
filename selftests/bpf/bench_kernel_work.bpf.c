// SPDX-License-Identifier: GPL-2.0-only
/*
 * Add up the time that the kernel spends on work that it does later: work items of workqueues, and
 * RCU callbacks. Idle time and waiting are not counted. For a VM with one CPU.
 */
#include "vmlinux.h"

#include <bpf/bpf_helpers.h>

#define RCU_SOFTIRQ_VEC 9
#define IGNORED 8

enum total { WORK_ITEMS, RCU_CALLBACKS, TOTALS };

struct running {
	__u64 since; /* time at which the task went on with its work item */
};

/* Tasks that execute a work item, by pid. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, struct running);
} running SEC(".maps");

/* Addresses of the functions of work items that do not count; 0 at the end. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, IGNORED);
	__type(key, __u32);
	__type(value, __u64);
} ignored SEC(".maps");

/* Nanoseconds, by enum total. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, TOTALS);
	__type(key, __u32);
	__type(value, __u64);
} totals SEC(".maps");

/* Slot 0: begin of the RCU callbacks that run now; 0: none do, or they run in a work item. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} callbacks_since SEC(".maps");

static __always_inline void add(__u32 slot, __u64 since)
{
	__u64 *total = bpf_map_lookup_elem(&totals, &slot);

	if (total)
		*total += bpf_ktime_get_ns() - since;
}

static __always_inline __u32 current_pid(void)
{
	return (__u32)bpf_get_current_pid_tgid();
}

SEC("tp_btf/workqueue_execute_start")
int work_begins(__u64 *ctx)
{
	struct work_struct *work = (void *)ctx[0];
	__u64 function = (__u64)work->func;
	struct running new = {};
	__u32 pid = current_pid();

	for (__u32 i = 0; i < IGNORED; i++) {
		__u32 slot = i;
		__u64 *address = bpf_map_lookup_elem(&ignored, &slot);

		if (!address || !*address)
			break;
		if (*address == function)
			return 0;
	}
	new.since = bpf_ktime_get_ns();
	bpf_map_update_elem(&running, &pid, &new, BPF_ANY);
	return 0;
}

SEC("tp_btf/workqueue_execute_end")
int work_ends(__u64 *ctx)
{
	__u32 pid = current_pid();
	struct running *worker = bpf_map_lookup_elem(&running, &pid);

	if (!worker)
		return 0;
	add(WORK_ITEMS, worker->since);
	bpf_map_delete_elem(&running, &pid);
	return 0;
}

/* A work item that waits or is preempted costs nothing meanwhile. */
SEC("tp_btf/sched_switch")
int task_switches(__u64 *ctx)
{
	struct task_struct *prev = (void *)ctx[1], *next = (void *)ctx[2];
	struct running *worker;
	__u32 pid;

	pid = prev->pid;
	worker = bpf_map_lookup_elem(&running, &pid);
	if (worker)
		add(WORK_ITEMS, worker->since);
	pid = next->pid;
	worker = bpf_map_lookup_elem(&running, &pid);
	if (worker)
		worker->since = bpf_ktime_get_ns();
	return 0;
}

SEC("tp_btf/softirq_entry")
int callbacks_begin(__u64 *ctx)
{
	__u32 slot = 0, pid = current_pid();
	__u64 *since = bpf_map_lookup_elem(&callbacks_since, &slot);

	if (!since || (__u32)ctx[0] != RCU_SOFTIRQ_VEC)
		return 0;
	/* On top of a work item, the work item's time has them. */
	*since = bpf_map_lookup_elem(&running, &pid) ? 0 : bpf_ktime_get_ns();
	return 0;
}

SEC("tp_btf/softirq_exit")
int callbacks_end(__u64 *ctx)
{
	__u32 slot = 0;
	__u64 *since = bpf_map_lookup_elem(&callbacks_since, &slot);

	if (!since || (__u32)ctx[0] != RCU_SOFTIRQ_VEC || !*since)
		return 0;
	add(RCU_CALLBACKS, *since);
	*since = 0;
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
