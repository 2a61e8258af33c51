/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Types of names and views that the kernel shares with Python; see sixfold.h. */
#pragma once

#include <linux/types.h>

/* Names: one record set, by owner. A name that exists has an entry of type 0, too. */
#define NAME_MAX      256  /* bytes on the wire; zeros behind the root label */
#define NAME_RECORDS  160  /* most answers: an element of 512 bytes */
#define NAME_SET_MAX  1216 /* the longest answer that fits a packet of ours */
#define NAME_ZONE_MAX 128  /* bytes of an origin */
#define NAME_SOA_MAX  320

#define NAME_WORDS (NAME_MAX / 8)

/* Whose names have an entry for each choice of those whom one sees; of more the process
 * knows. */
#define NAME_OWNERS 3

/* Who looks a name up must compare: another name may have the same hash. */
struct name_key {
	__u64 hash;
	__u32 seen; /* of a name with several owners: a bit for each that is told of;
		       0: all of them, or it has no such */
	__u16 type; /* host order; 0: the name itself */
	__u16 pad;
};

/* The sum of its 32-bit words (little endian, zeros behind), each times one of these:
 * different for each host, so that nobody can choose names that meet. */
struct name_factors {
	__u64 factors[NAME_MAX / 4];
};

enum name_flags {
	NAME_PASS = 1,	 /* not for the kernel: no type of this name, or not this one */
	NAME_LARGE = 2,	 /* its records are in name_sets */
	NAME_SHARED = 4, /* of several owners: its entry of type 0 says which */
	NAME_DIRECT = 8, /* leads to pods themselves: who was told is noted */
};

struct name_records {
	__u16 length; /* of one answer; what rotates is stored twice */
	__u16 sum;    /* one's complement, of that many bytes at an even place */
	__u8 stride;  /* bytes of one record, if they rotate; else 0 */
	__u8 answers;
	__u8 additionals;
	__u8 flags;
	__u32 owner; /* whoever may reach it sees the name; 0: everybody does; of a
			NAME_SHARED, the digest of all that are told of */
	__u32 pad;
};

/* A name's owners, in the records of its entry of type 0. Digest: of those that are
 * told of, in this order, each added to the sum so far times this. An entry that was
 * written for other owners is not theirs. */
#define OWNERS_FACTOR 0x9e3779b1

struct name_answer {
	__u64 name[NAME_WORDS]; /* lower case, zeros behind */
	struct name_records head;
	__u8 records[NAME_RECORDS];
};

struct name_set {
	__u64 name[NAME_WORDS];
	struct name_records head;
	__u8 records[2 * NAME_SET_MAX];
};

/* What negative answers need of a zone of ours. Numbered from 0, the narrower first. */
struct name_zone {
	__u16 length; /* of the origin on the wire */
	__u16 soa_length;
	__u16 soa_sum;
	__u8 passes; /* 1: nothing is denied here, the process knows better */
	__u8 pad;
	__u8 name[NAME_ZONE_MAX]; /* lower case, zeros behind */
	__u8 soa[NAME_SOA_MAX];	  /* without its owner, which is in the question */
};

/* What pods that policy does not tell apart see: a bit for each owner of names. */
enum view { VIEW_NOTHING = 0, VIEW_EVERYTHING = 1 };
#define VIEW_LIMITED                                                                   \
	(1u << 31) /* beside the number: the process is to see what is asked */

#define VIEW_LINE_BITS 512

struct view_key {
	__u32 view;
	__u32 line; /* owner / VIEW_LINE_BITS */
};

struct view_line {
	__u64 bits[VIEW_LINE_BITS / 64];
};

/* Addresses of pods that names lead to, and who dials them. */
#define NAMED_OWNERS 4

struct named_address {
	__u32 owners[NAMED_OWNERS]; /* services that it is of; 0 = no more */
	__u64 ttl_ns;
	__u64 retired; /* monotonic, when it was taken out of the names; 0: it is in
			  them */
};

struct pod_owner {
	__u32 endpoint;
	__u32 owner;
};

/* What is known of a dial to an address that names lead to; model/dial.py has the same.
 */
enum dial {
	DIAL_FRESH = 0,		/* or no such address */
	DIAL_RETIRED = 1,	/* no answer had it for longer than its TTL */
	DIAL_EXPIRED = 2,	/* later than the TTL of the last answer */
	DIAL_NO_LOOKUP = 3,	/* no answer is remembered */
	DIAL_REDIRECTED = 0x80, /* besides: led to who serves now */
};

/* How a pod has dialled addresses of one service itself. Counted without locks: some of
 * what happens at the same time may be missed. */
struct dials {
	__u64 since;	  /* monotonic */
	__u64 longest_ns; /* since the last answer, at most */
	__u32 connections;
	__u32 retired; /* to an address that no answer had for longer than its TTL */
	__u32 expired; /* later than the TTL of the last answer */
	__u32 late;    /* of these: three times as late, and more */
	__u32 unasked; /* without any answer that is remembered */
	__u32 redirected;
	union address address; /* last retired one */
};
