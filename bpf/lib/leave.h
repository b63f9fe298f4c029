/* The one way out of a program: counts, tells, answers a refusal. */
#ifndef WEFT_LIB_LEAVE_H
#define WEFT_LIB_LEAVE_H

#include "lib/deny.h"
#include "lib/trace.h"
#include "lib/verdict.h"
#include "maps/counters.h"

INLINE void count(const struct __sk_buff *skb, enum reason reason, enum direction direction)
{
	__u32 index = reason * DIRECTION_MAX + direction;
	struct counter *counter;

	if (!may_write())
		return;
	counter = bpf_map_lookup_elem(&counters_v2, &index);
	if (counter) {
		counter->packets++;
		counter->bytes += skb->len;
	}
}

/* Reasons that the sender is told. */
INLINE int is_refusal(enum reason reason)
{
	switch (reason) {
	case REASON_POLICY_DENIED:
	case REASON_UNKNOWN_SENDER:
	case REASON_INVALID_FLOW:
	case REASON_NO_SERVICE:
	case REASON_NO_BACKEND:
	case REASON_NO_NAT_PORT:
	case REASON_NO_NAT_MAPPING:
		return 1;
	default:
		return 0;
	}
}

/* `answer`: how a refusal goes back, ANSWER_*; `pod`: device of the pod whose answers are counted. */
#define ANSWER_NONE 0
#define ANSWER_PEER 1	/* to the pod that sent it, by the device that it came from */
#define ANSWER_DEVICE 2 /* out by the device that it came in by */

FUNCTION int leave_dropped(struct __sk_buff *skb, struct packet *pkt, __u32 reason, __u32 how, __u32 pod)
{
	enum direction direction = how & 1;
	__u32 answer = how >> 1;

	if (!pkt)
		return TC_ACT_SHOT;
	if ((pkt->flags & PACKET_REFUSED_INGRESS))
		direction = DIRECTION_INGRESS;
	if (answer && is_refusal(reason) && is_answerable(skb, pkt) && may_write()) {
		if (!may_answer(skb, pod)) {
			reason = REASON_RATE_LIMITED;
			answer = ANSWER_NONE;
		}
	} else {
		answer = ANSWER_NONE;
	}
	count(skb, reason, direction);
	report(skb, pkt, reason, direction);
	if (cfg_probe)
		skb->cb[0] = reason;
	if (answer == ANSWER_NONE || make_refusal(skb, pkt, reason))
		return TC_ACT_SHOT;
	skb->mark = MARK_ANSWER;
	return answer == ANSWER_PEER ? bpf_redirect_peer(skb->ifindex, 0) : bpf_redirect(skb->ifindex, 0);
}

/* The only exit of a packet program. */
INLINE int leave(struct __sk_buff *skb, struct packet *pkt, int verdict, enum direction direction, __u32 answer, __u32 pod)
{
	__u32 reason = REASON_FORWARDED;

	if (verdict < 0) {
		reason = -verdict;
		verdict = leave_dropped(skb, pkt, reason, answer << 1 | direction, pod);
		if (cfg_probe)
			reason = skb->cb[0];
	} else {
		count(skb, reason, direction);
		if (pkt->cut) {
			reason = pkt->cut;
			count(skb, reason, direction);
			report(skb, pkt, reason, direction);
		}
	}
	if (cfg_probe) {
		skb->cb[0] = (__u32)verdict << 16 | reason;
		skb->cb[1] = pkt->rule;
		skb->cb[2] = pkt->source_identity;
		skb->cb[3] = pkt->destination_identity;
		skb->cb[4] = cfg_probe == PROBE_WHY ? pkt->set : pkt->choice;
	}
	return verdict;
}

#endif
