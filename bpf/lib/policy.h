/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Policy: may the originator open this connection?
 *
 * The maps are already resolved: policy/table.py leaves nothing under a broader rule
 * that is stronger, so per name of the peer the longest match is the answer, and of the
 * names the strongest. Lookups are of exact keys, so their cost does not depend on how
 * many rules there are; ranges of ports cost one more for each length of prefix. Both
 * sides are judged together, because a redirected packet never meets the destination's
 * own program.
 */
#pragma once

#include "mesh.h"
#include "packet.h"

#define PORT_BITS 16

/* Bounds: apply() refuses to exceed any of them before it writes. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 131072);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32); /* ifindex */
	__type(value, struct endpoint);
} endpoints SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 262144);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, union address);
	__type(value, struct endpoint);
} addresses SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1048576);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct policy_key);
	__type(value, struct policy_entry);
} policy SEC(".maps");

/* Endpoint id to table number; 0 = none, fail closed. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 131072);
	__type(key, __u32);
	__type(value, __u32);
} policy_of SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 131072);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32); /* table */
	__type(value, struct policy_table);
} policy_tables SEC(".maps");

/* Who an address is. */
struct peer {
	__u32 ifindex; /* 0: behind the host's stack */
	__u32 id;      /* 0: no pod */
	__u32 identity;
	__u32 cidr;
	__u32 domain; /* of the world only */
};

/* A connection in the direction in which it was opened, and what policy says of it. */
struct judgement {
	struct peer peer[2]; /* [INGRESS] the destination's, [EGRESS] the source's */
	__u32 rule[2];	     /* by direction */
	__u8 reason;
	__u8 direction; /* that denied */
	__u8 protocol;
	__u8 audit;  /* allowed, but this reason by the table in audit, if any */
	__be16 port; /* of the destination */
	__u8 audit_direction;
	__u8 transport; /* enum transport: given, as the peers are */
	__u8 mode;	/* of the port, where plaintext came in */
	__u8 by_proxy;	/* the proxy has to look */
	__u8 pad[2];
	__u32 table;		   /* to be asked; then the one that audits it */
	struct policy_key asked;   /* its section is set */
	struct policy_entry found; /* the strongest rule so far */
};

/* A judgement is put together here: the stack is short. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct judgement);
} new_judgement SEC(".maps");

static __always_inline struct judgement *blank_judgement(void)
{
	__u32 zero = 0;
	struct judgement *judgement = bpf_map_lookup_elem(&new_judgement, &zero);

	if (judgement)
		__builtin_memset(judgement, 0, sizeof(*judgement));
	return judgement;
}

static __always_inline void peer_of(struct peer *peer, const struct endpoint *endpoint,
				    bool ipv4)
{
	peer->ifindex = endpoint->ifindex;
	peer->id = endpoint->id;
	peer->identity = endpoint->identity;
	peer->cidr = ipv4 ? endpoint->cidr4 : endpoint->cidr6;
	peer->domain = 0;
}

/* The host, or its resolver, which from outside is the host's. */
static __always_inline bool is_hosts(const struct peer *peer)
{
	return peer->identity == IDENTITY_HOST || peer->identity == IDENTITY_RESOLVER;
}

static __noinline int resolve(const union address *address, struct peer *peer)
{
	const struct endpoint *endpoint;
	const struct ipcache_entry *entry;
	struct ipcache_key key;

	endpoint = bpf_map_lookup_elem(&addresses, address);
	if (endpoint) {
		peer_of(peer, endpoint, is_ipv4(address));
		return 0;
	}
	key.prefixlen = 128;
	key.address = *address;
	entry = bpf_map_lookup_elem(&ipcache, &key);
	peer->ifindex = 0;
	peer->id = 0;
	peer->identity = entry ? entry->identity : IDENTITY_WORLD;
	peer->cidr = entry ? entry->cidr : 0;
	peer->domain = entry && entry->identity == IDENTITY_WORLD ? entry->domain : 0;
	return 0;
}

/* What the rules for one name of the peer say; a more specific name was asked before.
 * ``asked`` has the section. Not static: so it is verified once, and not on each of the
 * many ways here; and then its pointer has to be looked at.
 */
__noinline int policy_lookup(struct judgement *judgement, __u32 peer)
{
	const struct policy_entry *entry, *head;
	struct policy_key *key;
	__u32 lengths, port;

	if (!judgement)
		return 0;
	key = &judgement->asked;
	port = ntohs(judgement->port);
	key->peer = peer;
	key->protocol = key->bits = key->port = 0;
	head = bpf_map_lookup_elem(&policy, key);
	if (!head)
		return 0;
	key->protocol = judgement->protocol;
	lengths = head->lengths;
	for (int bits = PORT_BITS; bits >= 0; bits--) {
		if (!(lengths & 1 << bits))
			continue;
		key->bits = bits;
		key->port = htons(port & ~0u << (PORT_BITS - bits));
		entry = bpf_map_lookup_elem(&policy, key);
		if (entry) {
			head = entry;
			break;
		}
		lengths &= ~(1 << bits);
		if (!lengths)
			break;
	}
	if (head->strength > judgement->found.strength)
		judgement->found = *head;
	return 0;
}

/* What one section says about a peer; strength 0 is nothing. */
static __always_inline int policy_section(struct judgement *judgement, __u32 direction)
{
	const struct peer *peer = &judgement->peer[!(direction & 1)];

	judgement->found.rule = judgement->found.strength = 0;
	policy_lookup(judgement, peer->identity);
	if (peer->identity >= IDENTITY_FIRST_POD && peer->identity <= IDENTITY_LAST_POD)
		policy_lookup(judgement, IDENTITY_ANY_POD);
	if (peer->cidr) {
		policy_lookup(judgement, peer->cidr);
		if (peer->identity == IDENTITY_WORLD)
			policy_lookup(judgement, peer->cidr + IDENTITY_OUTSIDE);
	}
	if (peer->domain)
		policy_lookup(judgement, peer->domain);
	policy_lookup(judgement, 0);
	return judgement->found.strength & 3;
}

/* What one table says of one direction; writes the rule that decided. */
static __noinline int policy_table(struct judgement *judgement, __u32 direction)
{
	const struct policy_table *table;
	int verdict = VERDICT_PASS;

	table = bpf_map_lookup_elem(&policy_tables, &judgement->table);
	judgement->table = table ? table->audit : 0;
	if (!table)
		return DROP_POLICY_DENIED;
	judgement->asked.section = table->section[(direction & 1) + 2];
	if (judgement->asked.section)
		verdict = policy_section(judgement, direction);
	if (verdict == VERDICT_PASS || !verdict) {
		judgement->asked.section = table->section[direction & 1];
		verdict = policy_section(judgement, direction);
	}
	if (!verdict) {
		judgement->rule[direction & 1] = table->rule[direction & 1];
		return DROP_POLICY_DENIED;
	}
	judgement->rule[direction & 1] = judgement->found.rule;
	return verdict == VERDICT_ALLOW ? DROP_NONE : DROP_POLICY_DENY;
}

static __always_inline bool is_by_proxy(__u32 strength)
{
	return strength == (PRECEDENCE_SEEN << 2 | VERDICT_ALLOW) ||
	       strength == (PRECEDENCE_CARRIED << 2 | VERDICT_ALLOW);
}

/* One direction of one endpoint. What is allowed is shown to the table in audit, too.
 */
static __always_inline int policy_verdict(struct judgement *judgement, __u32 direction)
{
	__u32 id = judgement->peer[direction].id, *table;
	int reason;

	table = bpf_map_lookup_elem(&policy_of, &id);
	if (!table || !*table) /* a host without policy is open */
		return id ? DROP_POLICY_DENIED : DROP_NONE;
	judgement->table = *table;
	reason = policy_table(judgement, direction);
	if (direction == EGRESS)
		judgement->by_proxy = is_by_proxy(judgement->found.strength);
	if (reason || !judgement->table)
		return reason;
	reason = policy_table(judgement, direction);
	if (reason && !judgement->audit) {
		judgement->audit = reason;
		judgement->audit_direction = direction;
	}
	return DROP_NONE;
}

/* The world has none; the host, whose number is 0, may have. */
static __always_inline bool has_policy(const struct peer *peer)
{
	return peer->id || peer->identity == IDENTITY_HOST;
}

/* Plaintext that policy allows: does the port take it? The host and the world are in no
 * tunnel. Not static, as policy_lookup(). */
__noinline int mode_verdict(struct judgement *judgement)
{
	const struct port_mode *found;

	if (!judgement)
		return DROP_MTLS_REQUIRED;
	found = mode_of(judgement->peer[INGRESS].id, judgement->port);
	if (!found)
		return DROP_NONE;
	judgement->direction = INGRESS;
	if (judgement->port == htons(TUNNEL_PORT))
		return DROP_TUNNEL_PORT;
	if (!judgement->peer[EGRESS].id)
		return DROP_NONE;
	judgement->mode = found->mode;
	return found->mode == MODE_STRICT ? DROP_MTLS_REQUIRED : DROP_NONE;
}

/* Both sides must allow. What is in a tunnel is judged by itself, not by its tunnel. */
static __noinline int judge(struct judgement *judgement)
{
	int reason = DROP_NONE;

	judgement->audit = judgement->mode = judgement->by_proxy = 0;
	judgement->rule[INGRESS] = judgement->rule[EGRESS] = 0;
	judgement->direction = EGRESS;
	judgement->reason = DROP_NONE;
	if (judgement->transport == TRANSPORT_TUNNEL)
		return DROP_NONE;
	if (has_policy(&judgement->peer[EGRESS]))
		reason = policy_verdict(judgement, EGRESS);
	if (!reason && has_policy(&judgement->peer[INGRESS])) {
		judgement->direction = INGRESS;
		reason = policy_verdict(judgement, INGRESS);
	}
	if (!reason && judgement->by_proxy && !judgement->transport) {
		judgement->direction = EGRESS;
		reason = DROP_PROXY_REQUIRED;
	}
	if (!reason && judgement->protocol == IPPROTO_TCP && !judgement->transport)
		reason = mode_verdict(judgement);
	judgement->reason = reason;
	return reason;
}
