/* Records for user space, which comes for them on a timer; nobody is woken. What found no room is counted. */
#ifndef WEFT_MAPS_EVENTS_H
#define WEFT_MAPS_EVENTS_H

#include "abi/event.h"

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4 << 20); /* bytes: 40,000 records, 0.8 s of 50,000 connections a second */
} events_v1 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} events_lost_v1 SEC(".maps");

#endif
