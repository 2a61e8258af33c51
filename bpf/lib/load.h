/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* How many connections has each backend? */
#pragma once

#include "shared.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 262144);
	__type(key, __u32);
	__type(value, struct load);
} loads SEC(".maps");

static __always_inline struct load *load_of(__u32 number)
{
	return bpf_map_lookup_elem(&loads, &number);
}
