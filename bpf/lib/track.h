/*
 * Connections: whose packet is this? One look-up for one that is established; everything else is out of line.
 */
#ifndef WEFT_LIB_TRACK_H
#define WEFT_LIB_TRACK_H

#include "lib/cut.h"
#include "lib/embryo.h"
#include "lib/icmp.h"

/*
 * An ICMP error is its flow's, which it names by the packet that it quotes. It changes nothing there. One about a flow that
 * is not known passes where the flow would have been allowed, either way.
 */
FUNCTION int relate(struct __sk_buff *skb, struct packet *pkt, __u32 hook)
{
	const struct endpoint *client, *server;
	struct judging *with = judging();
	struct place place = {};
	struct inner inner = {};
	struct flow *flow;
	int verdict;

	if (!pkt || !with || (pkt->flags & PACKET_NEIGHBOUR))
		return drop(REASON_FORBIDDEN_ICMP);
	/* As in begin(): nobody outside is of this node. */
	if (hook >= HOOK_NETDEV && (bpf_map_lookup_elem(&endpoints_v2, &pkt->tuple.source) ||
				    identity_by_address(&pkt->tuple.source) == IDENTITY_HOST))
		return drop(REASON_INVALID_IDENTITY);
	verdict = parse_inner(skb, pkt, &inner);
	if (verdict != CONTINUE)
		return verdict;
	/* It goes to whoever sent what it quotes; and a pod is nobody's router: it speaks of what was sent to itself. */
	if (FAULTY(24, 0, !address_equal(&inner.tuple.source, &pkt->tuple.destination)) ||
	    (hook == HOOK_CONTAINER && !address_equal(&inner.tuple.destination, &pkt->tuple.source)))
		return drop(REASON_FORBIDDEN_ICMP);
	find_place(&inner.tuple, &place);
	flow = find_flow(&place.key);
	if (!flow) {
		flow = find_embryo(&place.key, now(skb));
		if (flow && (flow->flags & FLOW_ESTABLISHED))
			flow = 0;
	}
	if (flow && !is_older(now(skb), flow->seen, flow->timeout)) {
		verdict = CONTINUE;
		if (flow->epoch != pkt->epoch)
			verdict = reassess(pkt, &place, flow);
		if (verdict == CONTINUE) {
			/* Against the direction of what it quotes. */
			tell_packet(pkt, flow, side_of(&place, flow->flags) ^ 1);
			return CONTINUE;
		}
	}
	with->j.tuple = inner.tuple;
	ask(&with->j, pkt, 0, 0);
	turn_round(&inner.tuple, &with->back.tuple);
	ask(&with->back, pkt, 0, 0);
	client = bpf_map_lookup_elem(&endpoints_v2, &inner.tuple.source);
	server = bpf_map_lookup_elem(&endpoints_v2, &inner.tuple.destination);
	if (judge(&with->j, client, server) == REASON_FORWARDED || judge(&with->back, server, client) == REASON_FORWARDED)
		return CONTINUE;
	tell_judgement(pkt, &with->j, 1);
	return drop(REASON_FORBIDDEN_ICMP);
}

/*
 * Finds the packet's flow, or judges whether it may begin one. `from`, `to`: where they are pods of this node.
 * CONTINUE, or a drop that leave() answers.
 */
INLINE int track(struct __sk_buff *skb, struct packet *pkt, const struct endpoint *from, const struct endpoint *to,
		 enum hook hook)
{
	struct judging *with = judging();
	struct place *place;
	struct flow *flow;
	int verdict;
	__u32 side;
	__u64 time;

	if (pkt->flags & (PACKET_ICMP_ERROR | PACKET_NEIGHBOUR))
		return relate(skb, pkt, hook);
	if (!with)
		return drop(REASON_MAP_WRITE_FAILED);
	place = &with->place;
	find_place(&pkt->tuple, place);
	place->hook = hook;
	/* A SYN is nearly always the first of its connection, and the insertion says where it is not: that saves the look. */
	place->is_guess = pkt->tuple.protocol == IPPROTO_TCP && is_beginning(pkt) && may_write() && !cfg_flow_before;
	if (place->is_guess) {
		verdict = begin(skb, pkt, place, from, to);
		if (verdict != NOT_SURE)
			return verdict;
		place->is_guess = 0;
	}
	flow = find_flow(&place->key);
	if (!flow)
		return begin(skb, pkt, place, from, to);
	/* Whoever wears an address of this node outside wears it in a known connection, too. */
	if (hook >= HOOK_NETDEV && (flow->flags & FLOW_LOCAL))
		return drop(REASON_INVALID_IDENTITY);
	time = now(skb);
	if (is_older(time, flow->seen, flow->timeout)) {
		remove_flow(&place->key, flow->flags, flow->number);
		return begin(skb, pkt, place, from, to);
	}
	verdict = CONTINUE;
	if (FAULTY(11, 0, flow->epoch != pkt->epoch)) {
		verdict = reassess(pkt, place, flow);
		if (verdict != CONTINUE && verdict != FORGOTTEN)
			return cut(skb, pkt, place, flow, verdict);
	}
	if (verdict == CONTINUE && !(flow->flags & FLOW_ANSWERED))
		return follow_embryo(skb, pkt, place, flow);
	if (verdict == CONTINUE && (pkt->flags & PACKET_EVENT))
		verdict = follow_event(pkt, place, flow);
	if (verdict == FORGOTTEN) {
		remove_flow(&place->key, flow->flags, flow->number);
		return begin(skb, pkt, place, from, to);
	}
	side = side_of(place, flow->flags);
	tell_packet(pkt, flow, side);
	if (!may_write())
		return CONTINUE;
	account(flow, skb, side, time);
	if (pkt->tuple.protocol == IPPROTO_TCP) {
		if (!(pkt->flags & (PACKET_EVENT | PACKET_LATER_FRAGMENT)))
			note_sequence(flow, pkt, side, pkt->sequence + pkt->length);
		if ((flow->flags & FLOW_FIN_BOTH) == FLOW_FIN_BOTH && all_acknowledged(flow))
			remove_flow(&place->key, flow->flags, flow->number);
	}
	return CONTINUE;
}

#endif
