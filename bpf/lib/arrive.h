/* What comes to this node from others, bare or out of the tunnel: to a pod, by a Service to one, back to one, or the stack's. */
#ifndef WEFT_LIB_ARRIVE_H
#define WEFT_LIB_ARRIVE_H

#include "lib/forward.h"
#include "lib/fragment.h"
#include "lib/lb.h"
#include "lib/leave.h"
#include "lib/resident.h"
#include "lib/service.h"
#include "lib/track.h"

/* To a pod of this node, if it may. */
INLINE int receive(struct __sk_buff *skb, struct packet *pkt, const struct endpoint *to, enum hook hook)
{
	int verdict = track(skb, pkt, 0, to, hook);

	if (verdict == CONTINUE)
		verdict = nat_answer(skb, pkt);
	return verdict == CONTINUE ? deliver(skb, pkt, to) : verdict;
}

/*
 * To another machine's device: the link's switch does not know better at the moment, or somebody here listens to everything.
 * Whom it is for serves it; twice would be two backends for one connection. A probe's frame is to nobody in particular.
 */
INLINE int is_others(const struct __sk_buff *skb)
{
	return cfg_probe != PROBE_WHY && skb->pkt_type != 0; /* PACKET_HOST */
}

/* `verdict`: of what was done with the packet so far. The program's end. */
INLINE int arrive(struct __sk_buff *skb, struct packet *pkt, int verdict, enum hook hook)
{
	const struct endpoint *to;

	if (verdict == CONTINUE)
		verdict = resolve_fragment(skb, pkt);
	/* What is not a pod's (other protocols, the node's own broken packets) is the stack's, and not counted. */
	if (verdict == TC_ACT_OK)
		return TC_ACT_OK;
	to = resident(pkt, &pkt->tuple.destination, RESIDENT_RECEIVER);
	if (verdict < 0 && verdict != CONTINUE && !to)
		return TC_ACT_OK;
	if (verdict == CONTINUE && !to) {
		if (is_others(skb))
			return TC_ACT_OK;
		verdict = lb_from_netdev(skb, pkt);
		if (verdict == CONTINUE)
			to = resident(pkt, &pkt->tuple.destination, RESIDENT_RECEIVER);
	}
	if (verdict == CONTINUE)
		verdict = to ? receive(skb, pkt, to, hook) : TC_ACT_OK;
	if (verdict == TC_ACT_OK)
		return TC_ACT_OK;

	return leave(skb, pkt, verdict, DIRECTION_INGRESS, ANSWER_DEVICE, to ? to->ifindex : 0);
}

#endif
