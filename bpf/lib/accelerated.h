/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Accelerated: connections between two pods that asked for it. Once neither side is
 * carried any more, and what was has been read, both sockets are let go: in the map
 * they are slower at packets than others are.
 */
#pragma once

#include "pairs.h"

/* Full: connections go by packets, from then on. */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, 65536);
	__type(key, struct end_key);
	__type(value, __u64);
} accelerated SEC(".maps");
