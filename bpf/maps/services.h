/*
 * Services: frontend -> slots -> backends.
 * A frontend names runs of slots; each slot names a backend. A change writes new backends, then new runs of slots, then
 * the frontend's one value, so that a connection sees all of the old set or all of the new one. What went out of use is
 * not used again for a while (src/datapath/maps/services.ts), so no lookup that is under way can meet a stranger.
 */
#ifndef WEFT_MAPS_SERVICES_H
#define WEFT_MAPS_SERVICES_H

#include "abi/address.h"

struct frontend_key {
	struct address address; /* all zero (or ::ffff:0.0.0.0): any address of a node */
	__be16 port;
	__u8 protocol; /* IPPROTO_TCP, IPPROTO_UDP, IPPROTO_SCTP */
	__u8 pad;
};

enum frontend_flag {
	FRONTEND_OUTSIDE = 1 << 0, /* reached from outside the cluster too, by the outside run */
	FRONTEND_LOCAL = 1 << 1,   /* from outside to this node's backends only: without any, silence */
	FRONTEND_RANGES = 1 << 2,  /* from outside by sources in source_ranges_v1 only */
	FRONTEND_STACK = 1 << 3,   /* the node's own stack answers: nothing is translated */
	FRONTEND_EQUAL = 1 << 4,   /* the outside run is the inside run */
	FRONTEND_INSIDE_LOCAL = 1 << 6, /* the inside run is this node's backends only: a client comes back to none of the others */
	FRONTEND_OUTSIDE_ONLY = 1 << 5, /* pods and the node itself go past it (externalIPs, CVE-2020-8554) */
};

struct frontend {
	__u64 service; /* number of the Service: of its name, the same on all nodes */
	__u32 first;   /* slot; for connections of pods and nodes */
	__u32 count;   /* 0: the Service is known and has no endpoint, connections are refused */
	__u32 outside_first; /* for connections that come by the uplink */
	__u32 outside_count;
	__u32 affinity; /* seconds without a connection after which a client is forgotten; 0: no affinity */
	__be16 port;	/* of the Service: its frontends share a client's choice, whichever of them it asks */
	__u16 flags;
};

struct backend {
	struct address address;
	__be16 port;
	__u8 protocol;
	__u8 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC); /* 65,536 ready-made entries would be 7 MB on every node */
	__type(key, struct frontend_key);
	__type(value, struct frontend);
} frontends_v2 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 262144);
	__type(key, __u32);
	__type(value, __u32); /* backend */
} slots_v1 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 65536);
	__type(key, __u32);
	__type(value, struct backend);
} backends_v1 SEC(".maps");

/* Addresses that are neither pods' nor cluster addresses of Services, and mean something here. */
enum address_flag {
	ADDRESS_OWN = 1 << 0,	    /* of this node */
	ADDRESS_NODE = 1 << 1,	    /* of any node, this one included */
	ADDRESS_VIRTUAL = 1 << 2,   /* of a load balancer: a port that no Service has is refused */
	ADDRESS_ANNOUNCED = 1 << 3, /* virtual, and this node says "that is me" */
	ADDRESS_RESOLVER = 1 << 4,  /* local on every node, and never leaves it */
	ADDRESS_EXTERNAL = 1 << 5,  /* an external IP: only the ports that Services have are ours */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct address);
	__type(value, __u32); /* enum address_flag */
} addresses_v1 SEC(".maps");

/* Who may ask a load balancer from outside: only where its frontends say FRONTEND_RANGES. */
struct source_range_key {
	__u32 prefix; /* of 64 + 128 */
	__u32 service[2];
	struct address address;
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct source_range_key);
	__type(value, __u32);
} source_ranges_v1 SEC(".maps");

/* Which backend's address a client had, by Service. The kernel forgets the longest unused. */
struct affinity_key {
	__u64 service;
	struct address client; /* of a packet's source; of a socket: { 0, or AF_INET6 for IPv6; 0; cookie of its network namespace } */
};

struct affinity {
	struct address backend;
	__u64 seen; /* ns, CLOCK_MONOTONIC */
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct affinity_key);
	__type(value, struct affinity);
} affinity_v1 SEC(".maps");

/* The backend of a Service's port at an address, as long as it is one: what a remembered choice is held against. */
struct member_key {
	__u64 service;
	struct address backend;
	__be16 port; /* of the Service */
	__u8 protocol;
	__u8 outside; /* 0: inside run, 1: outside run, 2: inside run of this node's only */
	__u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct member_key);
	__type(value, __u32); /* backend */
} members_v1 SEC(".maps");

#endif
