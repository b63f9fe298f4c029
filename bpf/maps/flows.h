/*
 * Connections, one entry each. Once answered, a flow is established, and nothing but its own end or age takes it away; where
 * there is no room for another one, the new one is refused. A flow that nobody has answered yet is embryonic. The first
 * so many of these wait where they will stay (writing an entry twice would be the dearest thing that happens to a new
 * connection); those of a flood are in a map of their own, where the oldest goes.
 */
#ifndef WEFT_MAPS_FLOWS_H
#define WEFT_MAPS_FLOWS_H

#include "abi/tuple.h"
#include "maps/endpoints.h"

/* Bits of struct flow's flags. "Client" is whoever sent the first packet. */
enum flow_flag {
	FLOW_CLIENT_LOWER = 1 << 0, /* the client is the key's source */
	FLOW_ANSWERED = 1 << 1,
	FLOW_FIN_CLIENT = 1 << 2,
	FLOW_FIN_SERVER = 1 << 3,
	FLOW_CLOSED = 1 << 4,  /* reset, or closed both ways: the next SYN is another connection */
	FLOW_NATED = 1 << 5,   /* translations_v1 knows the other names of its ends */
	FLOW_HOST = 1 << 6,    /* begun by this node itself */
	FLOW_ADOPTED = 1 << 7, /* met in the middle: sequence numbers are not known from the start */
	FLOW_ESTABLISHED = 1 << 8, /* lives in flows_v1, answered or not; in embryonic_v1: has moved there */
	FLOW_LOCAL = 1 << 9,	   /* both ends are on this node: never met on a packet from outside */
	FLOW_TURNED = 1 << 10,	   /* adopted by a packet of the server: the client has to be heard before it is answered */
};

struct flow {
	__u64 seen;    /* ns, CLOCK_MONOTONIC: last packet */
	__u64 timeout; /* ns without a packet after which it is over */
	__u64 born;    /* ns */
	__u32 epoch;   /* of the verdict */
	__u16 flags;
	__u16 number; /* endpoint whose share it is of; 0: nobody's */
	__u32 client_identity;
	__u32 server_identity;
	__u32 egress_rule; /* 0: not isolated */
	__u32 ingress_rule;
	__u32 sent[2];	/* TCP: after the last byte that the client [0], the server [1] has sent; SCTP: tag of its INIT, INIT-ACK */
	__u32 acked[2]; /* TCP: the highest acknowledgement by the client [0], the server [1] */
	__u64 packets[2]; /* by the client [0], the server [1] */
	__u64 bytes[2];
};

/* The key: the lower (address, port) first. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 131072);
	__type(key, struct tuple);
	__type(value, struct flow);
} flows_v1 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 32768);
	__type(key, struct tuple);
	__type(value, struct flow);
} embryonic_v1 SEC(".maps");

/* ns: when a packet last met that map. Long ago, there is nothing in it, and nobody needs to look. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} embryonic_used_v1 SEC(".maps");

/*
 * Established flows that each endpoint began (or, begun from elsewhere, serves), by endpoint number. Number 0, which is no
 * endpoint's: unanswered flows in flows_v1.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, ENDPOINTS_MAX);
	__type(key, __u32);
	__type(value, __u32);
} shares_v1 SEC(".maps");

/* Later fragments carry no ports: the first one's are remembered. */
struct fragment_key {
	struct address source;
	struct address destination;
	__u32 id;
	__u8 protocol;
	__u8 pad[3];
};

struct fragment {
	__be16 source_port;
	__be16 destination_port;
	__u32 flags; /* of enum packet_flag: what the first one is */
	__u64 seen;  /* ns */
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct fragment_key);
	__type(value, struct fragment);
} fragments_v1 SEC(".maps");

/* Answers to what was denied, by the device of the pod: so many a second. */
struct answers {
	__u64 second; /* ns / 1e9 */
	__u64 count;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, ENDPOINTS_MAX);
	__type(key, __u32);
	__type(value, struct answers);
} answers_v1 SEC(".maps");

#endif
