// SPDX-License-Identifier: GPL-2.0-only
/*
 * Records which sleeping locks one task takes, by their addresses, and how often it takes a
 * reference to a module (clause MM-8). A lock on the stack or in an allocated object is counted and
 * not recorded.
 */
#include "vmlinux.h"

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "counters.h"

#define MAX_LOCKS 64

enum { MODULE_REFERENCES, LOCK_CALLS };

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} watched_tgid SEC(".maps");

/* Set of addresses. A program may not call a function that it is attached to, and updates take none
 * of these locks.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_LOCKS);
	__type(key, __u64);
	__type(value, __u64);
} locks SEC(".maps");

static __always_inline bool is_watched(void)
{
	__u32 *tgid, slot = 0;

	tgid = bpf_map_lookup_elem(&watched_tgid, &slot);
	return tgid && *tgid == bpf_get_current_pid_tgid() >> 32;
}

static __always_inline int record(void *lock)
{
	__u64 address = (__u64)lock, one = 1;

	if (!is_watched())
		return 0;
	count(LOCK_CALLS);
	bpf_map_update_elem(&locks, &address, &one, BPF_ANY);
	return 0;
}

#define WATCH_LOCK(function, type)				\
	SEC("fentry/" #function)				\
	int BPF_PROG(on_##function, struct type *lock)		\
	{							\
		return record(lock);				\
	}

WATCH_LOCK(mutex_lock, mutex)
WATCH_LOCK(mutex_lock_interruptible, mutex)
WATCH_LOCK(mutex_lock_killable, mutex)
WATCH_LOCK(mutex_trylock, mutex)
WATCH_LOCK(down_read, rw_semaphore)
WATCH_LOCK(down_write, rw_semaphore)
WATCH_LOCK(down_write_killable, rw_semaphore)

SEC("fentry/try_module_get")
int BPF_PROG(on_try_module_get, struct module *module)
{
	if (module && is_watched())
		count(MODULE_REFERENCES);
	return 0;
}

SEC("fentry/__module_get")
int BPF_PROG(on___module_get, struct module *module)
{
	if (module && is_watched())
		count(MODULE_REFERENCES);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
