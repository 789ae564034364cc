// SPDX-License-Identifier: GPL-2.0-only
/*
 * Programs that do not sleep themselves, and start a callback that may: a work item (clause MM-9).
 * Each looks a flow up, in the callback or in a function that the callback calls. `only_in_prog`
 * looks up outside the callback, which is allowed.
 */
#include "vmlinux.h"

#include <bpf/bpf_helpers.h>

#include "flowmap.h"

#define TC_ACT_OK 0

struct element {
	struct bpf_wq work;
};

#include "work_item.h"

/* The empty asm statement keeps the compiler from using what the function returns here. */
__attribute__((noinline)) int global_without_lookup(int number)
{
	asm volatile("" : "+r"(number));
	return number;
}

__attribute__((noinline)) int global_with_lookup(int number)
{
	return hit() + number;
}

static int calls_nothing(void *map, int *key, void *value)
{
	return global_without_lookup(0) & 0;
}

static int looks_up(void *map, int *key, void *value)
{
	return hit() & 0;
}

static int calls_global(void *map, int *key, void *value)
{
	return global_with_lookup(0) & 0;
}

static __always_inline void start(int (*callback)(void *map, int *key, void *value))
{
	struct element *element;
	__u32 slot = 0;

	element = bpf_map_lookup_elem(&elements, &slot);
	if (!element || bpf_wq_init(&element->work, &elements, 0))
		return;
	bpf_wq_set_callback(&element->work, callback, 0);
}

SEC("tc")
int only_in_prog(struct __sk_buff *ctx)
{
	start(calls_nothing);
	return hit() ? TC_ACT_OK : 1;
}

SEC("tc")
int in_callback(struct __sk_buff *ctx)
{
	start(looks_up);
	return TC_ACT_OK;
}

SEC("tc")
int in_global_function(struct __sk_buff *ctx)
{
	start(calls_global);
	return TC_ACT_OK;
}

char LICENSE[] SEC("license") = "GPL";
