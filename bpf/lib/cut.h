/* A connection that was allowed and no longer is: both its ends are told, whichever speaks next. */
#ifndef WEFT_LIB_CUT_H
#define WEFT_LIB_CUT_H

#include "lib/flow.h"

/*
 * What the receiver of `pkt` gets instead: a reset that it takes for its connection's (RFC 9293, 3.10.7). Before the answer,
 * that is one which acknowledges the client's SYN, whatever the server has said; after a SYN, the number behind it.
 */
INLINE void reset_onward(struct made *m, const struct packet *pkt, const struct flow *flow, __u32 side)
{
	m->tuple = pkt->tuple;
	m->sequence = pkt->sequence + !!(pkt->tcp_flags & TCP_SYN);
	m->acknowledgement = pkt->acknowledgement;
	m->flags = pkt->tcp_flags & TCP_ACK;
	if (side && !(flow->flags & (FLOW_ANSWERED | FLOW_ADOPTED))) {
		m->acknowledgement = flow->sent[0];
		m->flags = TCP_ACK;
	}
}

/*
 * TCP: the sender is told by a copy, and the packet goes on as the receiver's reset, through everything that translates it.
 * Who sends a reset knows. What has no connections is refused as if it were new.
 */
FUNCTION int cut(struct __sk_buff *skb, struct packet *pkt, const struct place *place, const struct flow *flow, int verdict)
{
	struct judging *with = judging();
	struct made *onward;
	__u32 side, is_young;

	if (!pkt || !place || !flow || !with)
		return verdict;
	onward = &with->onward;
	side = side_of(place, flow->flags);
	__builtin_memset(onward, 0, sizeof(*onward));
	reset_onward(onward, pkt, flow, side);
	/* The reset that it becomes is renamed like any packet of its flow. */
	pkt->flow_flags = flow->flags;
	if (side)
		pkt->flags |= PACKET_ANSWER;
	is_young = !(flow->flags & FLOW_ANSWERED);
	forget_flow(&place->key, flow);
	/* What is not known yet is no reason to end what has hardly begun: who asks will ask again. */
	if (is_young && verdict == drop(REASON_HOST_NOT_READY))
		return verdict;
	if (pkt->tuple.protocol != IPPROTO_TCP || !may_write() || (pkt->flags & (PACKET_ICMP_ERROR | PACKET_LATER_FRAGMENT)) ||
	    bpf_skb_load_bytes(skb, 0, onward->destination_mac, 12))
		return verdict;
	if (!(pkt->tcp_flags & TCP_RST)) {
		if (make_refusal(skb, pkt, 0))
			return drop(REASON_WRITE_FAILED);
		skb->mark = MARK_ANSWER;
		/* A probe must not send. */
		if (!cfg_probe)
			bpf_clone_redirect(skb, skb->ifindex, place->hook == HOOK_HOST ? BPF_F_INGRESS : 0);
	}
	if (make_segment(skb, onward))
		return drop(REASON_WRITE_FAILED);
	skb->mark = 0;
	/* The refusal went back under the name that was asked; this goes on as it was going. */
	pkt->tuple = onward->tuple;
	pkt->tcp_flags = TCP_RST | onward->flags;
	pkt->sequence = onward->sequence;
	pkt->acknowledgement = onward->acknowledgement;
	pkt->length = 0;
	pkt->flags |= PACKET_EVENT;
	pkt->cut = -verdict;
	pkt->flags &= ~PACKET_OPTIONS;
	pkt->hops = 64;
	pkt->l4 = sizeof(struct ethhdr) +
		  (pkt->ethertype == bpf_htons(ETH_P_IP) ? sizeof(struct iphdr) : sizeof(struct ipv6hdr));
	return CONTINUE;
}

#endif
