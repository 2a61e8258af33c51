/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Pairs: both sockets of a connection within this host, where what one side sends is
 * put into the other's queue at once (sockmap), and no packet carries it: between two
 * pods (accelerate.bpf.c), or between two ends of the proxy (tunnel.bpf.c).
 *
 * What the kernel does not see to there, these programs do:
 * - A socket first reads what was carried, then what came in packets. So a side is
 *   carried from its first byte on, and when it is not, it waits until all packets are
 *   read (tunnels), or never is again (pods: theirs may sleep where only a packet
 *   wakes).
 * - No window bounds the queue. A side whose reader lags goes on by packets, which
 *   wait.
 *
 * What the kernel thinks of a socket is read where it keeps it (struct sock): the
 * address holds while the cookie there is the same.
 */
#pragma once

#include "conntrack.h"
#include "kernel.h"

#define SK_PASS_   1
#define WRITE_COST 1024 /* memory of a write beside its bytes: struct sk_msg */
#define UNREAD_MAX (4 << 20)

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

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct conntrack_key);
	__type(value, struct pair);
} pairs SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct end);
} ends SEC(".maps");

/* A socket by its address; what is read of it is 0 where there is no memory. */
static __always_inline const struct sock *socket_at(__u64 address)
{
	return bpf_rdonly_cast((void *)address,
			       __builtin_btf_type_id(*(struct sock *)0, 1));
}

/* The one who opened it comes first: what stands there is of an earlier connection. */
static __always_inline void note_socket(const struct conntrack_key *key, __u32 side,
					const void *socket, __u64 cookie, bool opened)
{
	struct pair fresh = {}, *pair;

	if (opened)
		bpf_map_update_elem(&pairs, key, &fresh, BPF_ANY);
	pair = bpf_map_lookup_elem(&pairs, key);
	if (!pair)
		return;
	if (side) {
		pair->socket[1] = (__u64)socket;
		pair->cookie[1] = cookie;
	} else {
		pair->socket[0] = (__u64)socket;
		pair->cookie[0] = cookie;
	}
}

/* Half of what a window would let a queue grow to (net.ipv4.tcp_rmem): packets that
 * come behind it must find room, or else they are dropped, and sent anew 200 ms later.
 * And no more than stays in a processor's cache until it is read. */
static __always_inline __u32 unread_max(const struct tcp_sock *tcp)
{
	const struct net *net = tcp->inet_conn.icsk_inet.sk.__sk_common.skc_net.net;
	__u32 half = net->ipv4.sysctl_tcp_rmem[2] / 2;

	return half < UNREAD_MAX ? half : UNREAD_MAX;
}

static __always_inline void begin_end(struct end *end, const struct end_key *key,
				      const struct tcp_sock *tcp)
{
	__builtin_memset(end, 0, sizeof(*end)); /* a socket may dial again */
	end->connection = key->connection;
	end->side = key->side;
	end->sequence = tcp->write_seq;
	end->unread_max = unread_max(tcp);
}

static __always_inline void set_carried(struct conntrack *entry, __u32 side,
					__u8 carried)
{
	__u8 *known = side ? &entry->carried[1] : &entry->carried[0];

	if (*known != carried)
		*known = carried;
}

/* The other end's socket, as long as it is there. */
static __always_inline const struct sock *reader_of(struct end *end)
{
	const struct sock *reader;
	const struct pair *pair;

	if (!end->reader) {
		pair = bpf_map_lookup_elem(&pairs, &end->connection);
		if (!pair)
			return NULL;
		end->reader = end->side ? pair->socket[0] : pair->socket[1];
		end->reader_cookie = end->side ? pair->cookie[0] : pair->cookie[1];
		if (!end->reader)
			return NULL;
	}
	reader = socket_at(end->reader);
	return (__u64)reader->__sk_common.skc_cookie.counter == end->reader_cookie
		   ? reader
		   : NULL;
}

/* At most so many of its writes are unread. The kernel keeps each apart. */
static __always_inline __u32 unread_writes(struct end *end, __u32 unread)
{
	if (unread <= end->bytes - end->newer_bytes) {
		end->older_writes = end->newer_writes;
		end->newer_writes = end->writes;
		end->newer_bytes = end->bytes;
	}
	return end->writes - end->older_writes;
}

/* Not one who lags, nor one who wants to be woken for more than a byte: packets know
 * how. */
static __always_inline bool takes_more(struct end *end, __u32 size)
{
	const struct sock *reader = reader_of(end);
	__u32 unread;

	if (!reader || reader->sk_rcvlowat > 1)
		return false;
	unread = reader->sk_backlog.rmem_alloc.counter;
	if (unread + unread_writes(end, unread) * WRITE_COST > end->unread_max)
		return false;
	end->bytes += size;
	end->writes += 1;
	return true;
}
