/* Later fragments belong to where the first one went: its ports are remembered under what all of them carry. */
#ifndef WEFT_LIB_FRAGMENT_H
#define WEFT_LIB_FRAGMENT_H

#include "lib/clock.h"
#include "lib/packet.h"
#include "maps/flows.h"

/* Longer than a receiver waits for the rest (Linux: 30 s, 60 s by RFC 8200). */
#define FRAGMENT_LIFE (30 * SECOND)

FUNCTION int match_fragment(struct __sk_buff *skb, struct packet *pkt)
{
	struct fragment value = {}, *first;
	struct fragment_key key = {};
	__u64 time = now(skb);

	if (!pkt)
		return drop(REASON_INVALID_PACKET);
	key.source = pkt->tuple.source;
	key.destination = pkt->tuple.destination;
	key.id = FAULTY(20, 0, pkt->fragment);
	key.protocol = pkt->tuple.protocol;
	if (pkt->flags & PACKET_FIRST_FRAGMENT) {
		value.source_port = pkt->tuple.source_port;
		value.destination_port = pkt->tuple.destination_port;
		value.flags = pkt->flags & (PACKET_PORTS | PACKET_ICMP_ERROR);
		value.seen = time;
		if (may_write() && bpf_map_update_elem(&fragments_v1, &key, &value, BPF_ANY))
			return drop(REASON_MAP_WRITE_FAILED);
		return CONTINUE;
	}
	first = bpf_map_lookup_elem(&fragments_v1, &key);
	if (!first || is_older(time, first->seen, FRAGMENT_LIFE))
		return drop(REASON_FRAGMENT_FIRST_MISSING);
	pkt->tuple.source_port = first->source_port;
	pkt->tuple.destination_port = first->destination_port;
	pkt->flags |= first->flags & (PACKET_PORTS | PACKET_ICMP_ERROR);
	return CONTINUE;
}

INLINE int resolve_fragment(struct __sk_buff *skb, struct packet *pkt)
{
	if (!(pkt->flags & (PACKET_FIRST_FRAGMENT | PACKET_LATER_FRAGMENT)))
		return CONTINUE;
	return match_fragment(skb, pkt);
}

#endif
