/* A packet that comes to this node. Attached to the uplink, on the way in. */
#include "config.h"
#include "lib/arrive.h"
#include "lib/express.h"
#include "lib/neighbour.h"
#include "lib/parse.h"
#include "lib/wrapped.h"

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
FUNCTION int answer_neighbours(struct __sk_buff *skb, const struct packet *pkt)
{
	if (!pkt)
		return CONTINUE;
	if (pkt->ethertype == bpf_htons(ETH_P_ARP))
		return answer_arp(skb, &cfg_uplink_mac, is_ours);
	/* To all, or, where only the entry's age is checked, to the pod's own address. Hop limit 255: from this link. */
	if (pkt->ethertype == bpf_htons(ETH_P_IPV6) && pkt->tuple.protocol == IPPROTO_ICMPV6 && pkt->hops == 255)
		return answer_solicitation(skb, &cfg_uplink_mac, is_ours);
	return CONTINUE;
}

SEC("tc")
int from_netdev(struct __sk_buff *skb)
{
	struct packet *pkt;
	int verdict;

	if (is_wrapped(skb)) {
		/* What is in it is asked of the tunnel's own program. */
		verdict = cfg_probe ? TC_ACT_OK : express_wrapped(skb);
		return verdict == CONTINUE ? leave_wrapped(skb) : verdict;
	}
	/* Or clang keeps the address of a field, which the verifier does not let it read by. */
	__asm__ volatile("" : "+r"(skb));
	verdict = express(skb, HOOK_NETDEV);
	if (verdict != CONTINUE)
		return verdict;
	pkt = new_packet();
	if (!pkt)
		return TC_ACT_SHOT;
	begin_epoch(pkt);
	verdict = parse_packet(skb, pkt);
	if (verdict == CONTINUE)
		verdict = answer_neighbours(skb, pkt);

	return arrive(skb, pkt, verdict, HOOK_NETDEV);
}
