/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* How full is each map? The kernel counts entries of hashes as they come and go; only a
 * program may ask it. The agent reads the answers, one for each map of the machine, as
 * from a file.
 */
#include "lib/bpf.h"

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct bpf_map {
	__u32 id;
};

struct bpf_iter_meta {
	void *seq;
};

#pragma clang attribute pop

extern __s64 bpf_map_sum_elem_count(const struct bpf_map *map) __ksym;

/* host/fill.py reads the same. */
struct filled {
	__u32 id;
	__u32 pad;
	__s64 entries; /* 0 of what is no hash */
};

SEC("iter/bpf_map") int count_maps(__u64 *ctx)
{
	const struct bpf_iter_meta *meta = (void *)ctx[0];
	const struct bpf_map *map = (void *)ctx[1];
	struct filled found = {};

	if (!map)
		return 0; /* that was all */
	found.id = map->id;
	found.entries = bpf_map_sum_elem_count(map);
	bpf_seq_write(meta->seq, &found, sizeof(found));
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
