// SPDX-License-Identifier: GPL-2.0-only
/* An LSM that denies the creation of flow maps, and counts the denials. */
#include "vmlinux.h"

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "counters.h"

#define EPERM 1

/* Slots of `counters`. */
enum counter { DENIED };

SEC("lsm/bpf_map_create")
int BPF_PROG(deny_flowmap, struct bpf_map *map)
{
	if (map->map_type != BPF_MAP_TYPE_FLOWMAP)
		return 0;
	count(DENIED);
	return -EPERM;
}

char LICENSE[] SEC("license") = "GPL";
