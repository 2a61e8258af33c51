/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Names: what is this pod's question answered?
 *
 * Answers are data: discovery/answers.py has written the records of every name of ours
 * as they go into a message, so that nothing here depends on their type. This file
 * reads the question, looks it up, and turns the packet into its own reply. A name
 * without the type, or that is not there, is denied with the SOA of its zone.
 *
 * Only the plain question is answered: one, of class IN, whole, with or without EDNS.
 * Whatever is odd, too long, or not of our zones goes on to the resolver's process as
 * it came: nothing is written before all is known to fit. Source: RFC 1035, RFC 6891.
 */
#pragma once

#include "reply.h"
#include "views.h"
#include "freshness.h"

#define NAME_ZONES_MAX	    16
#define DNS_NXDOMAIN	    3
#define DNS_TYPE_SOA	    6
#define DNS_TYPE_META	    128	     /* ANY, AXFR: to 255 */
#define NAMES_TOLD_PER_SPAN 256	     /* events of one pod, on one CPU, in 2^30 ns */
#define NAME_HIDDEN	    (1 << 7) /* of an answer: not the whole truth */

/* Bounds: host/names.py leaves out what does not fit, and then denies nothing. Not
 * preallocated, so that a reader sees the old element or the new one. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 524288);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct name_key);
	__type(value, struct name_answer);
} names SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct name_key);
	__type(value, struct name_set);
} name_sets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32); /* number */
	__type(value, struct name_zone);
} name_zones SEC(".maps");

/* What policy said of a pod's last question: all its questions to one resolver are
 * alike to policy, until its revision moves on. And how much of it was told: a flood
 * must not fill the ring that others' events need. */
struct name_client {
	union address source;
	union address destination;
	struct observation seen;
	__u32 revision;
	__u32 ifindex; /* whose question it was */
	__u32 endpoint;
	__u32 span;
	__u32 told;
	__u32 pad;
};

/* A line of an array: found without a look-up. Pods that meet in one are judged anew
 * each time that the other has asked, and share what may be told. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 4096);
	__type(key, __u32); /* low bits of the ifindex */
	__type(value, struct name_client);
} name_clients SEC(".maps");

static __always_inline struct name_client *name_client(__u32 ifindex)
{
	__u32 line = ifindex & 4095;

	return bpf_map_lookup_elem(&name_clients, &line);
}

/* The zone that the name lies in, if it is one of ours. */
__global int ends_in(const struct question *question, const struct name_zone *zone)
{
	const __u64 *origin, *suffix;
	__u32 at, i;

	if (!question || !zone)
		return 0;
	origin = (const __u64 *)zone->name;
	at = question->length - zone->length;

	if (question->length < zone->length)
		return 0;
	asm volatile("" : "+r"(at));
	if (at >= NAME_MAX || !(question->starts[at >> 6 & 3] >> (at & 63) & 1))
		return 0;
#pragma clang loop unroll(disable)
	for (i = 0; i < NAME_ZONE_MAX / 8 && i * 8 < zone->length; i++) {
		suffix = (const __u64 *)((const __u8 *)question->name + at) + i;
		if (*suffix != origin[i])
			return 0;
	}
	return 1;
}

static __always_inline const struct name_zone *zone_of(const struct question *question)
{
	const struct name_zone *zone;
	__u32 i;

#pragma clang loop unroll(disable)
	for (i = 0; i < NAME_ZONES_MAX; i++) {
		zone = bpf_map_lookup_elem(&name_zones, &i);
		if (!zone || ends_in(question, zone))
			return zone;
	}
	return NULL;
}

/* No such name, or none of its records are of that type. */
static __noinline int deny(struct __sk_buff *skb, const struct packet *packet,
			   struct question *question, __u32 rcode)
{
	const struct name_zone *zone = zone_of(question);
	struct dns_reply reply = {.authorities = 1, .rcode = rcode};
	__u32 length, offset;
	int size;

	if (!zone || zone->passes)
		return 0;
	length = zone->soa_length;
	if (!length || length > NAME_SOA_MAX)
		return 0;
	reply.length = length;
	reply.sum = zone->soa_sum;
	reply.owner = htons(0xc000 | (DNS_HEADER + question->length - zone->length));
	size = make_room(skb, packet, question, &reply);
	if (!size)
		return 0;
	offset = behind_question(packet, question) + sizeof(reply.owner);
	if (bpf_skb_store_bytes(skb, offset, zone->soa, length, 0) ||
	    put_opt(skb, question, offset + length) ||
	    turn_round(skb, packet, question, &reply, size))
		return -1;
	statistic(rcode ? STATISTIC_NAMES_NXDOMAIN : STATISTIC_NAMES_NODATA);
	return 1 + rcode;
}

/* Of records that rotate, one slice of the two rounds that are stored. `room`: bytes of
 * one round. */
static __always_inline int give(struct __sk_buff *skb, const struct packet *packet,
				struct question *question,
				const struct name_records *head, const __u8 *records,
				__u32 room)
{
	struct dns_reply reply = {.answers = head->answers,
				  .additionals = head->additionals,
				  .length = head->length,
				  .sum = head->sum};
	__u32 length = head->length, skip = 0, offset;
	int size;

	size = make_room(skb, packet, question, &reply);
	if (!size)
		return 0;
	offset = behind_question(packet, question);
	if (head->stride && head->answers)
		skip = bpf_get_prandom_u32() % head->answers * head->stride;
	asm volatile("" : "+r"(length), "+r"(skip));
	/* What does not rotate may fill both rounds. */
	if (!length || skip > room || length > (skip ? room : 2 * room))
		return -1;
	if (skip) {
		if (bpf_skb_store_bytes(skb, offset, records + skip, length, 0))
			return -1;
	} else if (bpf_skb_store_bytes(skb, offset, records, length, 0)) {
		return -1;
	}
	if (put_opt(skb, question, offset + length) ||
	    turn_round(skb, packet, question, &reply, size))
		return -1;
	statistic(STATISTIC_NAMES_FOUND);
	return 1;
}

static __noinline int give_few(struct __sk_buff *skb, const struct packet *packet,
			       struct question *question,
			       const struct name_answer *answer)
{
	return give(skb, packet, question, &answer->head, answer->records,
		    NAME_RECORDS / 2);
}

static __noinline int give_many(struct __sk_buff *skb, const struct packet *packet,
				struct question *question)
{
	const struct name_set *set = bpf_map_lookup_elem(&name_sets, &question->key);

	if (!set || !is_named(set->name, question))
		return 0;
	return give(skb, packet, question, &set->head, set->records, NAME_SET_MAX);
}

/* A name that this pod must not know of does not exist for it. */
static __noinline int hide(struct __sk_buff *skb, const struct packet *packet,
			   struct question *question, __u32 owner)
{
	int answer = deny(skb, packet, question, DNS_NXDOMAIN);

	if (answer <= 0)
		return answer;
	question->hidden = owner;
	statistic(DROP_NAME_HIDDEN);
	return answer | NAME_HIDDEN;
}

/* A name of several owners: told as if it were of those only that the pod may know of.
 */
static __noinline int answer_shared(struct __sk_buff *skb, const struct packet *packet,
				    struct question *question)
{
	const struct name_answer *answer;
	int seen;

	question->key.type = 0;
	answer = bpf_map_lookup_elem(&names, &question->key);
	if (!answer || !is_named(answer->name, question))
		return 0;
	seen = choose_owners(answer, question);
	if (seen == SIGHT_NONE)
		return hide(skb, packet, question, *(const __u32 *)answer->records);
	if (seen == SIGHT_SOME)
		return 0;
	question->key.type = question->type;
	answer = bpf_map_lookup_elem(&names, &question->key);
	if (!answer)
		return deny(skb, packet, question, 0);
	if (!is_named(answer->name, question) ||
	    answer->head.owner != question->owners || answer->head.flags & NAME_PASS)
		return 0;
	return answer->head.flags & NAME_LARGE
		   ? give_many(skb, packet, question)
		   : give_few(skb, packet, question, answer);
}

/* 1 + rcode: answered, the packet is the reply; with NAME_HIDDEN where it is not all of
 * the truth. 0: left as it was, for the process. -1: broken on the way, which cannot
 * be.
 */
__global int answer_name(struct __sk_buff *skb, const struct packet *packet,
			 __u32 endpoint)
{
	struct question *question;
	const struct name_answer *answer;
	__u32 zero = 0, type;
	int seen;

	question = bpf_map_lookup_elem(&new_question, &zero);
	if (!packet || !question || !find_view(endpoint, question) ||
	    !read_question(skb, packet, question))
		return 0;
	type = question->type;
	if (!type || type == DNS_TYPE_SOA || type == DNS_TYPE_OPT ||
	    (type >= DNS_TYPE_META && type <= 255))
		return 0;
	lower_name(question);
	question->key.type = type;
	question->key.seen = 0;
	answer = bpf_map_lookup_elem(&names, &question->key);
	if (answer) {
		if (!is_named(answer->name, question))
			return 0;
		seen = sight(question->view, &answer->head);
		if (seen == SIGHT_SOME)
			return answer_shared(skb, packet, question);
		if (seen == SIGHT_NONE)
			return hide(skb, packet, question, answer->head.owner);
		/* The addresses of pods are told: the connect hook wants to know how
		 * long ago. What the process has to answer is answered, too. */
		if (answer->head.flags & NAME_DIRECT)
			note_lookup(endpoint, answer->head.owner);
		if (answer->head.flags & NAME_PASS)
			return 0;
		if (answer->head.flags & NAME_LARGE)
			return give_many(skb, packet, question);
		return give_few(skb, packet, question, answer);
	}
	question->key.type = 0;
	answer = bpf_map_lookup_elem(&names, &question->key);
	if (!answer)
		return deny(skb, packet, question, DNS_NXDOMAIN);
	if (!is_named(answer->name, question))
		return 0;
	seen = sight(question->view, &answer->head);
	if (seen == SIGHT_SOME)
		return answer_shared(skb, packet, question);
	if (seen == SIGHT_NONE)
		return hide(skb, packet, question, answer->head.owner);
	if (answer->head.flags & NAME_PASS)
		return 0;
	return deny(skb, packet, question, 0);
}

/* A question to the resolver on a connection that is there: of a client that asks all
 * from one socket, some of it for the process. */
static __noinline int leave(struct __sk_buff *skb, const struct packet *packet,
			    __u32 identity)
{
	__u32 ifindex = skb->ifindex;
	const struct endpoint *endpoint;
	int answer;

	if (identity != IDENTITY_RESOLVER || !asks_name(packet) || packet->passed)
		return TC_ACT_OK;
	endpoint = bpf_map_lookup_elem(&endpoints, &ifindex);
	if (!endpoint)
		return TC_ACT_OK;
	answer = answer_name(skb, packet, endpoint->id);
	if (answer > 0)
		return bpf_redirect_peer(ifindex, 0);
	statistic(STATISTIC_NAMES_PASSED);
	return answer ? TC_ACT_SHOT : TC_ACT_OK;
}

/* Whether this pod may have another event for an answer. */
static __always_inline bool may_tell(struct name_client *client)
{
	__u32 span = bpf_ktime_get_coarse_ns() >> 30;

	if (client->span != span) {
		client->span = span;
		client->told = 0;
	}
	client->told += 1;
	return client->told <= NAMES_TOLD_PER_SPAN;
}

static __noinline int note_question(const struct observation *seen, __u32 revision,
				    __u32 endpoint)
{
	__u32 zero = 0;
	struct question *question = bpf_map_lookup_elem(&new_question, &zero);

	if (question) {
		question->seen = *seen;
		question->revision = revision;
		question->endpoint = endpoint;
	}
	return 0;
}

/* That it asked is let through by rules; that it was told nothing is by none. */
static __noinline int tell_hidden(const struct packet *packet,
				  const struct observation *asked, __u32 ifindex,
				  __u32 length)
{
	struct observation seen = *asked;
	__u32 zero = 0;
	struct question *question = bpf_map_lookup_elem(&new_question, &zero);

	count_rule(seen.rule[0]);
	count_rule(seen.rule[1]);
	seen.type = EVENT_DROP;
	seen.reason = DROP_NAME_HIDDEN;
	seen.rule[0] = seen.rule[1] = 0;
	seen.service = question ? question->hidden : 0;
	return tell(packet, &seen, ifindex, length);
}

static __noinline int told(const struct packet *packet, struct name_client *client,
			   int answer, __u32 ifindex, __u32 length)
{
	client->seen.answer = answer & ~NAME_HIDDEN;
	if (client->seen.type == EVENT_AUDIT)
		statistic(STATISTIC_AUDITED);
	if (may_tell(client))
		return answer & NAME_HIDDEN
			   ? tell_hidden(packet, &client->seen, ifindex, length)
			   : tell(packet, &client->seen, ifindex, length);
	count_rule(client->seen.rule[0]);
	count_rule(client->seen.rule[1]);
	statistic(STATISTIC_NAMES_UNTOLD);
	return 0;
}

/* A question that opened no connection: its rules count, and it is told while the pod
 * does not ask for too much. */
static __noinline int tell_answer(const struct packet *packet, int answer,
				  __u32 ifindex, __u32 length)
{
	__u32 zero = 0;
	struct question *question = bpf_map_lookup_elem(&new_question, &zero);
	struct name_client *client = name_client(ifindex);

	if (!client || !question)
		return 0;
	client->source = packet->source;
	client->destination = packet->destination;
	client->seen = question->seen;
	client->revision = question->revision;
	client->ifindex = ifindex;
	client->endpoint = question->endpoint;
	return told(packet, client, answer, ifindex, length);
}

/* A question like the last one of this pod, to policy: answered at once. ASKED: to be
 * judged. */
static __noinline int ask_again(struct __sk_buff *skb, struct packet *packet)
{
	__u32 length = skb->len, ifindex = skb->ifindex;
	struct name_client *client = name_client(ifindex);
	int answer;

	if (!client || client->ifindex != ifindex || client->revision != revision() ||
	    !equal(&client->source, &packet->source) ||
	    !equal(&client->destination, &packet->destination))
		return ASKED;
	answer = answer_name(skb, packet, client->endpoint);
	if (answer > 0) {
		told(packet, client, answer, ifindex, length);
		return bpf_redirect_peer(ifindex, 0);
	}
	statistic(STATISTIC_NAMES_PASSED);
	packet->passed = true;
	return answer ? TC_ACT_SHOT : ASKED;
}
