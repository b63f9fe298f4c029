/*
 * What the node's own stack sends to a pod. Attached to the host end of its veth pair, on the way out; packets of other pods
 * and of the uplink are redirected past it.
 */
#include "config.h"
#include "lib/fragment.h"
#include "lib/leave.h"
#include "lib/parse.h"
#include "lib/resident.h"
#include "lib/service.h"
#include "lib/track.h"

INLINE int receive(struct __sk_buff *skb, struct packet *pkt)
{
	const struct endpoint *to = resident(pkt, &pkt->tuple.destination, RESIDENT_RECEIVER);
	int verdict;

	/* The link's own affairs: neighbour discovery, and whatever else is not to a pod. */
	if (!to || ((pkt->flags & PACKET_NEIGHBOUR) && pkt->hops == 255))
		return TC_ACT_OK;
	verdict = resolve_fragment(skb, pkt);
	if (verdict == CONTINUE)
		verdict = track(skb, pkt, 0, to, HOOK_HOST);
	if (verdict == CONTINUE)
		verdict = nat_answer(skb, pkt);
	return verdict == CONTINUE ? TC_ACT_OK : verdict;
}

SEC("tc")
int to_container(struct __sk_buff *skb)
{
	struct packet *pkt;
	int verdict;

	if (skb->mark == MARK_ANSWER)
		return TC_ACT_OK;
	pkt = new_packet();
	if (!pkt)
		return TC_ACT_SHOT;
	begin_epoch(pkt);
	verdict = parse_packet(skb, pkt);
	if (verdict == CONTINUE)
		verdict = pkt->ethertype == bpf_htons(ETH_P_ARP) ? TC_ACT_OK : receive(skb, pkt);

	return leave(skb, pkt, verdict, DIRECTION_INGRESS, ANSWER_NONE, skb->ifindex);
}
