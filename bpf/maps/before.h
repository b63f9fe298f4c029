/*
 * Maps of another version, as its programs left them and, while links are exchanged, still write them. Their layout is told
 * before load: for each byte of a value where it was, and for each byte of theirs where it is now. Without such a map the
 * verifier drops all that looks at these; they are then maps of one entry that nobody writes.
 */
#ifndef WEFT_MAPS_BEFORE_H
#define WEFT_MAPS_BEFORE_H

#include "abi/tuple.h"

#define BEFORE_SIZE 256
#define BEFORE_NOWHERE 255

/* Bytes of a value there; 0: there is no such map. */
const volatile __u32 cfg_flow_before = 0;
const volatile __u8 cfg_flow_from[BEFORE_SIZE] = {};
const volatile __u8 cfg_flow_back[BEFORE_SIZE] = {};
const volatile __u32 cfg_rewrite_before = 0;
const volatile __u8 cfg_rewrite_from[BEFORE_SIZE] = {};
const volatile __u8 cfg_rewrite_back[BEFORE_SIZE] = {};

/* 1: shares_v1 is another map than before, too, and has counted none of the flows that are taken over. */
const volatile __u32 cfg_shares_anew = 0;

struct before {
	__u8 byte[BEFORE_SIZE];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct tuple);
	__type(value, struct before);
} before_flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct tuple);
	__type(value, struct before);
} before_pairs SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct before);
} scratch_before SEC(".maps");

#endif
