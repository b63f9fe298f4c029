/*
 * The first look at what comes by the uplink, where the driver (or, generic, the kernel) has only just received it: packets to
 * Services whose backend is on another node, and the answers of those, go out again from here. Everything else goes on to tc,
 * which does the same by the same maps and the same choice: other protocols, fragments, options, ICMP, backends of this node,
 * refusals, and packets whose checksum is not made yet.
 */
#define CONTEXT struct xdp_md
#define time_of(ctx) time_of_frame(ctx)

#include "lib/clock.h"

/* A frame has no place for the model's clock but in front of it. */
INLINE __u64 time_of_frame(struct xdp_md *ctx)
{
	/* A context that a function does not use clang would not pass, and the verifier asks for it. */
	__asm__ volatile("" : : "r"(ctx));
	if (cfg_probe == PROBE_MODEL) {
		__u64 *time = (void *)(long)ctx->data_meta;

		return (void *)(time + 1) > (void *)(long)ctx->data ? 0 : *time;
	}
	return clock_ns();
}

#include "lib/choose.h"
#include "maps/counters.h"
#include "maps/endpoints.h"

/* Headers without options. */
struct headers4 {
	struct ethhdr eth;
	struct iphdr ip;
	union {
		struct tcphdr tcp;
		struct udphdr udp;
	};
} __attribute__((packed));

struct headers6 {
	struct ethhdr eth;
	struct ipv6hdr ip;
	union {
		struct tcphdr tcp;
		struct udphdr udp;
	};
} __attribute__((packed));

INLINE __u16 fold32(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + ((sum >> 16) & 0xffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/* Old checksum, what changed. */
INLINE __sum16 updated(__sum16 check, __u32 change)
{
	__u32 sum = (__u16)~check + (change & 0xffff) + (change >> 16);

	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

/*
 * A sender on this very machine (a veth pair) leaves the checksum to a device that never comes, and has only the sum of the
 * pseudo header there. Sent on from here it would stay so.
 */
INLINE int is_unfinished(const struct packet *pkt, __sum16 check, __u32 bytes)
{
	__u64 sum = bpf_htonl(bytes) + (__u64)bpf_htonl(pkt->tuple.protocol);
	int i;

	if (pkt->ethertype == bpf_htons(ETH_P_IP)) {
		sum += pkt->tuple.source.word[3];
		sum += pkt->tuple.destination.word[3];
	} else {
#pragma unroll
		for (i = 0; i < 4; i++) {
			sum += pkt->tuple.source.word[i];
			sum += pkt->tuple.destination.word[i];
		}
	}
	return check == fold32(sum);
}

INLINE int take_ports(struct packet *pkt, void *l4, void *end, __u32 bytes)
{
	struct tcphdr *tcp = l4;
	struct udphdr *udp = l4;
	__sum16 check;

	if (pkt->tuple.protocol == IPPROTO_TCP) {
		if ((void *)(tcp + 1) > end || bytes < sizeof(*tcp))
			return -1;
		if (tcp->doff < 5 || tcp->doff * 4 > bytes)
			return -1;
		pkt->tcp_flags = ((__u8 *)tcp)[13];
		pkt->sequence = bpf_ntohl(tcp->seq);
		pkt->acknowledgement = bpf_ntohl(tcp->ack_seq);
		pkt->length = bytes - tcp->doff * 4;
		check = tcp->check;
		if (pkt->tcp_flags & (TCP_FIN | TCP_SYN | TCP_RST))
			pkt->flags |= PACKET_EVENT;
	} else if (pkt->tuple.protocol == IPPROTO_UDP) {
		if ((void *)(udp + 1) > end || bytes < sizeof(*udp))
			return -1;
		check = udp->check;
	} else {
		return -1;
	}
	pkt->tuple.source_port = udp->source;
	pkt->tuple.destination_port = udp->dest;
	pkt->flags |= PACKET_PORTS;
	return check && is_unfinished(pkt, check, bytes) ? -1 : 0;
}

INLINE int read_headers(struct xdp_md *ctx, struct packet *pkt)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	__u32 total;

	if ((void *)(eth + 1) > end)
		return -1;
	/* Another machine's, which the link's switch sends to everybody at the moment. */
	if (!is_mac(eth->h_dest, &cfg_uplink_mac))
		return -1;
	pkt->ethertype = eth->h_proto;
	if (eth->h_proto == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = (void *)(eth + 1);

		if ((void *)(ip + 1) > end || ip->version != 4 || ip->ihl != 5 || (ip->frag_off & bpf_htons(0x3fff)) ||
		    ip->ttl < 2)
			return -1;
		total = bpf_ntohs(ip->tot_len);
		if (total < sizeof(*ip) || FAULTY(36, 0, total > end - (void *)ip))
			return -1;
		address_from4(&pkt->tuple.source, ip->saddr);
		address_from4(&pkt->tuple.destination, ip->daddr);
		pkt->tuple.protocol = ip->protocol;
		return take_ports(pkt, ip + 1, end, total - sizeof(*ip));
	}
	if (eth->h_proto == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip = (void *)(eth + 1);

		if ((void *)(ip + 1) > end || ip->version != 6 || ip->hop_limit < 2)
			return -1;
		total = bpf_ntohs(ip->payload_len);
		if (FAULTY(36, 0, total > end - (void *)(ip + 1)))
			return -1;
		address_from6(&pkt->tuple.source, &ip->saddr);
		address_from6(&pkt->tuple.destination, &ip->daddr);
		/* It would pass for IPv4 in every map. */
		if (FAULTY(37, 0, is_mapped(&pkt->tuple.source) || is_mapped(&pkt->tuple.destination)))
			return -1;
		pkt->tuple.protocol = ip->nexthdr;
		return take_ports(pkt, ip + 1, end, total);
	}
	return -1;
}

/* Where the packet goes when it is what `to` says; 0, or -1 where tc has to ask for a neighbour, wrap it or say something. */
INLINE int find_way(struct xdp_md *ctx, const struct packet *pkt, const struct tuple *to, struct bpf_fib_lookup *fib)
{
	if (cfg_tunnel && in_pod_network(&to->destination))
		return -1;
	fib->ifindex = ctx->ingress_ifindex;
	fib->l4_protocol = to->protocol;
	if (pkt->ethertype == bpf_htons(ETH_P_IP)) {
		fib->family = AF_INET;
		fib->tot_len = ctx->data_end - ctx->data - sizeof(struct ethhdr);
		fib->ipv4_src = to->source.word[3];
		fib->ipv4_dst = to->destination.word[3];
	} else {
		fib->family = AF_INET6;
		fib->tot_len = ctx->data_end - ctx->data - sizeof(struct ethhdr);
		__builtin_memcpy(fib->ipv6_src, to->source.word, sizeof(fib->ipv6_src));
		__builtin_memcpy(fib->ipv6_dst, to->destination.word, sizeof(fib->ipv6_dst));
	}
	return bpf_fib_lookup(ctx, fib, sizeof(*fib), 0) == BPF_FIB_LKUP_RET_SUCCESS ? 0 : -1;
}

INLINE int write_ports(void *l4, void *end, __u8 protocol, const struct tuple *to, __u32 change)
{
	struct tcphdr *tcp = l4;
	struct udphdr *udp = l4;
	__be32 before, after;

	if ((void *)(udp + 1) > end)
		return -1;
	__builtin_memcpy(&before, &udp->source, 4);
	__builtin_memcpy(&after, &to->source_port, 4);
	change = bpf_csum_diff(&before, 4, &after, 4, change);
	change = (change & 0xffff) + (change >> 16);
	if (protocol == IPPROTO_TCP) {
		if ((void *)(tcp + 1) > end)
			return -1;
		tcp->check = updated(tcp->check, change);
	} else if (FAULTY(38, 1, udp->check)) {
		udp->check = updated(udp->check, change);
		if (!udp->check)
			udp->check = 0xffff;
	}
	udp->source = to->source_port;
	udp->dest = to->destination_port;
	return 0;
}

/* All at once, after everything that can fail. */
INLINE int send_on(struct xdp_md *ctx, const struct packet *pkt, const struct tuple *to)
{
	struct bpf_fib_lookup fib = {};
	void *data, *end;
	struct ethhdr *eth;
	__u32 change;

	if (find_way(ctx, pkt, to, &fib))
		return XDP_PASS;
	change = bpf_csum_diff((__be32 *)&pkt->tuple, 32, (__be32 *)to, 32, 0);
	change = (change & 0xffff) + (change >> 16);
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	eth = data;
	if (pkt->ethertype == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = data + sizeof(*eth);

		if ((void *)(ip + 1) > end || write_ports(ip + 1, end, pkt->tuple.protocol, to, change))
			return XDP_PASS;
		ip->saddr = to->source.word[3];
		ip->daddr = to->destination.word[3];
		ip->ttl -= FAULTY(39, 0, 1);
		/* TTL is a high byte: 0x0100 less. */
		ip->check = updated(ip->check, change + (__u16)~bpf_htons(0x0100));
	} else {
		struct ipv6hdr *ip = data + sizeof(*eth);

		if ((void *)(ip + 1) > end || write_ports(ip + 1, end, pkt->tuple.protocol, to, change))
			return XDP_PASS;
		__builtin_memcpy(&ip->saddr, &to->source, 16);
		__builtin_memcpy(&ip->daddr, &to->destination, 16);
		ip->hop_limit--;
	}
	__builtin_memcpy(eth->h_dest, fib.dmac, 6);
	__builtin_memcpy(eth->h_source, fib.smac, 6);
	return fib.ifindex == ctx->ingress_ifindex ? XDP_TX : bpf_redirect(fib.ifindex, 0);
}

INLINE void count_forwarded(struct xdp_md *ctx)
{
	__u32 index = REASON_FORWARDED * DIRECTION_MAX + DIRECTION_INGRESS;
	struct counter *counter = bpf_map_lookup_elem(&counters_v2, &index);

	if (counter) {
		counter->packets++;
		counter->bytes += ctx->data_end - ctx->data;
	}
}

INLINE int serve(struct xdp_md *ctx, struct packet *pkt)
{
	__u32 known = address_flags(&pkt->tuple.destination);
	struct nat_work *w = nat_work();
	struct rewrite *r;
	int local;

	if (!w || is_for_tunnel(&pkt->tuple) || !(known & (ADDRESS_OWN | ADDRESS_VIRTUAL | ADDRESS_EXTERNAL)))
		return XDP_PASS;
	r = find_rewrite(pkt, time_of(ctx));
	if (r)
		return r->flags & REWRITE_OUT ? send_on(ctx, pkt, &r->to) : XDP_PASS;
	/* From outside comes nothing of this node's own: tc says so. Before anything is written on its behalf. */
	if (FAULTY(35, 0, bpf_map_lookup_elem(&endpoints_v2, &pkt->tuple.source) ||
				  (address_flags(&pkt->tuple.source) & ADDRESS_OWN)))
		return XDP_PASS;
	r = &w->question;
	if (choose_backend(ctx, pkt, r, LB_OUTSIDE, known) != CONTINUE)
		return XDP_PASS;
	/*
	 * The pair is written for a backend of this node as well, though tc delivers: what was chosen here stays chosen, or
	 * those of this node would have to be chosen twice.
	 */
	local = bpf_map_lookup_elem(&endpoints_v2, &r->to.destination) ||
		(address_flags(&r->to.destination) & ADDRESS_OWN);
	if (!local) {
		if (!node_address(&r->to.source, is_mapped(&pkt->tuple.source)))
			return XDP_PASS;
		r->flags |= REWRITE_OUT;
	}
	w->asked = pkt->tuple;
	if (write_pair(ctx, w, local ? PAIR_KEEP_PORT : PAIR_NODE, bpf_get_prandom_u32()))
		return XDP_PASS;
	return local ? XDP_PASS : send_on(ctx, pkt, &r->to);
}

SEC("xdp")
int xdp_entry(struct xdp_md *ctx)
{
	struct packet *pkt = new_packet();
	int verdict;

	if (!pkt || read_headers(ctx, pkt) || in_pod_network(&pkt->tuple.destination))
		return XDP_PASS;
	verdict = serve(ctx, pkt);
	if (verdict != XDP_PASS)
		count_forwarded(ctx);
	return verdict;
}
