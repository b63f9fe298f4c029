/* A packet that comes to this node. Attached to the uplink, on the way in. */
#include "config.h"
#include "lib/flow.h"
#include "lib/forward.h"
#include "lib/fragment.h"
#include "lib/lb.h"
#include "lib/leave.h"
#include "lib/neighbour.h"
#include "lib/service.h"

/* Pods of this node, and the virtual addresses that this node was elected for; of the others its stack must not speak. */
INLINE int is_ours(struct __sk_buff *skb, const struct address *target)
{
	__u32 flags;

	if (bpf_map_lookup_elem(&endpoints_v2, target))
		return 1;
	flags = address_flags(target);
	if (flags & ADDRESS_ANNOUNCED)
		return 1;
	return flags & ADDRESS_VIRTUAL ? -1 : 0;
}

/* Whoever is on the node's link may ask for a pod as for a neighbour. */
INLINE int answer_neighbours(struct __sk_buff *skb, const struct packet *pkt)
{
	if (pkt->ethertype == bpf_htons(ETH_P_ARP))
		return answer_arp(skb, &cfg_uplink_mac, is_ours);
	/* To all, or, where only the entry's age is checked, to the pod's own address. Hop limit 255: from this link. */
	if (pkt->ethertype == bpf_htons(ETH_P_IPV6) && pkt->tuple.protocol == IPPROTO_ICMPV6 && pkt->hops == 255)
		return answer_solicitation(skb, &cfg_uplink_mac, is_ours);
	return CONTINUE;
}

/* To a pod of this node, if it may. */
INLINE int receive(struct __sk_buff *skb, struct packet *pkt, const struct endpoint *to)
{
	int verdict = track(skb, pkt, 0, to, HOOK_NETDEV);

	if (verdict == CONTINUE)
		verdict = nat_answer(skb, pkt);
	return verdict == CONTINUE ? deliver(skb, pkt, to) : verdict;
}

SEC("tc")
int from_netdev(struct __sk_buff *skb)
{
	const struct endpoint *to;
	struct packet *pkt;
	int verdict;

	pkt = new_packet();
	if (!pkt)
		return TC_ACT_SHOT;
	verdict = parse_packet(skb, pkt);
	if (verdict == CONTINUE)
		verdict = answer_neighbours(skb, pkt);
	if (verdict == CONTINUE)
		verdict = resolve_fragment(skb, pkt);
	/* What is not a pod's (other protocols, the node's own broken packets) is the stack's, and not counted. */
	if (verdict == TC_ACT_OK)
		return TC_ACT_OK;
	to = bpf_map_lookup_elem(&endpoints_v2, &pkt->tuple.destination);
	if (verdict < 0 && verdict != CONTINUE && !to)
		return TC_ACT_OK;
	if (verdict == CONTINUE && !to) {
		verdict = lb_from_netdev(skb, pkt);
		if (verdict == CONTINUE)
			to = bpf_map_lookup_elem(&endpoints_v2, &pkt->tuple.destination);
	}
	if (verdict == CONTINUE)
		verdict = to ? receive(skb, pkt, to) : TC_ACT_OK;
	if (verdict == TC_ACT_OK)
		return TC_ACT_OK;

	return leave(skb, pkt, verdict, DIRECTION_INGRESS, ANSWER_DEVICE, to ? to->ifindex : 0);
}
