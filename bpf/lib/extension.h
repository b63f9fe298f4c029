/* IPv6 extension headers: the way to the transport header, with what must not be on it. */
#ifndef WEFT_LIB_EXTENSION_H
#define WEFT_LIB_EXTENSION_H

#include "lib/packet.h"

#define EXTENSIONS_MAX 8 /* headers that are looked at, the transport's included; RFC 8504 lets a node limit them */

struct extension {
	__u8 next;
	__u8 length; /* in units of eight bytes, without the first; authentication: of four, without two */
	__u8 type;   /* routing */
	__u8 segments;
};

/* Walks to the transport header. `bytes` is what is left from pkt->l4 on. Returns what is left there, or a drop. */
FUNCTION int skip_extensions(struct __sk_buff *skb, struct packet *pkt, __u32 bytes)
{
	__u32 offset = sizeof(struct ethhdr) + sizeof(struct ipv6hdr), size, i;
	__u8 next;

	if (!pkt)
		return drop(REASON_INVALID_PACKET);
	next = pkt->tuple.protocol;
	pkt->flags |= PACKET_OPTIONS;
	for (i = 0; i < EXTENSIONS_MAX; i++) {
		struct extension extension;
		struct fragment_header fragment;

		switch (next) {
		case IPPROTO_HOPOPTS:
			/* Only directly after the first header (RFC 8200, 4.1). */
			if (i)
				return drop(REASON_INVALID_EXTENSION_HEADER);
			break;
		case IPPROTO_ROUTING:
		case IPPROTO_DSTOPTS:
		case IPPROTO_AH:
			break;
		case IPPROTO_FRAGMENT:
			if (bytes < 8 || bpf_skb_load_bytes(skb, offset, &fragment, sizeof(fragment)))
				return drop(REASON_TRUNCATED_L4);
			offset += 8;
			bytes -= 8;
			next = fragment.next;
			if (fragment.offset & bpf_htons(0xfff8)) {
				/* As of IPv4: it would change the flags of the first one's header. */
				if (next == IPPROTO_TCP && (fragment.offset & bpf_htons(0xfff8)) == bpf_htons(8))
					return drop(REASON_INVALID_PACKET);
				pkt->flags |= PACKET_LATER_FRAGMENT;
				pkt->fragment = fragment.id;
				pkt->tuple.protocol = next;
				pkt->l4 = 0;
				return bytes;
			}
			/* Without a successor it is whole (RFC 6946). */
			if (fragment.offset & bpf_htons(1)) {
				pkt->flags |= PACKET_FIRST_FRAGMENT;
				pkt->fragment = fragment.id;
			}
			continue;
		default:
			pkt->tuple.protocol = next;
			pkt->l4 = offset;
			return bytes;
		}
		if (bytes < 8 || bpf_skb_load_bytes(skb, offset, &extension, sizeof(extension)))
			return drop(REASON_TRUNCATED_L4);
		/* Where it would really go is not where it says: no policy could be asked (RFC 5095). */
		if (next == IPPROTO_ROUTING && (FAULTY(21, 0, extension.segments) || extension.type == 0))
			return drop(REASON_INVALID_EXTENSION_HEADER);
		size = next == IPPROTO_AH ? (extension.length + 2) * 4 : (extension.length + 1) * 8;
		if (size > bytes)
			return drop(REASON_TRUNCATED_L4);
		offset += size;
		bytes -= size;
		next = extension.next;
	}
	return drop(REASON_INVALID_EXTENSION_HEADER);
}

INLINE int is_extension(__u8 protocol)
{
	return protocol == IPPROTO_HOPOPTS || protocol == IPPROTO_ROUTING || protocol == IPPROTO_FRAGMENT ||
	       protocol == IPPROTO_DSTOPTS || protocol == IPPROTO_AH;
}

#endif
