#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/udp.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
char LICENSE[] SEC("license") = "GPL";
const volatile __u32 cfg_mode = 0;
SEC("tc")
int floor_tc(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ethhdr *eth = data;
	struct iphdr *ip = data + 14;
	__be32 before, after = bpf_htonl(0x0af4000b);
	__u8 mac[6] = {2,0,0,0,0,2}, own[6] = {2,0,0,0,0,1};
	if ((void *)(ip + 1) > end || ip->protocol != IPPROTO_UDP)
		return TC_ACT_OK;
	before = ip->daddr;
	ip->daddr = after;
	ip->ttl--;
	__builtin_memcpy(eth->h_dest, mac, 6);
	__builtin_memcpy(eth->h_source, own, 6);
	bpf_l3_csum_replace(skb, 24, before, after, 4);
	bpf_l4_csum_replace(skb, 40, before, after, 4 | BPF_F_PSEUDO_HDR | BPF_F_MARK_MANGLED_0);
	if (cfg_mode == 0)
		return bpf_redirect(skb->ifindex, 0);
	if (cfg_mode == 1) {
		struct bpf_redir_neigh n = { .nh_family = 2, .ipv4_nh = bpf_htonl(0x0af60002) };
		return bpf_redirect_neigh(skb->ifindex, &n, sizeof(n), 0);
	}
	if (cfg_mode == 2)
		return bpf_redirect_peer(skb->ifindex, 0);
	return TC_ACT_SHOT;
}
