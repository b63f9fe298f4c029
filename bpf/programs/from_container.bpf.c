/* A packet leaving a pod. Attached to the host end of its veth pair, on the way in. */
#include "config.h"
#include "lib/express.h"
#include "lib/forward.h"
#include "lib/fragment.h"
#include "lib/leave.h"
#include "lib/neighbour.h"
#include "lib/parse.h"
#include "lib/resident.h"
#include "lib/service.h"
#include "lib/track.h"

/* 169.254.1.1 and fe80::1: what every pod's default routes go to. */
INLINE int is_gateway(struct __sk_buff *skb, const struct address *target)
{
	if (target->word[2] == V4_MAPPED && !target->word[0])
		return target->word[3] == bpf_htonl(0xa9fe0101);
	return target->word[0] == bpf_htonl(0xfe800000) && !target->word[1] && !target->word[2] &&
	       target->word[3] == bpf_htonl(1);
}

/* Neighbours are the link's own affair, and the only multicast and link-local traffic a pod has any use for. */
FUNCTION int answer_neighbours(struct __sk_buff *skb, const struct packet *pkt)
{
	int verdict = CONTINUE;

	if (!pkt)
		return CONTINUE;
	if (pkt->ethertype == bpf_htons(ETH_P_ARP)) {
		verdict = answer_arp(skb, &cfg_gateway_mac, is_gateway);
		/* Not for us, so for nobody: the pod is alone on its link. */
		return verdict == TC_ACT_OK ? TC_ACT_SHOT : verdict;
	}
	if (pkt->ethertype == bpf_htons(ETH_P_IPV6)) {
		__u32 source = bpf_ntohl(pkt->tuple.source.word[0]), destination = bpf_ntohl(pkt->tuple.destination.word[0]);
		int link = (destination >> 24) == 0xff || (destination >> 22) == 0xfe80 >> 6 || (source >> 22) == 0xfe80 >> 6;

		if (!link)
			return CONTINUE;
		if (pkt->tuple.protocol == IPPROTO_ICMPV6)
			verdict = answer_solicitation(skb, &cfg_gateway_mac, is_gateway);
		return verdict == CONTINUE ? drop(REASON_MULTICAST) : verdict;
	}
	if ((bpf_ntohl(pkt->tuple.destination.word[3]) >> 28) == 0xe || pkt->tuple.destination.word[3] == 0xffffffff)
		return drop(REASON_MULTICAST);
	return CONTINUE;
}

/* A pod speaks for itself only. */
INLINE const struct endpoint *sender(struct __sk_buff *skb, const struct packet *pkt)
{
	const struct endpoint *from = resident(pkt, &pkt->tuple.source, RESIDENT_SENDER);

	return from && from->ifindex == skb->ifindex ? from : 0;
}

INLINE int send(struct __sk_buff *skb, struct packet *pkt)
{
	const struct endpoint *from = sender(skb, pkt), *to;
	int verdict;

	if (!from)
		return drop(REASON_INVALID_SOURCE);
	verdict = resolve_fragment(skb, pkt);
	if (verdict == CONTINUE)
		verdict = lb_from_container(skb, pkt, from);
	if (verdict != CONTINUE)
		return verdict;
	to = resident(pkt, &pkt->tuple.destination, RESIDENT_RECEIVER);
	verdict = track(skb, pkt, from, to, HOOK_CONTAINER);
	/* The other node is told who it is from. */
	if (cfg_tunnel && !to)
		pkt->source_identity = from->identity ? from->identity : identity_by_address(&pkt->tuple.source);
	if (verdict == CONTINUE)
		verdict = nat_answer(skb, pkt);
	if (verdict == CONTINUE && !to)
		verdict = masquerade(skb, pkt);
	if (verdict != CONTINUE)
		return verdict;
	return to ? deliver(skb, pkt, to) : route(skb, pkt);
}

SEC("tc")
int from_container(struct __sk_buff *skb)
{
	struct packet *pkt;
	int verdict;

	/* Our own, on its way to the node's stack: a pod's packets come without a mark. */
	if (skb->mark == MARK_ANSWER)
		return TC_ACT_OK;
	verdict = express(skb, HOOK_CONTAINER);
	if (verdict != CONTINUE)
		return verdict;
	pkt = new_packet();
	if (!pkt)
		return TC_ACT_SHOT;
	begin_epoch(pkt);
	verdict = parse_packet(skb, pkt);
	if (verdict == CONTINUE)
		verdict = answer_neighbours(skb, pkt);
	if (verdict == CONTINUE)
		verdict = send(skb, pkt);

	return leave(skb, pkt, verdict, DIRECTION_EGRESS, ANSWER_PEER, skb->ifindex);
}
