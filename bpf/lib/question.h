/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Questions: is this packet a plain DNS query, and for which name and type?
 *
 * Only the plain one is read: one question, of class IN, whole, with or without EDNS.
 * Source: RFC 1035, RFC 6891.
 */
#pragma once

#include "event.h"

#define DNS_PORT	  53
#define DNS_HEADER	  12
#define DNS_QUESTION_TAIL 4 /* type and class */
#define DNS_OPT		  11
#define DNS_UDP_PLAIN	  512
#define DNS_UDP_MAX	  1232 /* never a fragment */
#define DNS_QUERY_MAX	  512
#define DNS_LABELS_MAX	  40 /* of an ip6.arpa name: 34 */
#define UDP_LENGTH	  8
#define HEADERS_IPV4	  (ETH_LENGTH + IPV4_LENGTH + UDP_LENGTH)
#define HEADERS_MAX	  (ETH_LENGTH + IPV6_LENGTH + UDP_LENGTH)
#define DNS_TYPE_OPT	  41

/* A question under way; too large for the stack. */
struct question {
	__u64 starts[4]; /* a bit for each offset in the name at which a label starts */
	__u32 length;	 /* of the name */
	__u32 rest;	 /* offset in the message, behind the question */
	__u32 size;	 /* of the message */
	__u32 limit;	 /* bytes that the reply may have */
	__u16 type;
	__u8 has_opt;
	__u8 dnssec_ok;
	__u32 revision;		 /* of that policy */
	__u32 endpoint;		 /* who asks */
	__u32 view;		 /* what names that pod may know of */
	struct observation seen; /* what policy said of it */
	__u32 hidden;		 /* owner of the name that the pod must not know of */
	__u32 owners; /* digest of those of the name's that the pod may know of */
	struct name_key key;
	__u64 name[NAME_WORDS +
		   NAME_ZONE_MAX / 8]; /* lower case; a word of zeros behind */
	__u8 pad_headers[2];
	__u8 headers[HEADERS_MAX]; /* of IPv4, they end here, too */
	__u8 message[DNS_QUERY_MAX + 384];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct question);
} new_question SEC(".maps");

/* host/names.py draws them once. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct name_factors);
} name_factors SEC(".maps");

/* What connection() returns for a question: no verdict of a packet. */
#define ASKED 1000

static __always_inline bool asks_name(const struct packet *packet)
{
	return packet->protocol == IPPROTO_UDP &&
	       packet->destination_port == htons(DNS_PORT);
}

/* Eight bytes of a name in lower case. The length bytes are below 'A'. */
static __always_inline __u64 lower(__u64 word)
{
	__u64 low = word & 0x7f7f7f7f7f7f7f7fULL;
	__u64 above_z = low + 0x2525252525252525ULL;
	__u64 from_a = low + 0x3f3f3f3f3f3f3f3fULL;

	return word | ((from_a ^ above_z) & ~word & 0x8080808080808080ULL) >> 2;
}

static __always_inline __u32 folded(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

/* A sum of bytes that start at this offset: at an odd one they change places. */
static __always_inline __u32 placed(__u64 sum, __u32 offset)
{
	__u32 short_sum = folded(sum);

	return offset & 1 ? __builtin_bswap16(short_sum) : short_sum;
}

/* Hop from label to label; the length of the name, or 0. */
static __always_inline __u32 measure_name(struct question *question)
{
	__u32 at = 0, label, i;

	question->starts[0] = question->starts[1] = 0;
	question->starts[2] = question->starts[3] = 0;
#pragma clang loop unroll(disable)
	for (i = 0; i < DNS_LABELS_MAX; i++) {
		if (at >= NAME_MAX - 1)
			return 0;
		label = question->message[DNS_HEADER + (at & (NAME_MAX - 1))];
		question->starts[at >> 6 & 3] |= 1ULL << (at & 63);
		if (!label)
			return at + 1;
		if (label > 63)
			return 0;
		at += label + 1;
	}
	return 0;
}

/* The OPT record, if any, must end the message; what options it has is all one. */
static __always_inline bool read_opt(struct question *question, __u32 rest)
{
	const __u8 *opt = question->message + rest;
	__u32 size;

	question->has_opt = question->message[11];
	question->dnssec_ok = 0;
	question->limit = DNS_UDP_PLAIN;
	if (!question->has_opt)
		return question->size == rest;
	if (question->size < rest + DNS_OPT || opt[0] || opt[1] ||
	    opt[2] != DNS_TYPE_OPT || opt[5] || opt[6] ||
	    question->size != rest + DNS_OPT + (opt[9] << 8 | opt[10]))
		return false;
	question->dnssec_ok = opt[7] & 0x80;
	size = opt[3] << 8 | opt[4];
	if (size > DNS_UDP_MAX)
		size = DNS_UDP_MAX;
	if (size > DNS_UDP_PLAIN)
		question->limit = size;
	return true;
}

/* The name in lower case, and its hash. */
static __always_inline void lower_name(struct question *question)
{
	const struct name_factors *factors;
	__u64 *name, word, hash = 0;
	__u32 length, zero = 0, i;

	factors = bpf_map_lookup_elem(&name_factors, &zero);
	if (!factors)
		return;
	length = question->length;
	name = question->name;
#pragma clang loop unroll(disable)
	for (i = 0; i < NAME_WORDS && i * 8 < length; i++) {
		word = lower(*(__u64 *)(question->message + DNS_HEADER + i * 8));
		if (length - i * 8 < 8)
			word &= (1ULL << (length - i * 8) * 8) - 1;
		hash += (word & 0xffffffff) * factors->factors[2 * i] +
			(word >> 32) * factors->factors[2 * i + 1];
		name[i] = word;
	}
	name[i] = 0;
	question->key.hash = hash;
}

/* Whether an element is of the name that is asked for, not of one with its hash. */
static __always_inline bool is_named(const __u64 *name, const struct question *question)
{
	__u32 i;

#pragma clang loop unroll(disable)
	for (i = 0; i < NAME_WORDS && i * 8 < question->length; i++) {
		if (name[i] != question->name[i])
			return false;
	}
	return true;
}

/* The whole packet, so that its message is where it always is. */
static __always_inline bool load_question(struct __sk_buff *skb, __u32 start,
					  __u32 size, struct question *question)
{
	/* The compiler knows the bounds and would drop them; the verifier wants them.
	 */
	asm volatile("" : "+r"(size));
	if (size < DNS_HEADER + 5 || size > DNS_QUERY_MAX)
		return false;
	if (start == HEADERS_MAX)
		return !bpf_skb_load_bytes(skb, 0, question->headers,
					   HEADERS_MAX + size);
	return !bpf_skb_load_bytes(skb, 0, question->message - HEADERS_IPV4,
				   HEADERS_IPV4 + size);
}

/* Whether it is a plain question; then it is read. */
static __always_inline bool read_question(struct __sk_buff *skb,
					  const struct packet *packet,
					  struct question *question)
{
	__u32 start, size, length, rest;
	__u8 *message;

	start = packet->transport + UDP_LENGTH;
	size = packet->end - start;
	message = question->message;
	if (packet->end < start || size < DNS_HEADER + 5 || size > DNS_QUERY_MAX ||
	    packet->fragment || skb->gso_size ||
	    start != (packet->family == 4 ? HEADERS_IPV4 : HEADERS_MAX) ||
	    !load_question(skb, start, size, question))
		return false;
	asm volatile("" : "+r"(size));
	if (size > DNS_QUERY_MAX)
		return false;
	/* A standard query with RD, AD and CD as they like, of one question, and OPT.
	 */
	if (message[2] & 0xfe || message[3] & 0xcf || message[4] || message[5] != 1 ||
	    *(__u32 *)(message + 6) || message[10] || message[11] > 1)
		return false;
	question->size = size;
	*(__u32 *)(message + size) = 0;
	length = measure_name(question);
	if (!length || DNS_HEADER + length + DNS_QUESTION_TAIL > size)
		return false;
	rest = DNS_HEADER + length;
	asm volatile("" : "+r"(rest));
	if (rest > DNS_HEADER + NAME_MAX)
		return false;
	question->type = message[rest] << 8 | message[rest + 1];
	if (message[rest + 2] || message[rest + 3] != 1)
		return false;
	question->length = length;
	question->rest = rest + DNS_QUESTION_TAIL;
	return read_opt(question, rest + DNS_QUESTION_TAIL);
}
