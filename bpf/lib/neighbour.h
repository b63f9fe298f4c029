/*
 * "Who has this address?" answered in place: ARP and neighbour solicitation, turned round and sent back.
 * On the uplink for the pods of this node, so that whoever is on that link needs no route to a node for them.
 * On a pod's device for its gateway; the pod has permanent entries, this is for one that flushed them.
 */
#ifndef WEFT_LIB_NEIGHBOUR_H
#define WEFT_LIB_NEIGHBOUR_H

#include <linux/icmpv6.h>

#include "lib/packet.h"
#include "maps/endpoints.h"

/* ARP for IPv4 over Ethernet (RFC 826); linux/if_arp.h drags the C library in. */
struct arp4 {
	__be16 hardware;
	__be16 network;
	__u8 hardware_size;
	__u8 network_size;
	__be16 operation;
	__u8 sender_mac[6];
	__u8 sender_ip[4];
	__u8 target_mac[6];
	__u8 target_ip[4];
} __attribute__((packed));

#define ARP_REQUEST 1
#define ARP_REPLY 2

#define ND_SOLICIT 135
#define ND_ADVERT 136

struct neighbour_message {
	struct icmp6hdr icmp;
	struct in6_addr target;
};

/* Option 2: target link-layer address, in units of eight bytes. */
struct link_layer_option {
	__u8 type;
	__u8 length;
	struct mac mac;
} __attribute__((packed));

INLINE __be32 load_be32(const __u8 *p)
{
	__be32 value;

	__builtin_memcpy(&value, p, sizeof(value));
	return value;
}

/* Whether we speak for the address: 1 yes; 0 that is the stack's to say; -1 nobody on this node does. */
typedef int (*speaks_for)(struct __sk_buff *skb, const struct address *target);

INLINE int answer_arp(struct __sk_buff *skb, const volatile struct mac *mine, speaks_for speaks)
{
	struct address target;
	struct ethhdr *eth;
	struct arp4 *arp;
	__u8 ip[4];
	int says;

	if (bpf_skb_pull_data(skb, sizeof(*eth) + sizeof(*arp)))
		return TC_ACT_OK;
	eth = (void *)(long)skb->data;
	arp = (void *)(eth + 1);
	if ((void *)(arp + 1) > (void *)(long)skb->data_end)
		return TC_ACT_OK;
	if (arp->operation != bpf_htons(ARP_REQUEST) || arp->network != bpf_htons(ETH_P_IP) || arp->network_size != 4 ||
	    arp->hardware_size != 6)
		return TC_ACT_OK;
	address_from4(&target, load_be32(arp->target_ip));
	/* Asking for one's own address is a probe or an announcement, not a question. */
	if (load_be32(arp->sender_ip) == target.word[3])
		return TC_ACT_OK;
	says = speaks(skb, &target);
	if (says <= 0)
		return says < 0 ? TC_ACT_SHOT : TC_ACT_OK;
	arp->operation = bpf_htons(ARP_REPLY);
	__builtin_memcpy(eth->h_dest, arp->sender_mac, 6);
	copy_mac(eth->h_source, mine);
	__builtin_memcpy(ip, arp->target_ip, 4);
	__builtin_memcpy(arp->target_mac, arp->sender_mac, 6);
	__builtin_memcpy(arp->target_ip, arp->sender_ip, 4);
	copy_mac(arp->sender_mac, mine);
	__builtin_memcpy(arp->sender_ip, ip, 4);
	return bpf_redirect(skb->ifindex, 0);
}

INLINE __u16 fold(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

/* Everything that an advertisement's checksum covers, in the order of its sum. */
struct advertisement {
	struct in6_addr source;
	struct in6_addr destination;
	__be32 length;
	__be32 next_header;
	struct neighbour_message message;
	struct link_layer_option option;
} __attribute__((packed, aligned(4)));

INLINE int answer_solicitation(struct __sk_buff *skb, const volatile struct mac *mine, speaks_for speaks)
{
	const __u32 size = sizeof(struct ethhdr) + sizeof(struct ipv6hdr) + sizeof(struct neighbour_message) +
			   sizeof(struct link_layer_option);
	struct advertisement a = {};
	struct neighbour_message *question;
	struct in6_addr asker;
	struct address target;
	struct ipv6hdr *ip;
	struct ethhdr *eth;
	__u8 asker_mac[6];
	int says;

	if (bpf_skb_pull_data(skb, sizeof(*eth) + sizeof(*ip) + sizeof(*question)))
		return CONTINUE;
	eth = (void *)(long)skb->data;
	ip = (void *)(eth + 1);
	question = (void *)(ip + 1);
	if ((void *)(question + 1) > (void *)(long)skb->data_end)
		return CONTINUE;
	if (question->icmp.icmp6_type != ND_SOLICIT || question->icmp.icmp6_code != 0 || ip->hop_limit != 255)
		return CONTINUE;
	asker = ip->saddr;
	/* From the unspecified address: somebody looks for a duplicate of his own address, and we have none. */
	if (!asker.in6_u.u6_addr32[0] && !asker.in6_u.u6_addr32[3])
		return CONTINUE;
	address_from6(&target, &question->target);
	says = speaks(skb, &target);
	if (says <= 0)
		return says < 0 ? TC_ACT_SHOT : CONTINUE;
	__builtin_memcpy(asker_mac, eth->h_source, 6);

	a.source = question->target;
	a.destination = asker;
	a.length = bpf_htonl(sizeof(a.message) + sizeof(a.option));
	a.next_header = bpf_htonl(IPPROTO_ICMPV6);
	a.message.icmp.icmp6_type = ND_ADVERT;
	a.message.icmp.icmp6_dataun.un_data32[0] = bpf_htonl(0x60000000); /* solicited, override */
	a.message.target = question->target;
	a.option.type = 2;
	a.option.length = 1;
	copy_mac(&a.option.mac, mine);
	a.message.icmp.icmp6_cksum = fold(bpf_csum_diff(0, 0, (__be32 *)&a, sizeof(a), 0));

	/* The question may carry other options or none: the answer has its own length. */
	if (bpf_skb_change_tail(skb, size, 0) || bpf_skb_pull_data(skb, size))
		return drop(REASON_WRITE_FAILED);
	eth = (void *)(long)skb->data;
	ip = (void *)(eth + 1);
	if ((void *)eth + size > (void *)(long)skb->data_end)
		return drop(REASON_WRITE_FAILED);
	__builtin_memcpy(eth->h_dest, asker_mac, 6);
	copy_mac(eth->h_source, mine);
	ip->payload_len = bpf_htons(sizeof(a.message) + sizeof(a.option));
	ip->nexthdr = IPPROTO_ICMPV6;
	ip->hop_limit = 255;
	ip->saddr = a.source;
	ip->daddr = a.destination;
	__builtin_memcpy((void *)(ip + 1), &a.message, sizeof(a.message) + sizeof(a.option));
	return bpf_redirect(skb->ifindex, 0);
}

#endif
