/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Counters of what the programs did: one map, of all objects. */
#pragma once

#include "bpf.h"
#include "sixfold.h"

/* Index: a drop reason, or enum statistic. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 256);
	__type(key, __u32);
	__type(value, __u64);
} statistics SEC(".maps");

static __always_inline void statistic(__u32 index)
{
	__u64 *count = bpf_map_lookup_elem(&statistics, &index);

	if (count)
		*count += 1;
}
