/* What is told to user space: each connection once, each drop. Never waits and wakes nobody; without room it is counted. */
#ifndef WEFT_LIB_TRACE_H
#define WEFT_LIB_TRACE_H

#include "lib/packet.h"
#include "maps/events.h"

/* `reason`: why it was dropped; REASON_FORWARDED: a connection, let through for the first time. */
FUNCTION int report(struct __sk_buff *skb, const struct packet *pkt, __u32 reason, __u32 direction)
{
	struct event *event;
	__u32 zero = 0;
	__u64 *lost;

	/* A probe looks at a packet that nobody sent. */
	if (cfg_probe || !cfg_records || !pkt)
		return 0;
	event = bpf_ringbuf_reserve(&events_v1, sizeof(*event), 0);
	if (!event) {
		lost = bpf_map_lookup_elem(&events_lost_v1, &zero);
		if (lost)
			(*lost)++;
		return 0;
	}
	event->time = bpf_ktime_get_ns();
	event->tuple = pkt->tuple;
	if (pkt->flags & PACKET_TRANSLATED)
		event->frontend = pkt->asked;
	else
		event->frontend = (struct address){};
	event->frontend_port = pkt->asked_port;
	event->kind = reason == REASON_FORWARDED ? EVENT_CONNECTION : EVENT_DROP;
	event->direction = direction;
	event->ifindex = skb->ifindex;
	event->source_identity = pkt->source_identity;
	event->destination_identity = pkt->destination_identity;
	event->rule = pkt->rule;
	event->reason = reason;
	event->tcp_flags = pkt->tcp_flags;
	event->is_reply = !!(pkt->flags & PACKET_ANSWER);
	event->pad = 0;
	event->length = skb->len;
	event->set = pkt->set;
	bpf_ringbuf_submit(event, BPF_RB_NO_WAKEUP);
	return 0;
}

#endif
