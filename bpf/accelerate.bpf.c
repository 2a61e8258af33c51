/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* TCP between two pods of this host that asked for it: what one writes is put into the
 * other's queue, without packets.
 *
 * Connections are made and ended by packets as ever, so that policy, conntrack, the
 * flow log and the counters of backends know them. In between every write asks
 * conntrack: a verdict of yesterday is judged again before the data moves, and what is
 * no longer allowed goes the way of packets, where it is dropped.
 */
#include "lib/accelerated.h"
#include "lib/again.h"
#include "lib/sockops.h"

#define HOST_ENDPOINT 0

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 131072);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);
	__type(value, __u32);
} namespaces SEC(".maps");

/* The pod on one side of the connection, if it is one that asked for it. */
static __always_inline const struct endpoint *
accelerated_endpoint(const struct conntrack *entry, __u32 side)
{
	__u32 ifindex = side ? entry->ifindex[1] : entry->ifindex[0];
	const struct endpoint *endpoint = bpf_map_lookup_elem(&endpoints, &ifindex);

	return endpoint && endpoint->flags & ENDPOINT_ACCELERATED ? endpoint : NULL;
}

/* Both ends must ask for it, and policy must have let the connection in just now. What
 * is the proxy's goes another way: tunnel.bpf.c. */
static __always_inline bool may_join(const struct conntrack_key *key, __u32 side,
				     __u32 endpoint_id)
{
	const struct conntrack *entry = bpf_map_lookup_elem(&conntrack, key);
	const struct endpoint *mine, *theirs;

	if (!entry || entry->transport != TRANSPORT_PLAIN ||
	    entry->revision != revision())
		return false;
	mine = accelerated_endpoint(entry, side);
	theirs = accelerated_endpoint(entry, !side);
	return mine && theirs && mine->id == endpoint_id;
}

/* A connection was made, from one end; before anybody can write to it or read from it.
 */
SEC("sockops") int join(struct bpf_sock_ops *ops)
{
	bool opened = ops->op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB;
	struct bpf_sock *socket = ops->sk;
	struct end_key key = {};
	struct tcp_sock *tcp;
	struct end *end;
	__u64 namespace;
	__u32 *endpoint;

	if (!opened && ops->op != BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB)
		return OK;
	namespace = bpf_get_netns_cookie(ops);
	endpoint = bpf_map_lookup_elem(&namespaces, &namespace);
	if (!endpoint || *endpoint == HOST_ENDPOINT || !socket)
		return OK;
	key.side = end_of(ops, &key.connection);
	if (!may_join(&key.connection, key.side, *endpoint))
		return OK;
	tcp = bpf_skc_to_tcp_sock(socket);
	/* Data in the SYN: it is in packets already. */
	if (!tcp || tcp->write_seq != tcp->snd_una || tcp->copied_seq != tcp->rcv_nxt)
		return OK;
	end = bpf_sk_storage_get(&ends, socket, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (!end)
		return OK;
	begin_end(end, &key, tcp);
	note_socket(&key.connection, key.side, tcp, bpf_get_socket_cookie(ops), opened);
	bpf_sock_hash_update(ops, &accelerated, &key, BPF_ANY);
	return OK;
}

/* By packets from here on, whatever comes, both ways: see lib/pairs.h. */
static __always_inline int no_more(struct end *end, struct conntrack *entry)
{
	struct pair *pair = bpf_map_lookup_elem(&pairs, &end->connection);

	end->over = true;
	if (entry) {
		set_carried(entry, 0, CARRIED_NO_MORE);
		set_carried(entry, 1, CARRIED_NO_MORE);
	}
	if (pair)
		pair->left = now();
	return SK_PASS_;
}

/* Kernel TLS encrypts on the way to packets, and who sends without a copy is told by
 * them when he may have his pages back. */
static __always_inline bool needs_packets(const struct tcp_sock *tcp)
{
	__u64 zerocopy =
	    __builtin_preserve_enum_value(*(enum sock_flags *)SOCK_ZEROCOPY, 1);

	return tcp->inet_conn.icsk_ulp_ops ||
	       tcp->inet_conn.icsk_inet.sk.__sk_common.skc_flags & 1ULL << zerocopy;
}

SEC("sk_msg") int carry(struct sk_msg_md *message)
{
	struct packet data = {.protocol = IPPROTO_TCP, .tcp_flags = TCP_ACK};
	struct end_key other = {};
	struct conntrack *entry;
	struct bpf_sock *socket = message->sk;
	struct tcp_sock *tcp;
	struct end *end;

	if (!socket)
		return SK_PASS_;
	end = bpf_sk_storage_get(&ends, socket, NULL, 0);
	if (!end || end->over)
		return SK_PASS_;
	other.connection = end->connection;
	other.side = !end->side;
	entry = bpf_map_lookup_elem(&conntrack, &other.connection);
	if (entry && entry->revision != revision()) {
		judge_again(&other.connection);
		entry = bpf_map_lookup_elem(&conntrack, &other.connection);
	}
	if (!entry || entry->revision != revision() ||
	    (end->side ? entry->carried[1] : entry->carried[0]) == CARRIED_NO_MORE)
		return no_more(end, entry);
	tcp = bpf_skc_to_tcp_sock(socket);
	if (!tcp || tcp->write_seq != end->sequence || needs_packets(tcp))
		return no_more(end, entry);
	if (!takes_more(end, message->size))
		return no_more(end, entry);
	if (bpf_msg_redirect_hash(message, &accelerated, &other, BPF_F_INGRESS) !=
		SK_PASS_ ||
	    !conntrack_touch(entry, &data, end->side, message->size))
		return no_more(end, entry);
	set_carried(entry, end->side, CARRIED_BY_SOCKETS);
	return SK_PASS_;
}

char LICENSE[] SEC("license") = "GPL";
