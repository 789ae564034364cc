/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A map with a work item, whose callback may sleep, and a lookup that the callback or the program
 * makes. The including file declares `struct element` first, with a member `work`.
 */
#ifndef WORK_ITEM_H
#define WORK_ITEM_H

#include <bpf/bpf_helpers.h>

#include "flowmap.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct element);
} elements SEC(".maps");

extern int bpf_wq_init(struct bpf_wq *wq, void *map, unsigned int flags) __ksym;
extern int bpf_wq_set_callback(struct bpf_wq *wq,
			       int (*callback)(void *map, int *key, void *value),
			       unsigned int flags) __ksym;

static __always_inline int hit(void)
{
	struct flow_key key = {};

	return !!bpf_map_lookup_elem(&flows, &key);
}

#endif
