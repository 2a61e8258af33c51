/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Tunnels between two pods of this host: both ends are the proxy's, and what one writes
 * is put into the other's queue, without packets.
 *
 * A tunnel is made and ended by packets as ever, and so is its handshake, for those who
 * look at the wire. No policy is asked: what is in it has its own, at both ends. The
 * proxy never sleeps in a read, so that data may go past packets again, once it has
 * read those that went before.
 */
#include "lib/pairs.h"
#include "lib/policy.h"
#include "lib/sockops.h"

/* Full: tunnels go by packets. Apart from `accelerated`: a version with another layout
 * need not wait for their end. Sockets keep the program, and it its maps. */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, 65536);
	__type(key, struct end_key);
	__type(value, __u64);
} tunnel_sockets SEC(".maps");

/* On the proxy's cgroup: one end of a tunnel stands. */
SEC("sockops") int couple(struct bpf_sock_ops *ops)
{
	bool dialled = ops->op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB;
	struct bpf_sock *socket = ops->sk;
	struct packet packet = {};
	struct end_key key = {};
	struct tcp_sock *tcp;
	struct end *end;

	if (!dialled && ops->op != BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB)
		return OK;
	read_ends(ops, &packet);
	if ((dialled ? packet.destination_port : packet.source_port) !=
		htons(TUNNEL_PORT) ||
	    !bpf_map_lookup_elem(&addresses, &packet.destination) || !socket)
		return OK;
	key.side = conntrack_key(&packet, &key.connection);
	tcp = bpf_skc_to_tcp_sock(socket);
	end = bpf_sk_storage_get(&ends, socket, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (!tcp || !end)
		return OK;
	begin_end(end, &key, tcp);
	note_socket(&key.connection, key.side, tcp, bpf_get_socket_cookie(ops),
		    dialled);
	bpf_sock_hash_update(ops, &tunnel_sockets, &key, BPF_ANY);
	return OK;
}

static __always_inline bool may_write(const struct tcp_sock *tcp)
{
	__u8 state = tcp->inet_conn.icsk_inet.sk.__sk_common.skc_state;

	return state == BPF_TCP_ESTABLISHED || state == BPF_TCP_CLOSE_WAIT;
}

/* Nothing is under way in packets, nor before the reader. */
static __always_inline bool caught_up(struct end *end, const struct tcp_sock *tcp)
{
	const struct tcp_sock *reader;

	if (tcp->write_seq == end->sequence)
		return true;
	if (!reader_of(end))
		return false;
	reader = bpf_rdonly_cast((void *)end->reader,
				 __builtin_btf_type_id(*(struct tcp_sock *)0, 1));
	if (reader->copied_seq != tcp->write_seq)
		return false;
	end->sequence = tcp->write_seq;
	return true;
}

SEC("sk_msg") int carry_tunnel(struct sk_msg_md *message)
{
	struct packet data = {.protocol = IPPROTO_TCP, .tcp_flags = TCP_ACK};
	struct bpf_sock *socket = message->sk;
	struct end_key other = {};
	struct conntrack *entry;
	struct tcp_sock *tcp;
	struct end *end;

	if (!socket)
		return SK_PASS_;
	end = bpf_sk_storage_get(&ends, socket, NULL, 0);
	tcp = bpf_skc_to_tcp_sock(socket);
	if (!end || !tcp || !tcp->bytes_sent || !may_write(tcp) ||
	    !caught_up(end, tcp) || !takes_more(end, message->size))
		return SK_PASS_;
	other.connection = end->connection;
	other.side = !end->side;
	if (bpf_msg_redirect_hash(message, &tunnel_sockets, &other, BPF_F_INGRESS) !=
	    SK_PASS_)
		return SK_PASS_;
	entry = bpf_map_lookup_elem(&conntrack, &other.connection);
	if (entry && conntrack_touch(entry, &data, end->side, message->size))
		set_carried(entry, end->side, CARRIED_BY_SOCKETS);
	return SK_PASS_;
}

char LICENSE[] SEC("license") = "GPL";
