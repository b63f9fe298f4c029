/*
 * Addresses that are exchanged for the length of a connection: by pairs of entries, one for each direction. Which address a
 * packet gets is decided once, by whoever writes the pair (lib/service.h).
 */
#ifndef WEFT_LIB_NAT_H
#define WEFT_LIB_NAT_H

#include "lib/before.h"
#include "lib/clock.h"
#include "lib/icmp.h"
#include "lib/rewrite.h"
#include "lib/tuple.h"
#include "maps/services.h"
#include "maps/translations.h"

/*
 * Source ports of translations: the range that IANA leaves to whoever wants it. The agent keeps the node's own sockets out of
 * it (ip_local_reserved_ports), so that no connection of the node's can be taken for a pod's.
 */
#define NAT_PORT_FIRST 49152
#define NAT_PORT_COUNT 16384
/* With 95 % of the ports to one place in use, one in four hundred searches still finds none. */
#define NAT_TRIES 128

#define EEXIST 17

/* What the program is called with, and its clock: XDP's differ. */
#ifndef CONTEXT
#define CONTEXT struct __sk_buff
#define time_of(ctx) now(ctx)
#endif

/* What is under way, off the stack: that is 512 bytes for all functions at once. */
struct nat_work {
	struct rewrite question; /* the pair that is written */
	struct rewrite answer;
	struct tuple asked; /* the packet as it came */
	struct tuple key;
	struct tuple inner;
	struct tuple outer;
	struct inner quoted;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct nat_work);
} scratch_nat SEC(".maps");

/* Null only for the verifier. */
INLINE struct nat_work *nat_work(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&scratch_nat, &zero);
}

/* The entry of a packet, or none: also as the version before this one had it. */
INLINE struct rewrite *translation_of(const struct tuple *key)
{
	struct rewrite *r = bpf_map_lookup_elem(&translations_v1, key);

	if (r || !cfg_rewrite_before || !may_write())
		return r;
	take_pair(key);
	r = bpf_map_lookup_elem(&translations_v1, key);
	if (!r && recall_rewrite(key))
		r = before_work();
	return r;
}

INLINE int tuple_equal(const struct tuple *a, const struct tuple *b)
{
	return address_equal(&a->source, &b->source) && address_equal(&a->destination, &b->destination) &&
	       a->source_port == b->source_port && a->destination_port == b->destination_port &&
	       a->protocol == b->protocol;
}

INLINE int is_bare_syn(const struct packet *pkt)
{
	return pkt->tuple.protocol == IPPROTO_TCP && !(pkt->flags & PACKET_LATER_FRAGMENT) &&
	       (pkt->tcp_flags & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN)) == TCP_SYN;
}

/* Behind the packet's last number. */
INLINE __u32 segment_end(const struct packet *pkt)
{
	return pkt->sequence + pkt->length + !!(pkt->tcp_flags & TCP_SYN) + !!(pkt->tcp_flags & TCP_FIN);
}

/*
 * Whether a reset ends the translation: of a side that has spoken it has a number of the last 65,535 that it has sent (TCP's
 * window where none is scaled; what the other side has acknowledged is not kept here), of one that has not it names the SYN
 * that it refuses. Any other is for the ends to look at.
 */
INLINE int reset_counts(const struct rewrite *r, const struct packet *pkt)
{
	const struct rewrite *other;
	struct tuple key;

	if (r->flags & REWRITE_SPOKE)
		return FAULTY(34, 1, r->sent - pkt->sequence <= 0xffff);
	turn_round(&r->to, &key);
	other = bpf_map_lookup_elem(&translations_v1, &key);
	return other && (other->flags & REWRITE_SPOKE) && (pkt->tcp_flags & TCP_ACK) &&
	       pkt->acknowledgement == other->sent;
}

/* What a TCP packet says of its direction. Returns the flags that it adds. */
INLINE __u32 note_segment(struct rewrite *r, const struct packet *pkt)
{
	__u32 end;

	if (pkt->tcp_flags & TCP_RST)
		return reset_counts(r, pkt) ? REWRITE_RESET : 0;
	end = segment_end(pkt);
	/* A SYN in the middle of a connection says nothing of it. */
	if (!(r->flags & REWRITE_SPOKE) || (!is_bare_syn(pkt) && (__s32)(end - r->sent) > 0))
		r->sent = end;
	return REWRITE_SPOKE | (pkt->tcp_flags & TCP_FIN ? REWRITE_FIN : 0);
}

/* The first packet of a connection that is to be translated. */
INLINE void note_beginning(struct rewrite *r, const struct packet *pkt)
{
	r->sent = 0;
	if (pkt->tuple.protocol == IPPROTO_TCP) {
		r->sent = segment_end(pkt);
		r->flags |= REWRITE_SPOKE;
	}
}

/* Seconds are enough for time-outs, and let a busy entry's cache line stay as it is. */
INLINE void note_use(struct rewrite *r, const struct packet *pkt, __u64 time)
{
	__u32 second = time / SECOND, flags = r->flags;

	if (r->seen != second)
		r->seen = second;
	if (pkt->tuple.protocol == IPPROTO_TCP && !(pkt->flags & PACKET_LATER_FRAGMENT))
		flags |= note_segment(r, pkt);
	if (flags & REWRITE_ANSWER)
		flags |= REWRITE_ANSWERED;
	if (flags != r->flags)
		r->flags = flags;
}

/* Both ends have said their last, or one has hung up. */
INLINE int is_over(const struct rewrite *question, const struct rewrite *answer)
{
	if ((question->flags | (answer ? answer->flags : REWRITE_RESET)) & REWRITE_RESET)
		return 1;
	return question->flags & answer->flags & REWRITE_FIN;
}

INLINE void forget_pair(const struct tuple *question, const struct rewrite *r)
{
	struct tuple answer;

	turn_round(&r->to, &answer);
	bpf_map_delete_elem(&translations_v1, question);
	bpf_map_delete_elem(&translations_v1, &answer);
	forget_left_pair(question, &answer);
}

/*
 * The entry for a packet as it came, or none. A SYN on a connection that is over begins another (its tuple came round again):
 * the pair goes, and who asked chooses anew.
 */
INLINE struct rewrite *find_rewrite(const struct packet *pkt, __u64 time)
{
	struct rewrite *r = translation_of(&pkt->tuple), *answer;
	struct tuple key;

	if (!r)
		return 0;
	if (is_bare_syn(pkt) && !(r->flags & REWRITE_ANSWER)) {
		turn_round(&r->to, &key);
		answer = bpf_map_lookup_elem(&translations_v1, &key);
		if (is_over(r, answer)) {
			if (may_write())
				forget_pair(&pkt->tuple, r);
			return 0;
		}
		/* Nobody has answered the first one: it begins here. */
		if (!(answer->flags & REWRITE_ANSWERED) && may_write())
			r->sent = segment_end(pkt);
	}
	if (may_write())
		note_use(r, pkt, time);
	return r;
}

/* A socket of this node's own has the place: `t` is the packet that would come back. */
INLINE int is_hosts(void *ctx, const struct tuple *t)
{
	struct bpf_sock_tuple place = {};
	struct bpf_sock *sk;
	__u32 size;

	if (is_mapped(&t->source)) {
		place.ipv4.saddr = t->source.word[3];
		place.ipv4.daddr = t->destination.word[3];
		place.ipv4.sport = t->source_port;
		place.ipv4.dport = t->destination_port;
		size = sizeof(place.ipv4);
	} else {
		__builtin_memcpy(place.ipv6.saddr, &t->source, 16);
		__builtin_memcpy(place.ipv6.daddr, &t->destination, 16);
		place.ipv6.sport = t->source_port;
		place.ipv6.dport = t->destination_port;
		size = sizeof(place.ipv6);
	}
	if (t->protocol == IPPROTO_TCP)
		sk = bpf_skc_lookup_tcp(ctx, &place, size, BPF_F_CURRENT_NETNS, 0);
	else if (t->protocol == IPPROTO_UDP)
		sk = bpf_sk_lookup_udp(ctx, &place, size, BPF_F_CURRENT_NETNS, 0);
	else
		return 0;
	if (!sk)
		return 0;
	bpf_sk_release(sk);
	return 1;
}

/* How a pair is written. */
enum pair_how {
	PAIR_KEEP_PORT = 0, /* the sender's own port, another only where that is another connection's */
	PAIR_NODE = 1,	    /* under the node's address: from the range, and no socket's of the node */
};

/* One try: 0, -EEXIST where the way back is another's. An entry of this very connection is taken over. */
INLINE long write_answer(struct nat_work *w)
{
	const struct rewrite *there;
	long failed;

	turn_round(&w->question.to, &w->key);
	/* A port that is another connection's since before is not free. */
	if (cfg_rewrite_before)
		take_pair(&w->key);
	failed = bpf_map_update_elem(&translations_v1, &w->key, &w->answer, BPF_NOEXIST);
	if (FAULTY(28, 1, failed != -EEXIST))
		return FAULTY(28, 0, failed);
	there = bpf_map_lookup_elem(&translations_v1, &w->key);
	/* Its other half was lost, or another CPU is at it with the same packet's twin. */
	return there && tuple_equal(&there->to, &w->answer.to) ? 0 : failed;
}

/* How many the pod has begun that this one is from; none for who is no pod of this node. */
INLINE __u32 *pairs_of(const struct address *source)
{
	const struct endpoint *pod = bpf_map_lookup_elem(&endpoints_v2, source);
	__u32 number = pod ? pod->number : 0;

	return number ? bpf_map_lookup_elem(&pairs_v1, &number) : 0;
}

/*
 * Writes both entries for the connection that `w->asked` begins, whose packets become `w->question.to`; the source port of that
 * is this function's to choose. `random` begins the search. Returns REASON_FORWARDED, or why it cannot be.
 */
FUNCTION int write_pair(CONTEXT *ctx, struct nat_work *w, __u32 how, __u32 random)
{
	__u32 i, port, *pairs;
	__u8 protocol;
	int has_ports;
	long failed;

	if (!w)
		return REASON_MAP_WRITE_FAILED;
	pairs = pairs_of(&w->asked.source);
	if (cfg_pair_share && pairs && *pairs >= cfg_pair_share)
		return REASON_FLOWS_SHARE;
	port = bpf_ntohs(w->asked.source_port);
	protocol = w->asked.protocol;
	has_ports = protocol == IPPROTO_TCP || protocol == IPPROTO_UDP || (is_icmp(protocol) && port);
	/* The port that the sender has, or its place in the range, where that is free: others then see what the pod sees. */
	if (has_ports && how == PAIR_NODE && (port < NAT_PORT_FIRST || port >= NAT_PORT_FIRST + NAT_PORT_COUNT))
		port = NAT_PORT_FIRST + port % NAT_PORT_COUNT;
	w->question.to.source_port = bpf_htons(port);
	if (!may_write())
		return REASON_FORWARDED;
	w->answer = w->question;
	w->answer.flags = (w->answer.flags | REWRITE_ANSWER) & ~REWRITE_SPOKE;
	turn_round(&w->asked, &w->answer.to);
	for (i = 0; i < NAT_TRIES; i++) {
		if (i) {
			if (!has_ports)
				return REASON_NO_NAT_PORT;
			/* Spread over the range by a step that shares no factor with its size. */
			port = NAT_PORT_FIRST + ((random + i * 7919) & (NAT_PORT_COUNT - 1));
			w->question.to.source_port = bpf_htons(port);
		}
		failed = write_answer(w);
		if (failed == -EEXIST)
			continue;
		if (failed)
			return REASON_MAP_WRITE_FAILED;
		if (how == PAIR_NODE && is_hosts(ctx, &w->key)) {
			bpf_map_delete_elem(&translations_v1, &w->key);
			continue;
		}
		failed = bpf_map_update_elem(&translations_v1, &w->asked, &w->question, BPF_ANY);
		if (!failed) {
			if (cfg_rewrite_before) {
				leave_rewrite(&w->key, &w->answer);
				leave_rewrite(&w->asked, &w->question);
			}
			if (pairs)
				__sync_fetch_and_add(pairs, 1);
			return REASON_FORWARDED;
		}
		bpf_map_delete_elem(&translations_v1, &w->key);
		return REASON_MAP_WRITE_FAILED;
	}
	return REASON_NO_NAT_PORT;
}

/*
 * An ICMP error about a packet of a translated connection: to whom it was really meant, and about the packet as that one knows
 * it. The quoted packet's own way back is the entry that says so. `*flags`: of the entry. Returns 1 where it was translated, 0
 * where there is none, -1 where the kernel refuses.
 */
FUNCTION int translate_error(struct __sk_buff *skb, struct packet *pkt, __u32 *flags)
{
	struct nat_work *w = nat_work();
	const struct rewrite *r;
	struct inner *q;
	__s64 change;
	__u32 sum;

	if (!w || !pkt || !flags)
		return 0;
	sum = pkt->l4 + 2;
	q = &w->quoted;
	__builtin_memset(q, 0, sizeof(*q));
	if (parse_inner(skb, pkt, q) != CONTINUE)
		return 0;
	turn_round(&q->tuple, &w->key);
	r = translation_of(&w->key);
	if (!r || ((*flags & r->flags & REWRITE_ANSWER) && !(r->flags & REWRITE_HAIRPIN)))
		return 0;
	/* Masquerade's own, and only where it is its turn. */
	if ((*flags & REWRITE_MASQUERADE) && !(r->flags & REWRITE_MASQUERADE))
		return 0;
	if ((*flags & REWRITE_ANSWER) && (r->flags & REWRITE_MASQUERADE))
		return 0;
	*flags = r->flags;
	turn_round(&r->to, &w->inner);
	w->outer = pkt->tuple;
	w->outer.destination = r->to.destination;
	if (address_equal(&w->outer.source, &w->key.source))
		w->outer.source = r->to.source;

	change = bpf_csum_diff((__be32 *)&q->tuple, 32, (__be32 *)&w->inner, 32, 0);
	if (pkt->ethertype == bpf_htons(ETH_P_IP)) {
		__be32 addresses[2] = { w->inner.source.word[3], w->inner.destination.word[3] };

		/* The quoted header's own checksum takes up what its addresses change: the message's sum stays. */
		if (bpf_l3_csum_replace(skb, q->network + 10, 0, change, 0) ||
		    bpf_skb_store_bytes(skb, q->network + 12, addresses, sizeof(addresses), 0))
			return -1;
	} else if (bpf_l4_csum_replace(skb, sum, 0, change, 0) || bpf_skb_store_bytes(skb, q->network + 8, &w->inner, 32, 0)) {
		return -1;
	}
	/* The quoted transport's checksum is left: it may be cut off, and nobody looks at it (RFC 5508, REQ-5). */
	if (q->l4 && is_icmp(w->inner.protocol)) {
		__be16 id = icmp_identifier(&w->inner), old = icmp_identifier(&q->tuple);

		if (id != old && (bpf_l4_csum_replace(skb, sum, old, id, sizeof(id)) ||
				  bpf_skb_store_bytes(skb, q->l4 + 4, &id, sizeof(id), 0)))
			return -1;
	} else if (q->l4) {
		__be16 ports[2] = { w->inner.source_port, w->inner.destination_port };
		__u32 before, after;

		__builtin_memcpy(&after, ports, sizeof(after));
		__builtin_memcpy(&before, &q->tuple.source_port, sizeof(before));
		if (before != after && (bpf_l4_csum_replace(skb, sum, before, after, sizeof(after)) ||
					bpf_skb_store_bytes(skb, q->l4, ports, sizeof(ports), 0)))
			return -1;
	}
	return rewrite_by_calls(skb, pkt, &w->outer) ? -1 : 1;
}

#endif
