/*
 * Packets whose addresses are exchanged: by what they come with, what they get. Written in pairs, one entry for each
 * direction; taken away in pairs, by the sweep, when neither has been used for a while. Nothing is ever pushed out: without
 * room the new connection is refused.
 */
#ifndef WEFT_MAPS_TRANSLATIONS_H
#define WEFT_MAPS_TRANSLATIONS_H

#include "abi/tuple.h"
#include "maps/endpoints.h"

enum rewrite_flag {
	REWRITE_ANSWER = 1 << 0,     /* of answers; the other of the pair is of questions */
	REWRITE_OUT = 1 << 1,	     /* leaves this node again by its routes: neither end is here */
	REWRITE_HAIRPIN = 1 << 2,    /* a pod that is its own backend: back by the device it came from */
	REWRITE_MASQUERADE = 1 << 3, /* a pod that talks to the outside under the node's address */
	REWRITE_FIN = 1 << 4,	     /* TCP: the last packet this way has been seen */
	REWRITE_RESET = 1 << 5,	     /* TCP: reset */
	REWRITE_ANSWERED = 1 << 6,   /* on the answer's entry: one has been seen */
	REWRITE_SPOKE = 1 << 7,	     /* TCP: `sent` is known */
};

struct rewrite {
	struct tuple to; /* what the packet gets */
	__u64 service;	 /* number of the Service; 0: none */
	__u32 seen;	 /* s, CLOCK_MONOTONIC */
	__u32 flags;
	__u32 backend;	 /* slot's number of it; 0 for none */
	__u32 sent;	 /* TCP: behind the last byte that went this way */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 262144); /* 131,072 connections */
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct tuple);
	__type(value, struct rewrite);
} translations_v1 SEC(".maps");

/*
 * Of these connections, those that each endpoint began, by endpoint number: one pod that sends to everybody must leave room for
 * the others. Counted when they begin, and anew by each sweep.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, ENDPOINTS_MAX);
	__type(key, __u32);
	__type(value, __u32);
} pairs_v1 SEC(".maps");

/* Backends that are gone (service 0), or that a Service's datagrams must leave at once: what the next sweep takes away. */
struct stale_key {
	__u64 service;
	struct address backend;
	__be16 port;
	__u8 protocol;
	__u8 pad[5];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct stale_key);
	__type(value, __u32);
} stale_v1 SEC(".maps");

/* Networks that pods talk to under their own addresses though they are outside the cluster. */
struct exclusion_key {
	__u32 prefix; /* of 128 */
	struct address address;
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 1024);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct exclusion_key);
	__type(value, __u32);
} exclusions_v1 SEC(".maps");

#endif
