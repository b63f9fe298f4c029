/* A packet that comes to this node. Attached to the uplink, on the way in. */
#include "config.h"
#include "lib/forward.h"
#include "lib/lb.h"
#include "lib/neighbour.h"

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
	if (pkt->ethertype == bpf_htons(ETH_P_IPV6) && pkt->protocol == IPPROTO_ICMPV6 && pkt->hops == 255)
		return answer_solicitation(skb, &cfg_uplink_mac, is_ours);
	return CONTINUE;
}

/* To a pod of this node; the rest is the node's own. */
INLINE int forward(struct __sk_buff *skb, const struct packet *pkt)
{
	const struct endpoint *to = bpf_map_lookup_elem(&endpoints_v2, &pkt->destination);

	return to ? deliver(skb, pkt, to) : TC_ACT_OK;
}

SEC("tc")
int from_netdev(struct __sk_buff *skb)
{
	struct packet pkt = {};
	int verdict;

	verdict = parse_packet(skb, &pkt);
	/* What is not ours to judge (other protocols, the node's own broken packets) is the stack's. */
	if (verdict != CONTINUE)
		return TC_ACT_OK;
	verdict = answer_neighbours(skb, &pkt);
	if (verdict == CONTINUE)
		verdict = forward(skb, &pkt);
	/* The node's own traffic is not the pods': it is not counted. */
	if (verdict == TC_ACT_OK)
		return TC_ACT_OK;

	return leave(skb, verdict, DIRECTION_INGRESS);
}
