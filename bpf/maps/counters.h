/* Packets and bytes by direction and reason; reason 0 is what was forwarded. */
#ifndef WEFT_MAPS_COUNTERS_H
#define WEFT_MAPS_COUNTERS_H

#include "abi/drop.h"

struct counter {
	__u64 packets;
	__u64 bytes;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, REASON_MAX * DIRECTION_MAX); /* reason * DIRECTION_MAX + direction */
	__type(key, __u32);
	__type(value, struct counter);
} counters_v2 SEC(".maps");

#endif
