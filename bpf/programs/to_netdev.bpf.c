/*
 * What leaves by the uplink, on its way out. Only attached while a process of the node itself serves somebody outside (a pod on
 * the host's network behind a node port): its answers come from the stack, and get the name back here that was asked. Costs
 * every packet between nodes one look-up.
 */
#include "config.h"
#include "lib/service.h"
#include "lib/fragment.h"
#include "lib/leave.h"
#include "lib/parse.h"

SEC("tc")
int to_netdev(struct __sk_buff *skb)
{
	struct packet *pkt;
	int verdict;

	pkt = new_packet();
	if (!pkt)
		return TC_ACT_SHOT;
	/* What is not understood is the node's own, as it is. */
	if (parse_packet(skb, pkt) != CONTINUE || pkt->ethertype == bpf_htons(ETH_P_ARP))
		return TC_ACT_OK;
	/* Pods' packets are through with it. */
	if (!(address_flags(&pkt->tuple.source) & ADDRESS_OWN) || resolve_fragment(skb, pkt) != CONTINUE)
		return TC_ACT_OK;
	verdict = restore_answer(skb, pkt);
	if (verdict >= 0 || verdict == CONTINUE)
		return TC_ACT_OK;
	return leave(skb, pkt, verdict, DIRECTION_EGRESS, ANSWER_NONE, 0);
}
