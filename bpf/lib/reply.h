/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Replies: a query becomes its own answer, and goes back where it came from.
 *
 * The question's bytes stay, so that the name keeps its case. Checksums are moved by
 * the difference: nobody here knows whether the one there is whole yet.
 */
#pragma once

#include "nat.h"
#include "question.h"

/* What goes behind the question. */
struct dns_reply {
	__u32 length; /* without owner and OPT */
	__u32 sum;
	__u16 owner; /* pointer before the records; 0 = none */
	__u8 answers;
	__u8 authorities;
	__u8 additionals;
	__u8 rcode;
	__u8 pad[2];
};

static __always_inline __u32 behind_question(const struct packet *packet,
					     const struct question *question)
{
	return packet->transport + UDP_LENGTH + question->rest;
}

/* Make the packet as long as its reply; the length of that message, 0 when it must not
 * be, -1 when it would not. The last moment to leave it alone. */
static __always_inline int make_room(struct __sk_buff *skb, const struct packet *packet,
				     const struct question *question,
				     const struct dns_reply *reply)
{
	__u32 size = question->rest + (reply->owner ? 2 : 0) + reply->length +
		     (question->has_opt ? DNS_OPT : 0);

	if (size > question->limit ||
	    bpf_skb_change_tail(skb, packet->transport + UDP_LENGTH + size, 0))
		return 0;
	return size;
}

static __always_inline void swap(__u8 *a, __u8 *b, __u32 length)
{
	__u8 kept;
	__u32 i;

#pragma unroll
	for (i = 0; i < length; i++) {
		kept = a[i];
		a[i] = b[i];
		b[i] = kept;
	}
}

static __always_inline __u32 header_sum(const struct iphdr *ip)
{
	const __u16 *words = (const __u16 *)ip;
	__u64 sum = 0;
	__u32 i;

#pragma unroll
	for (i = 0; i < IPV4_LENGTH / 2; i++)
		sum += words[i];
	return folded(sum);
}

/* Of a message's header, without its number. */
static __always_inline __u32 front_sum(const struct question *question)
{
	__u32 sum = 0;
	int i;

#pragma unroll
	for (i = 2; i < DNS_HEADER; i += 2)
		sum += *(const __u16 *)(question->message + i);
	return sum;
}

/* What the reply adds to the sum of the query's message behind the question, which is
 * taken from it. */
static __noinline __u32 tail_difference(const struct question *question,
					const struct dns_reply *reply)
{
	__u32 at = question->rest, rest = question->rest, left, opt;
	__u64 sum = 0;

	left = question->size - rest;
	asm volatile("" : "+r"(left), "+r"(rest));
	if (left && left <= DNS_QUERY_MAX - 16 && rest <= DNS_HEADER + NAME_MAX + 4)
		sum += (__u16)~placed(
		    bpf_csum_diff(NULL, 0, question->message + rest, left + 3 & ~3, 0),
		    at);
	if (reply->owner) {
		sum += placed(reply->owner, at);
		at += 2;
	}
	sum += placed(reply->sum, at);
	at += reply->length;
	if (question->has_opt) {
		opt = htons(DNS_TYPE_OPT << 8 | DNS_UDP_MAX >> 8) +
		      htons((DNS_UDP_MAX & 255) << 8) + htons(question->dnssec_ok);
		sum += placed(opt, at);
	}
	return folded(sum);
}

/* From the first header to the question's end, and the pointer behind it. */
static __always_inline long store_front(struct __sk_buff *skb,
					struct question *question,
					const struct dns_reply *reply,
					const __u8 *first, __u32 headers)
{
	__u32 length = question->rest;

	/* The verifier wants the bounds that read_question() knew. */
	asm volatile("" : "+r"(length));
	if (length > DNS_HEADER + NAME_MAX + DNS_QUESTION_TAIL)
		return -EINVAL;
	if (reply->owner) {
		*(__u16 *)(question->message + length) = reply->owner;
		length += 2;
	}
	return bpf_skb_store_bytes(skb, 0, first, headers + length, 0);
}

/* The headers of the query become those of the reply. */
static __always_inline int turn_round(struct __sk_buff *skb,
				      const struct packet *packet,
				      struct question *question,
				      const struct dns_reply *reply, __u32 size)
{
	__u8 *dns = question->message, *udp = dns - UDP_LENGTH, *first;
	__be16 old_length, new_length = htons(UDP_LENGTH + size);
	bool partial = checksum_kind(skb) == CHECKSUM_PARTIAL;
	__u64 difference = 0;
	long failed;

	if (unlikely(!partial))
		difference = tail_difference(question, reply) +
			     (__u16)~folded(front_sum(question));
	swap(udp, udp + 2, 2);
	old_length = *(__be16 *)(udp + 4);
	*(__be16 *)(udp + 4) = new_length;
	dns[2] = 0x84 | (dns[2] & 1);
	dns[3] = 0x80 | (dns[3] & 0x10) | reply->rcode;
	dns[7] = reply->answers;
	dns[9] = reply->authorities;
	dns[11] = reply->additionals + question->has_opt;
	if (likely(partial)) /* it never left the machine: a sum of its pseudo header */
		*(__u16 *)(udp + 6) =
		    fold_sum(*(__u16 *)(udp + 6) + (__u16)~old_length + new_length);
	else
		difference += front_sum(question) + new_length + (__u16)~old_length;
	if (packet->family == 4) {
		struct iphdr *ip = (struct iphdr *)(udp - IPV4_LENGTH);

		first = dns - HEADERS_IPV4;
		swap((__u8 *)&ip->saddr, (__u8 *)&ip->daddr, 4);
		ip->tot_len = htons(IPV4_LENGTH + UDP_LENGTH + size);
		ip->ttl = 64;
		ip->check = 0;
		ip->check = ~header_sum(ip);
		swap(first, first + 6, 6);
		failed = store_front(skb, question, reply, first, HEADERS_IPV4);
	} else {
		struct ipv6hdr *ip = (struct ipv6hdr *)(udp - IPV6_LENGTH);

		first = dns - HEADERS_MAX;
		swap((__u8 *)&ip->saddr, (__u8 *)&ip->daddr, 16);
		ip->payload_len = new_length;
		ip->hop_limit = 64;
		swap(first, first + 6, 6);
		failed = store_front(skb, question, reply, first, HEADERS_MAX);
	}
	if (failed || partial)
		return failed;
	/* Two steps: what the device summed up (skb->csum) has no pseudo header. */
	return bpf_l4_csum_replace(skb, packet->transport + 6, old_length, new_length,
				   BPF_F_PSEUDO_HDR | BPF_F_MARK_MANGLED_0 | 2) ||
	       bpf_l4_csum_replace(skb, packet->transport + 6, 0, folded(difference),
				   BPF_F_MARK_MANGLED_0);
}

static __always_inline int put_opt(struct __sk_buff *skb,
				   const struct question *question, __u32 offset)
{
	__u8 opt[DNS_OPT + 1] = {0, 0, DNS_TYPE_OPT, DNS_UDP_MAX >> 8,
				 DNS_UDP_MAX & 255};

	if (!question->has_opt)
		return 0;
	opt[7] = question->dnssec_ok;
	return bpf_skb_store_bytes(skb, offset, opt, DNS_OPT, 0);
}
