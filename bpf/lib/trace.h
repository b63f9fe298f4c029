/* What is told to user space: each connection once, each drop. Never waits and wakes nobody; without room it is counted. */
#ifndef WEFT_LIB_TRACE_H
#define WEFT_LIB_TRACE_H

#include "config.h"
#include "lib/base.h"
#include "abi/drop.h"
#include "maps/events.h"

/* What a program knows of a packet when it has judged it. */
struct sighting {
	const struct tuple *tuple;
	const struct address *frontend; /* null where no Service was asked for */
	__be16 frontend_port;
	__u8 tcp_flags;
	__u8 is_reply;
	__u32 source_identity;
	__u32 destination_identity;
	__u32 rule;
	__u32 set;
	enum direction direction;
};

INLINE void report(struct __sk_buff *skb, const struct sighting *seen, enum event_kind kind, enum reason reason)
{
	struct event *event;
	__u32 zero = 0;
	__u64 *lost;

	/* A probe looks at a packet that nobody sent. */
	if (cfg_probe || !cfg_records)
		return;
	event = bpf_ringbuf_reserve(&events_v1, sizeof(*event), 0);
	if (!event) {
		lost = bpf_map_lookup_elem(&events_lost_v1, &zero);
		if (lost)
			(*lost)++;
		return;
	}
	event->time = bpf_ktime_get_ns();
	event->tuple = *seen->tuple;
	if (seen->frontend) {
		event->frontend = *seen->frontend;
	} else {
		event->frontend = (struct address){};
	}
	event->frontend_port = seen->frontend_port;
	event->kind = kind;
	event->direction = seen->direction;
	event->ifindex = skb->ifindex;
	event->source_identity = seen->source_identity;
	event->destination_identity = seen->destination_identity;
	event->rule = seen->rule;
	event->reason = reason;
	event->tcp_flags = seen->tcp_flags;
	event->is_reply = seen->is_reply;
	event->pad = 0;
	event->length = skb->len;
	event->set = seen->set;
	bpf_ringbuf_submit(event, BPF_RB_NO_WAKEUP);
}

/* Once for each connection, when it is let through for the first time. */
INLINE void report_flow(struct __sk_buff *skb, const struct sighting *seen)
{
	report(skb, seen, EVENT_CONNECTION, REASON_FORWARDED);
}

INLINE void report_drop(struct __sk_buff *skb, const struct sighting *seen, enum reason reason)
{
	report(skb, seen, EVENT_DROP, reason);
}

#endif
