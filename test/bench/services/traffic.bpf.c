/*
 * For the bench alone: datagrams of 4,096 flows are made and sent into a veth pair, and what comes back out of it is counted
 * and ends there. Both at the side of the cable that is not the node's.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "GPL";

const volatile __u32 cfg_ifindex = 0;
const volatile __u32 cfg_flows = 4096;

#define FRAME 60
const volatile __u32 cfg_frame[FRAME / 4] = {};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2); /* sent, come back */
	__type(key, __u32);
	__type(value, __u64);
} bench_counts SEC(".maps");

static __always_inline __u64 count(__u32 which)
{
	__u64 *n = bpf_map_lookup_elem(&bench_counts, &which);

	return n ? (*n)++ : 0;
}

/* The frame to begin with has source port 1024 and its right checksum. */
SEC("xdp")
int generate(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct udphdr *udp = data + sizeof(struct ethhdr) + sizeof(struct iphdr);
	__u32 add = count(0) & (cfg_flows - 1), sum, *word = data;
	int i;

	if (data + FRAME > end)
		return XDP_ABORTED;
	/* Frames come round again as whoever had them last has left them. */
#pragma unroll
	for (i = 0; i < FRAME / 4; i++)
		word[i] = cfg_frame[i];
	sum = (__u16)~udp->check + (__u16)~udp->source;
	udp->source = bpf_htons(1024 + add);
	sum += udp->source;
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	udp->check = ~sum;
	return bpf_redirect(cfg_ifindex, 0);
}

SEC("xdp")
int sink(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct iphdr *ip = data + sizeof(struct ethhdr);

	if ((void *)(ip + 1) > end)
		return XDP_PASS;
	if (ip->protocol != IPPROTO_UDP)
		return XDP_PASS; /* ARP and its like */
	count(1);
	return XDP_DROP;
}

/* The same behind the driver: where packets come that went past the queue between the two ends. */
SEC("tc")
int sink_tc(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct iphdr *ip = data + sizeof(struct ethhdr);

	if ((void *)(ip + 1) > end || ip->protocol != IPPROTO_UDP)
		return 0; /* TC_ACT_OK */
	count(1);
	return 2; /* TC_ACT_SHOT */
}
