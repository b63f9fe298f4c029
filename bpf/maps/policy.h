/*
 * Policies, compiled: a pod's direction has the number of a set, a set is what it allows. Sets are never changed: a change
 * writes new ones, gives the endpoints their numbers, then raises the epoch, upon which every flow's next packet asks again.
 */
#ifndef WEFT_MAPS_POLICY_H
#define WEFT_MAPS_POLICY_H

#include "abi/address.h"

#define SET_NONE 0		  /* not isolated in this direction */
#define SET_NOT_READY 0xffffffff  /* not known yet: nothing is allowed */

/* Prefix lengths of struct policy_key. */
#define POLICY_PREFIX_ANY 64	  /* set and peer: any protocol and port */
#define POLICY_PREFIX_PROTOCOL 80 /* and the protocol: any port; up to 96 with the leading bits of the port */
#define POLICY_PREFIX_FULL 96

struct policy_key {
	__u32 prefix;
	__u32 set;
	__u32 peer; /* identity, class, or 0: anyone */
	__u8 protocol;
	__u8 pad;
	__be16 port; /* the server's */
};

struct policy_value {
	__u32 rule; /* user space knows the object and the field */
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 1048576);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct policy_key);
	__type(value, struct policy_value);
} policy_v1 SEC(".maps");

/* Every prefix that some rule's ipBlock names, or excepts: address -> class, the most specific. */
struct network_key {
	__u32 prefix; /* of 128 */
	struct address address;
};

struct network_value {
	__u32 class;
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct network_key);
	__type(value, struct network_value);
} networks_v1 SEC(".maps");

struct policy_state {
	__u32 epoch;
	__u32 networks; /* entries of networks_v1: without any, nobody looks there */
	__u32 pad[2];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct policy_state);
} policy_state_v1 SEC(".maps");

#endif
