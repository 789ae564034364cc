// SPDX-License-Identifier: GPL-2.0-only
/* Reads the kernel's memory at an address that the test chooses. */
#include "vmlinux.h"

#include <bpf/bpf_helpers.h>

#define MAX_TEXT 1024

struct text_request {
	__u64 address;
	__s64 result;
	__u8 text[MAX_TEXT];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct text_request);
} request SEC(".maps");

SEC("xdp")
int read_text(struct xdp_md *ctx)
{
	struct text_request *read;
	__u32 slot = 0;

	read = bpf_map_lookup_elem(&request, &slot);
	if (read)
		read->result = bpf_probe_read_kernel(read->text, sizeof(read->text),
						     (void *)read->address);
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "GPL";
