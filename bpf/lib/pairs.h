/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Pairs: both sockets of a connection between two pods of this host, where what one
 * side sends is put into the other's queue at once (sockmap), and no packet carries it.
 *
 * What the kernel does not see to there, these programs do:
 * - A socket first reads what was carried, then what came in packets. So a side is
 *   carried from its first byte on, and once it is not, never again.
 * - No window bounds the queue. A side whose reader lags goes on by packets, which
 *   wait. Then neither side is carried any more, and once what was has been read, both
 *   sockets are let go: in the map they are slower at packets than others are.
 *
 * What the kernel thinks of a socket is read where it keeps it (struct sock): the
 * address holds while the cookie there is the same.
 */
#pragma once

#include "conntrack.h"
#include "kernel.h"

/* One end of a connection that is, or was, carried from socket to socket. */
struct end {
	struct conntrack_key connection;
	__u32 side;
	__u32 sequence;	  /* of its first byte; TCP's own sends move on from it */
	__u32 unread_max; /* what its reader may have before it */
	__u32 over;
	__u64 reader; /* the other socket, once both are there: as in `pairs` */
	__u64 reader_cookie;
	/* What was written so far, and at two moments past: all writes before the older
	 * one have been read. */
	__u32 bytes, writes;
	__u32 newer_bytes, newer_writes, older_writes;
	__u32 pad;
};

struct end_key {
	struct conntrack_key connection;
	__u32 side;
};

/* Where the kernel keeps both ends, to be looked at: by address, true while the cookie
 * is. */
struct pair {
	__u64 socket[2];
	__u64 cookie[2];
	__u32 left; /* since when all goes by packets, as conntrack counts time; 0: it
		       does not */
	__u32 pad;
};

/* Full: connections go by packets, from then on. */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, 65536);
	__type(key, struct end_key);
	__type(value, __u64);
} accelerated SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct conntrack_key);
	__type(value, struct pair);
} pairs SEC(".maps");

/* A socket by its address; what is read of it is 0 where there is no memory. */
static __always_inline const struct sock *socket_at(__u64 address)
{
	return bpf_rdonly_cast((void *)address,
			       __builtin_btf_type_id(*(struct sock *)0, 1));
}
