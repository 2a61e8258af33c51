/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Types that the kernel datapath shares with Python (src/sixfold/host/layout.py).
 *
 * Addresses are 16 bytes, IPv4 as ::ffff:a.b.c.d, so that one path serves both
 * families. Ports are big-endian, as on the wire; all else is in host order.
 * tests/twin/test_layout.py compares every struct with its Python twin through BTF.
 */
#pragma once

#include <linux/types.h>

union address {
	__be32 word[4];
	__u64 half[2];
};

#include "sixfold_names.h"

/* Identities: reserved as Cilium numbers them; see model/identity.py. */
enum identity {
	IDENTITY_UNKNOWN = 0,
	IDENTITY_HOST = 1,
	IDENTITY_WORLD = 2,
	IDENTITY_RESOLVER = 128,
	IDENTITY_ANY_POD = 129, /* in policy keys only */
	IDENTITY_FIRST_POD = 256,
	IDENTITY_LAST_POD = 65535,
	IDENTITY_FIRST_CIDR = 1 << 24,
	IDENTITY_OUTSIDE = 1 << 25, /* added to a CIDR's, for addresses of the world */
};

/* Append-only; model/reason.py and docs/drops.md hold the same list. */
enum drop_reason {
	DROP_NONE = 0,
	DROP_INVALID_SOURCE_MAC = 130,
	DROP_INVALID_SOURCE_IP = 132,
	DROP_POLICY_DENIED = 133,
	DROP_INVALID_PACKET = 134,
	DROP_CT_FULL = 135,
	DROP_UNSUPPORTED_L4 = 142,
	DROP_EXTENSION_HEADERS = 156,
	DROP_FRAGMENT_UNKNOWN = 157,
	DROP_NO_BACKEND = 158,
	DROP_UNSUPPORTED_L2 = 166,
	DROP_NO_NAT_MAPPING = 167,
	DROP_SOURCE_RANGE = 177,
	DROP_POLICY_DENY = 181,
	DROP_ARP_STRANGER = 191,
	DROP_ICMP_UNRELATED = 192,
	DROP_NO_ENDPOINT = 193,
	DROP_IP_OPTIONS = 194,
	DROP_MULTICAST = 206,	   /* Cilium's list ends at 205 */
	DROP_NAME_HIDDEN = 207,	   /* a question: answered that there is no such name */
	DROP_MTLS_REQUIRED = 208,  /* plaintext, to a port that is strict */
	DROP_TUNNEL_PORT = 209,	   /* to where tunnels end, from who is not the proxy */
	DROP_PROXY_AWAY = 210,	   /* a dial: nobody took it into the tunnel */
	DROP_PROXY_REQUIRED = 211, /* to the world, past the proxy that has to look */
	DROP_CAPABILITY_DENIED = 212, /* a system call: refused by the kernel */
	DROP_NOT_ATTESTED = 213, /* a dial, by whom the pod's identity is not for */
	DROP_READ_ONLY = 214,	 /* a system call: to write what is there to read */
	DROP_NO_PROCESS = 215,	 /* a system call: about a process that is not there */
};

/* Indices of the statistics map below the drop reasons. */
enum statistic {
	STATISTIC_LOST = 0,	  /* events that found the ring full */
	STATISTIC_FORWARDED = 1,  /* new connections */
	STATISTIC_IGNORED = 2,	  /* noise of every stack: MLD, RS, DAD, IGMP */
	STATISTIC_ANSWERED = 3,	  /* ARP requests and neighbour solicitations */
	STATISTIC_TRANSLATED = 4, /* connects and sends to a service */
	STATISTIC_REFUSED = 5,	  /* those without a backend */
	STATISTIC_CUT = 6,	  /* connections that a change no longer allows */
	STATISTIC_UNCOUNTED = 7,  /* hits of rules that found rule_hits full */
	STATISTIC_AUDITED = 8,	  /* connections that only an audit let in */
	STATISTIC_RESET =
	    9, /* packets from outside answered with a reset, or an error */
	STATISTIC_UNLOADED = 10,    /* arrivals that no load counts: arrived is full */
	STATISTIC_CAPTURED = 11,    /* connections that went through a tunnel */
	STATISTIC_TUNNELS = 12,	    /* of proxies: no flows of their own */
	STATISTIC_PLAINTEXT = 13,   /* let in by a permissive port only */
	STATISTIC_PASSED_OVER = 14, /* dials past a backend that is deaf */
	STATISTIC_REFUSALS_UNTOLD = 15, /* refused system calls without an event */
	STATISTIC_NAMES_FOUND = 20,	/* questions answered here: with records */
	STATISTIC_NAMES_NODATA = 21,	/* ... the name is there, not that type */
	STATISTIC_NAMES_NXDOMAIN = 22,	/* ... no such name */
	STATISTIC_NAMES_PASSED = 23,	/* left to the resolver's process */
	STATISTIC_NAMES_UNTOLD = 24,	/* answered here, but not one event each */
};

enum runtime_index {
	RUNTIME_REVISION = 0,
	RUNTIME_BACKENDS =
	    1,		     /* highest number that a backend ever had; for who reads */
	RUNTIME_OUTSIDE = 3, /* 1: a frontend has FRONTEND_OUTSIDE, or had */
	RUNTIME_TRACKING = 2, /* 1: there is a policy for the host, or is about to be */
	RUNTIME_RELAYING = 4, /* 1: a client outside was sent to a backend that is no
				 pod here */
	RUNTIME_MESH = 5,     /* 1: there are pods in the mesh, or were */
	RUNTIME_PROXY = 6,    /* the proxy's cgroup: lower half of its number ... */
	RUNTIME_PROXY_HIGH = 7, /* ... and upper half */
};

/* On packets that the host's stack is to forward under its own address: host/nat.py. */
#define MARK_RELAYED 0x08000000

/* Of node ports; model/service.py has the same two. */
#define NODE_PORT_FIRST 30000
#define NODE_PORT_LAST	32767

/* Of the mesh; model/mesh.py has the same. */
#define OUTBOUND_PORT 15001
#define HTTP_PORT     15002 /* the same, where requests are looked at */
#define OUTWARD_PORT  15003
#define NAMED_PORT    15005 /* the same, where handshakes are */
#define OUTWARD_MARK  0x60  /* in pods: sockets of the proxy to the world */
#define TUNNEL_PORT   15008

/* What the proxy reads of connections to a service. */
enum routed_by {
	ROUTED_BY_REQUEST = 1, /* or nothing: a TCPRoute */
	ROUTED_BY_NAME = 2,    /* in the handshake: a TLSRoute */
};

enum direction { INGRESS = 0, EGRESS = 1 };

enum endpoint_flag {
	ENDPOINT_ACCELERATED = 1, /* its TCP with others of the kind needs no packets */
};

/* A pod, by host-side ifindex (source check) and by address (delivery). */
struct endpoint {
	__u32 ifindex;
	__u32 id; /* 1..131071, index into policy_of; 0 is the host */
	__u32 identity;
	__u32 cidr4; /* local CIDR identity of the address, 0 = none */
	__u32 cidr6;
	__u32 flags;	    /* enum endpoint_flag */
	union address ipv4; /* all zero = none */
	union address ipv6;
};

/* Longest prefix of a remote address; prefixlen counts the 128 mapped bits. */
struct ipcache_key {
	__u32 prefixlen;
	union address address;
} __attribute__((packed));

struct ipcache_entry {
	__u32 identity;
	__u32 cidr;   /* local CIDR identity as well, for reserved identities inside an
			 ipBlock */
	__u32 domain; /* identity of the domain names that resolved to it; 0 = none */
};

/* One rule of a section, for some ports of one peer. Exact: the port has its last
 * 16 - bits bits cleared. A peer that has rules has a head (all zero but section and
 * peer): the rule for every protocol and port, if any, and which lengths to ask for.
 * A section number means one content for ever, and a table is a few of them, so that
 * writing policy_of[id] switches all at once, and tables share what they have alike. */
struct policy_key {
	__u32 section;
	__u32 peer;
	__u8 protocol;
	__u8 bits;   /* of the port that count: 16 this one, 0 all */
	__be16 port; /* ICMP: the type of the request */
};

enum verdict { VERDICT_ALLOW = 1, VERDICT_PASS = 2, VERDICT_DENY = 3 };

/* Precedences (policy/ir.py) of rules that let nothing pass but the proxy's. */
#define PRECEDENCE_SEEN	   ((1u << 28) - 1) /* a plain allow goes before */
#define PRECEDENCE_CARRIED ((1u << 28) + 1) /* goes before a plain allow */

struct policy_entry {
	__u32 rule;
	__u32 strength; /* precedence, then two bits of verdict: the highest decides */
	__u32 lengths;	/* of a head: bit n, the peer has rules with n bits of port */
};

/* No entry: no policy loaded, fail closed. */
struct policy_table {
	__u32 rule[2]; /* by direction: what names the verdict when nothing matches */
	__u32 section[4]; /* by direction, + 2 for the Admin tier; 0 says nothing */
	__u32 audit; /* table that would be in force: asked too, and told; 0 = none */
};

/* Any address of the node is that of a node port: 0.0.0.0 or ::. */
struct frontend_key {
	union address address;
	__be16 port; /* port 0 and protocol 0: the address is a service, whatever the
			port; of those outside the service networks */
	__u8 protocol;
	__u8 pad[5];
};

/* How one of several slots is chosen; model/algorithm.py has the same list. */
enum algorithm {
	ALGORITHM_RANDOM = 0,
	ALGORITHM_ROUND_ROBIN = 1,
	ALGORITHM_LEAST_CONNECTIONS = 2,
	ALGORITHM_MAGLEV = 3,
	ALGORITHM_SOURCE_HASH = 4,
};

/* Who may dial a frontend besides sockets of this host and its pods. */
enum frontend_flags {
	FRONTEND_OUTSIDE = 1,	/* whoever reaches an uplink */
	FRONTEND_RANGES = 2,	/* of them, only who is in source_ranges */
	FRONTEND_ANNOUNCED = 4, /* the address is ours alone: neighbours are answered */
};

/* Slots repeat, or are a Maglev table, where backends have weights or the algorithm
 * wants it; then each backend is listed once more behind them, for who reads the map.
 */
struct frontend {
	__u32 service; /* number, for flows */
	__u32 base;    /* first of count slots, a multiple of SLOTS_PER_LINE */
	__u32 count;   /* 0: connects are refused */
	__u32
	    members; /* backends listed behind the slots; 0: the slots are that list */
	__u32 revision;	  /* of the slots: no two contents have the same */
	__u32 affinity_s; /* a client keeps its backend until it was idle so long; 0: no
			   */
	__u8 algorithm;
	__u8 flags; /* enum frontend_flags */
	__u8 pad[2];
};

/* Where cluster addresses are from, by family: what no frontend has is refused. */
struct service_network {
	union address network;
	union address mask; /* all zero: there is none */
};

/* loadBalancerSourceRanges; prefixlen counts the service number, too. */
struct source_range {
	__u32 prefixlen;
	__u32 service;
	union address address;
} __attribute__((packed));

/* A device that faces the world. */
struct device {
	__u8 mac[6];
	__u8 pad[2];
};

/* Session affinity: where this client was last sent. */
struct affinity_key {
	union address address; /* of a client outside; else all zero */
	__u32 client;	       /* endpoint number, 0 is the host */
	__u32 service;
	__be16 port;
	__u8 protocol;
	__u8 ipv6;
};

struct affinity {
	__u32 revision; /* of the slots when it was last seen among them */
	__u32 slot;
	__u32 last_s; /* monotonic, in seconds */
};

/* A slot: the number of a backend, and its weight here. 0 is no backend. */
enum slot {
	SLOT_NUMBER_BITS = 18,
	SLOT_NUMBER_MASK = (1 << SLOT_NUMBER_BITS) - 1,
	SLOTS_PER_LINE = 16,
};

struct slot_line {
	__u32 slot[SLOTS_PER_LINE];
};

struct backend {
	union address address;
	__be16 port;
	__u8 protocol;
	__u8 pad[5];
};

/* Connections from this host to one backend. */
struct load {
	__s64 active; /* sockets that are connecting or connected */
	__u64 total;  /* since the backend was numbered */
};

/* How TCP between pods travels. */
enum transport {
	TRANSPORT_PLAIN = 0,
	TRANSPORT_MTLS = 1,    /* in a tunnel: its packets are never seen */
	TRANSPORT_TUNNEL = 2,  /* it is one, between proxies */
	TRANSPORT_OUTWARD = 3, /* the proxy's, to the world: it has looked */
	TRANSPORT_GIVEN = 4,   /* a pod's, given to the proxy, which dials the world */
};

/* Whether TCP from other pods has to be in a tunnel; model/mesh.py has the same. */
enum mode { MODE_DISABLED = 0, MODE_PERMISSIVE = 1, MODE_STRICT = 2 };

/* Port 0: all that have no line of their own. Who has that is in the mesh. */
struct port_mode_key {
	__u32 endpoint;
	__be16 port;
	__u8 pad[2];
};

struct port_mode {
	__u32 ifindex; /* of the endpoint: where its record is */
	__u8 mode;
	__u8 looked_into; /* what comes from pods must be HTTP */
	__u8 looks_out;	  /* of port 0: the proxy has to see some of what it dials */
	__u8 pad;
};

/* Whose processes of a pod its proxy speaks for, where not everybody's. */
#define SPEAKERS_MAX 32
#define ANYBODY	     0xffffffff

struct speakers {
	__u32 count;
	__u32 user[SPEAKERS_MAX]; /* effective; both must fit, ANYBODY does */
	__u32 group[SPEAKERS_MAX];
};

/* Who came in plaintext to a permissive port. */
struct plaintext_key {
	__u32 client; /* endpoint numbers */
	__u32 server;
	__be16 port;
	__u8 pad[6];
};

struct plaintext {
	__u64 connections;
	__u64 last_ns; /* monotonic */
};

/* One connection. Sides are ordered by address, then port, so that both directions
 * share it. */
struct conntrack_key {
	union address address[2];
	__be16 port[2]; /* ICMP echo: the identifier, twice */
	__u8 protocol;
	__u8 icmp_request; /* a reply has that of its request */
	__u8 pad[2];
};

/* Whose a connection is that the uplinks see. */
enum uplink {
	UPLINK_NONE = 0,      /* it is a pod's */
	UPLINK_HOST = 1,      /* the host's, which is its first side; + 1: its second */
	UPLINK_FORWARDED = 3, /* somebody else's, under the host's address */
	UPLINK_RELAYED = 4, /* of a client outside and a backend that is no pod here */
};

struct conntrack {
	__u32 revision;	  /* of policy, when last judged; 0: denied since */
	__u32 ifindex[2]; /* where each side lives; 0 = the host's stack */
	__u32 last_seen;  /* monotonic, in units of 2^30 ns: a shift, no division */
	__u32 identity[2];
	__u32 rule[2]; /* by direction */
	__u32 service;
	__u8 originator; /* index of the side that opened it */
	__u8 tcp_flags;	 /* all seen, both directions */
	__be16 service_port;
	__u32 tick;	  /* jiffies / 256, when the clock was last looked at */
	__u8 carried[2];  /* enum carried: what each side sends */
	__u8 uplink;	  /* enum uplink */
	__u8 transport;	  /* enum transport */
	__u64 packets[2]; /* sent by each side; of what is carried, messages and payload
			   */
	__u64 bytes[2];
	union address service_address; /* dialled by a client outside, behind ... */
	__u32 client_ifindex;	       /* ... this device; 0: not so */
	__u8 dial;		       /* enum dial */
	__u8 pad_end[3];
};

/* A socket whose connection is in a tunnel, as its proxy sees it: who dialled. */
struct captured_key {
	__u64 namespace; /* network namespace cookie */
	union address address;
	__be16 port;
	__u8 pad[6];
};

/* What it dialled, and what conntrack would say of it, were there packets. */
struct captured {
	struct conntrack_key connection;
	struct conntrack entry;
	union address
	    dialled;	     /* what the proxy is told: a service whose requests are */
	__be16 dialled_port; /* routed, or else the pod */
	__u8 pad[6];
};

/* One direction of a connection. */
struct tuple {
	union address source;
	union address destination;
	__be16 port[2];
	__u8 protocol;
	__u8 icmp_request;
	__u8 pad[2];
};

enum arrival_flag {
	ARRIVAL_COUNTED = 1, /* somebody answered: it is in the backend's load, if there
				is room */
	ARRIVAL_RELAYED = 2, /* the backend is no pod here: by the host's stack */
};

/* A connection from outside, by the tuple that its client sees: where it goes. Its
 * conntrack entry is that of client and backend; what it says is known here too until
 * the next tick, so that most packets look no further. */
struct arrival {
	union address backend;
	__be16 port;
	__u8 flags;	/* enum arrival_flag */
	__u8 tcp_flags; /* those of the client that conntrack has, but what opens and
			   ends */
	__u32 number;	/* of the backend */
	__u32 revision; /* when last judged */
	__u32 tick;
	__u32 ifindex;	      /* where the backend lives */
	__u32 client_ifindex; /* the device by which its client comes */
	__u64 packets;	      /* of the client, that conntrack has not counted yet */
	__u64 bytes;
};

/* The same for one flow of those that share a hash, found without a lookup; true only
 * while all that it borrows is of this tick. */
struct arrival_line {
	struct tuple tuple;
	union address backend;
	__be16 port;
	__u8 tcp_flags;
	__u8 pad;
	__u32 version; /* odd: somebody is writing */
	__u32 revision;
	__u32 tick;
	__u32 ifindex;
	__u32 client_ifindex; /* 0: the line says nothing */
	__u64 packets;	      /* of the client, that its arrival has not counted yet */
	__u64 bytes;
};

/* Of the hash of a tuple, by word; host/layout.py has the same. */
#define LINE_FACTOR_0 0x9e3779b97f4a7c15ULL
#define LINE_FACTOR_1 0xd6e8feb86659fd93ULL
#define LINE_FACTOR_2 0xa0761d6478bd642fULL
#define LINE_FACTOR_3 0xe7037ed1a0b428dbULL
#define LINE_FACTOR_4 0x8ebc6af09c88c6e3ULL

/* How data gets to the other side, where both are accelerated. */
enum carried {
	CARRIED_BY_PACKETS = 0,
	CARRIED_BY_SOCKETS = 1,
	CARRIED_NO_MORE = 2, /* by packets from some byte on, for good */
};

/* The service that this CPU's last connect or send was translated from: its first
 * packet, in the same system call, takes it along to conntrack and the flow log. */
struct translation {
	union address address; /* of the backend */
	__be16 port;
	__be16 service_port;
	__u32 service; /* 0: taken */
	__u32 endpoint;
	__u32 time; /* monotonic, in units of 2^24 ns */
	__u8 protocol;
	__u8 dial; /* enum dial */
	__u8 pad[6];
};

/* The same for connected datagram sockets, whose first packet comes later: what this
 * pod last dialled to get there. A direct sender from the same pod is taken for one
 * too. */
struct dialled_key {
	union address address; /* of the backend */
	__u32 endpoint;
	__be16 port;
	__u8 protocol;
	__u8 pad;
};

struct dialled_service {
	__u32 service;
	__be16 service_port;
	__u8 dial; /* enum dial */
	__u8 pad;
};

/* What a later fragment needs of its first. */
struct fragment_key {
	union address source;
	union address destination;
	__u32 id;
	__u8 protocol;
	__u8 pad[3];
};

struct fragment {
	__be16 source_port;
	__be16 destination_port;
	__u8 icmp_request;
	__u8 pad[3];
};

/* Socket hooks: what a socket dialled, and what it got. */
struct dialled {
	union address service_address;
	union address backend_address;
	__be16 service_port;
	__be16 backend_port;
	__u32 counted; /* number of the backend in whose load it is counted; 0 = none */
};

/* Where nobody listens: a port of a pod, or of any other backend. */
struct deaf_key {
	union address address; /* of a backend that is no pod; else all zero */
	__u32 endpoint;	       /* of a pod; else 0 */
	__be16 port;
	__u8 pad[2];
};

/* Unconnected UDP: whose answer is this? */
struct reply_key {
	__u64 cookie;
	union address address;
	__be16 port;
	__u8 pad[6];
};

struct reply {
	union address address;
	__be16 port;
	__u8 pad[6];
};

/* Unconnected UDP, where the algorithm has a memory: what this socket was given. */
struct sender {
	__u32 revision; /* of the slots it was drawn from */
	__u32 slot;
};

enum event_type {
	EVENT_VERDICT = 1,
	EVENT_DROP = 2,
	EVENT_TRANSLATION = 3,
	EVENT_CUT = 4,	 /* an open connection that policy no longer allows */
	EVENT_AUDIT = 5, /* allowed, but the table in audit would deny it */
};

struct flow_event {
	__u64 time_ns; /* CLOCK_MONOTONIC */
	__u8 type;
	__u8 reason;
	__u8 protocol;
	__u8 direction; /* of the side that observed or denied */
	__u8 tcp_flags;
	__u8 icmp_type;
	__u8 icmp_code;
	__u8 is_reply;
	union address source;
	union address destination;
	__be16 source_port;
	__be16 destination_port;
	__u32 source_identity;
	__u32 destination_identity;
	__u32 rule[2]; /* by direction; 0 = that side has no policy */
	__u32 service; /* EVENT_TRANSLATION and translated flows; 0 = none */
	__u32 ifindex;
	__u32 length;
	__be16 service_port;
	__u8 answer;	/* of DNS, given here: 1 + rcode; 0 = none */
	__u8 dial;	/* enum dial */
	__u8 transport; /* enum transport */
	__u8 pad[3];
};

/* Refused system calls. Where pods' processes are: below one control group. */
struct confinement {
	__u64 pods; /* its number; 0: nothing is told */
	__u32 level;
	__u32 pad;
};

enum path_argument {
	NO_PATH = 0,
	PATH_FIRST = 1,
	PATH_SECOND = 2,
	PATH_IN_ADDRESS = 3, /* the second is a struct sockaddr_un */
};

/* in_passing: capabilities it asks for without wanting what they are for. */
struct system_call_known {
	__u64 in_passing;
	__u16 path;	  /* enum path_argument */
	__u16 changes;	  /* not only looks: may find things read-only */
	__u32 of_process; /* is about another process */
};

enum system_call {
	CALL_CLONE = 56,
	CALL_CLONE3 = 435,
	CALL_COMPAT = 512, /* added to the number of a 32-bit call */
	CALL_COMPAT_CLONE = CALL_COMPAT + 120,
	CALL_COMPAT_CLONE3 = CALL_COMPAT + 435,
	CALLS_MAX = 1024,
};

/* Instead of a capability: what else a call may have met. */
enum met {
	MET_READ_ONLY = 64,
	MET_NO_PROCESS = 65,
};

/* One pod, one kind of refusal: a few are told in a second. */
struct refusal_key {
	__u64 pod;	  /* number of its control group */
	__u16 capability; /* or enum met */
	__u16 system_call;
	__u32 pad;
};

struct refusal_told {
	__u64 since_ns; /* monotonic: when this second began */
	__u32 told;	/* in it */
	__u32 untold;	/* since the last that was */
};

struct refusal_event {
	__u64 time_ns; /* CLOCK_MONOTONIC */
	__u64 pod;
	__u32 pid;
	__u32 uid;
	__u32 untold;	  /* of the same kind, before it */
	__u16 capability; /* or enum met */
	__u16 system_call;
	__u8 command[16];
	__u8 path[96]; /* as it was given; empty: none, or it could not be read */
};
