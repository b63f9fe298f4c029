/* What the programs tell of a connection or a drop. One size, so that a reader copies many at once. */
#ifndef WEFT_ABI_EVENT_H
#define WEFT_ABI_EVENT_H

#include "abi/tuple.h"

enum event_kind {
	EVENT_CONNECTION = 1, /* a connection was let through for the first time */
	EVENT_DROP = 2,
};

struct event {
	__u64 time; /* ns, CLOCK_MONOTONIC */
	struct tuple tuple; /* as the packet's sender meant it, after a Service's address was exchanged */
	struct address frontend; /* the Service address that was asked for; all zero where there was none */
	__be16 frontend_port;
	__u8 kind;
	__u8 direction; /* as a pod sees it */
	__u32 ifindex;
	__u32 source_identity;
	__u32 destination_identity;
	__u32 rule; /* of the policy that allowed it; 0: none had to */
	__u8 reason;
	__u8 tcp_flags; /* of the packet; ICMP: its type */
	__u8 is_reply;
	__u8 pad;
	__u32 length; /* of the packet, bytes */
	__u32 set; /* the policy set that refused it; 0: none did */
};

#endif
