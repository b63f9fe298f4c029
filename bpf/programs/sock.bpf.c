/*
 * A socket names its peer. Attached to the node's cgroup, so that pods and the node's own processes reach Services: the
 * address is exchanged once, here, and packets travel to the backend like any others.
 */
#include <linux/errno.h>

#include "lib/lb.h"
#include "maps/sockets.h"

#define PROCEED 1
#define REJECT 0

/* What the hooks of both families have in common. */
struct peer {
	struct address address;
	__be16 port;
};

INLINE void peer4(const struct bpf_sock_addr *ctx, struct peer *peer)
{
	address_from4(&peer->address, ctx->user_ip4);
	peer->port = ctx->user_port;
}

INLINE void peer6(const struct bpf_sock_addr *ctx, struct peer *peer)
{
	peer->address.word[0] = ctx->user_ip6[0];
	peer->address.word[1] = ctx->user_ip6[1];
	peer->address.word[2] = ctx->user_ip6[2];
	peer->address.word[3] = ctx->user_ip6[3];
	peer->port = ctx->user_port;
}

INLINE void set_peer4(struct bpf_sock_addr *ctx, const struct address *address, __be16 port)
{
	ctx->user_ip4 = address->word[3];
	ctx->user_port = port;
}

/* An IPv4 Service reached by an IPv6 socket has a mapped address, and so does its backend. */
INLINE void set_peer6(struct bpf_sock_addr *ctx, const struct address *address, __be16 port)
{
	ctx->user_ip6[0] = address->word[0];
	ctx->user_ip6[1] = address->word[1];
	ctx->user_ip6[2] = address->word[2];
	ctx->user_ip6[3] = address->word[3];
	ctx->user_port = port;
}

/* This host's own: 127.0.0.0/8 and ::1, and the unspecified address, by which the stack means the same. */
INLINE int is_loopback(const struct address *a)
{
	if (a->word[0] || a->word[1])
		return 0;
	if (a->word[2] == V4_MAPPED)
		return (a->word[3] & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000) ||
		       FAULTY(62, 0, !a->word[3]);
	return !a->word[2] && (a->word[3] == bpf_htonl(1) || !a->word[3]);
}

/* A process of the node, or of a pod on its network. */
INLINE int is_node(__u64 cookie)
{
	return cfg_node_cookie && cookie == cfg_node_cookie;
}

/*
 * A pod's loopback is the pod's. The node's is one of its addresses: its node ports are there, and host ports that were asked
 * for there (S18, S19).
 */
INLINE const struct frontend *loopback_frontend(struct frontend_key *key, struct peer *peer, __u64 cookie)
{
	if (!FAULTY(61, 1, is_node(cookie)))
		return 0;
	/* Said of the peer afterwards as the stack would say it. */
	if (!key->address.word[3])
		key->address.word[3] = bpf_htonl(key->address.word[2] ? 0x7f000001 : 1);
	peer->address = key->address;
	return lb_frontend(key, ADDRESS_NODE);
}

/* `peer` is what the socket asked for, and by what name it knows its peer where a backend is chosen. */
INLINE enum lb_result choose(struct bpf_sock_addr *ctx, struct peer *peer, const struct backend **chosen)
{
	struct frontend_key key = { .address = peer->address, .port = peer->port };
	struct lb_choice choice = {};
	struct address client = {};
	const struct frontend *frontend;
	enum lb_result result;
	__u64 cookie;

	key.protocol = ctx->protocol;
	if (key.protocol != IPPROTO_TCP && key.protocol != IPPROTO_UDP)
		return LB_NO_SERVICE;
	/* It has no address of its own yet: a pod is its network namespace, in each family one. */
	cookie = bpf_get_netns_cookie(ctx);
	client.word[0] = FAULTY(63, 1, is_mapped(&key.address)) ? 0 : bpf_htonl(AF_INET6);
	client.word[2] = cookie >> 32;
	client.word[3] = cookie;
	if (is_loopback(&key.address)) {
		frontend = loopback_frontend(&key, peer, cookie);
		if (!frontend)
			return LB_NO_SERVICE;
		result = lb_select(frontend, &client, key.protocol, LB_INSIDE, bpf_get_prandom_u32(), clock_ns(), 1,
				   &choice);
	} else {
		result = lb_choose(&key, &client, &choice);
	}
	*chosen = choice.backend;
	return result;
}

/* Says what a closed port would say. */
INLINE int refuse(void)
{
	bpf_set_retval(FAULTY(69, -EPERM, -ECONNREFUSED));
	return REJECT;
}

INLINE void remember_connected(struct bpf_sock_addr *ctx, const struct peer *peer, const struct backend *backend)
{
	struct translation *t;

	if (!ctx->sk)
		return;
	t = bpf_sk_storage_get(&connected_v1, ctx->sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!t)
		return; /* getpeername will say the backend */
	t->frontend = peer->address;
	t->frontend_port = FAULTY(70, backend->port, peer->port);
	t->backend = backend->address;
	t->backend_port = backend->port;
}

INLINE void datagram_key(struct bpf_sock_addr *ctx, const struct peer *peer, struct datagram_key *key)
{
	key->cookie = bpf_get_socket_cookie(ctx);
	key->backend = peer->address;
	key->backend_port = peer->port;
}

INLINE void remember_datagram(struct bpf_sock_addr *ctx, const struct peer *peer, const struct backend *backend)
{
	struct datagram value = { .frontend = peer->address, .frontend_port = peer->port };
	const struct peer to = { .address = backend->address, .port = backend->port };
	struct datagram_key key = {};
	struct datagram *known;

	datagram_key(ctx, &to, &key);
	known = bpf_map_lookup_elem(&datagrams_v1, &key);
	if (known && known->frontend_port == value.frontend_port && address_equal(&known->frontend, &value.frontend))
		return;
	bpf_map_update_elem(&datagrams_v1, &key, &value, BPF_ANY);
	/* By this it is known as one that has asked for a Service. */
	if (!known && ctx->sk)
		bpf_sk_storage_get(&connected_v1, ctx->sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
}

/* From now on the socket calls this peer by its own name. Most sockets never called one by another, which is soon seen. */
INLINE void forget(struct bpf_sock_addr *ctx, const struct peer *peer, int connects)
{
	struct translation *t = ctx->sk ? bpf_sk_storage_get(&connected_v1, ctx->sk, 0, 0) : 0;
	struct datagram_key key = {};

	if (!t)
		return;
	if (FAULTY(65, 0, connects))
		t->backend_port = 0; /* nobody's */
	if (ctx->protocol != IPPROTO_UDP)
		return;
	datagram_key(ctx, peer, &key);
	if (FAULTY(64, 0, bpf_map_lookup_elem(&datagrams_v1, &key) != 0))
		bpf_map_delete_elem(&datagrams_v1, &key);
}

/* Of a connected socket: what it asked for when it was connected. */
INLINE int recall_connected(const struct peer *peer, struct peer *name, struct bpf_sock *sk)
{
	const struct translation *t = bpf_sk_storage_get(&connected_v1, sk, 0, 0);

	if (!t || t->backend_port != peer->port || !address_equal(&t->backend, &peer->address))
		return 0;
	name->address = t->frontend;
	name->port = t->frontend_port;
	return 1;
}

/* The name that the socket used, where `peer` is the backend it got; 0 where it used none. */
INLINE int recall(struct bpf_sock_addr *ctx, const struct peer *peer, struct peer *name)
{
	struct datagram_key key = {};
	const struct datagram *d;

	/* What a datagram socket was connected to once counts no longer. */
	if (ctx->sk && (ctx->protocol != IPPROTO_UDP || FAULTY(66, 1, ctx->sk->state == BPF_TCP_ESTABLISHED)))
		return recall_connected(peer, name, ctx->sk);
	if (ctx->protocol != IPPROTO_UDP)
		return 0;
	datagram_key(ctx, peer, &key);
	d = bpf_map_lookup_elem(&datagrams_v1, &key);
	if (!d)
		return 0;
	name->address = d->frontend;
	name->port = d->frontend_port;
	return 1;
}

SEC("cgroup/connect4")
int connect4(struct bpf_sock_addr *ctx)
{
	const struct backend *backend;
	struct peer peer = {};

	peer4(ctx, &peer);
	switch (choose(ctx, &peer, &backend)) {
	case LB_CHOSEN:
		remember_connected(ctx, &peer, backend);
		set_peer4(ctx, &backend->address, backend->port);
		return PROCEED;
	case LB_REFUSED:
		return refuse();
	default:
		forget(ctx, &peer, 1);
		return PROCEED;
	}
}

SEC("cgroup/connect6")
int connect6(struct bpf_sock_addr *ctx)
{
	const struct backend *backend;
	struct peer peer = {};

	peer6(ctx, &peer);
	switch (choose(ctx, &peer, &backend)) {
	case LB_CHOSEN:
		remember_connected(ctx, &peer, backend);
		set_peer6(ctx, &backend->address, backend->port);
		return PROCEED;
	case LB_REFUSED:
		return refuse();
	default:
		forget(ctx, &peer, 1);
		return PROCEED;
	}
}

/* An IPv6 socket connected to an IPv4 address names its peer with every datagram: it has asked for it once, and has it. */
INLINE int is_own_peer(const struct bpf_sock_addr *ctx)
{
	const struct bpf_sock *sk = ctx->sk;

	return sk && sk->family == AF_INET6 && sk->state == BPF_TCP_ESTABLISHED && sk->dst_ip6[3] == ctx->user_ip4 &&
	       sk->dst_ip6[2] == V4_MAPPED && sk->dst_port == (__be16)ctx->user_port;
}

SEC("cgroup/sendmsg4")
int sendmsg4(struct bpf_sock_addr *ctx)
{
	const struct backend *backend;
	struct peer peer = {};

	if (FAULTY(67, 0, is_own_peer(ctx)))
		return PROCEED;
	peer4(ctx, &peer);
	switch (choose(ctx, &peer, &backend)) {
	case LB_CHOSEN:
		remember_datagram(ctx, &peer, backend);
		set_peer4(ctx, &backend->address, backend->port);
		return PROCEED;
	case LB_REFUSED:
		return refuse();
	default:
		forget(ctx, &peer, 0);
		return PROCEED;
	}
}

SEC("cgroup/sendmsg6")
int sendmsg6(struct bpf_sock_addr *ctx)
{
	const struct backend *backend;
	struct peer peer = {};

	peer6(ctx, &peer);
	switch (choose(ctx, &peer, &backend)) {
	case LB_CHOSEN:
		remember_datagram(ctx, &peer, backend);
		set_peer6(ctx, &backend->address, backend->port);
		return PROCEED;
	case LB_REFUSED:
		return refuse();
	default:
		forget(ctx, &peer, 0);
		return PROCEED;
	}
}

SEC("cgroup/recvmsg4")
int recvmsg4(struct bpf_sock_addr *ctx)
{
	struct peer peer = {}, name;

	peer4(ctx, &peer);
	if (recall(ctx, &peer, &name))
		set_peer4(ctx, &name.address, name.port);
	return PROCEED;
}

SEC("cgroup/recvmsg6")
int recvmsg6(struct bpf_sock_addr *ctx)
{
	struct peer peer = {}, name;

	peer6(ctx, &peer);
	if (recall(ctx, &peer, &name))
		set_peer6(ctx, &name.address, name.port);
	return PROCEED;
}

SEC("cgroup/getpeername4")
int getpeername4(struct bpf_sock_addr *ctx)
{
	struct peer peer = {}, name;

	peer4(ctx, &peer);
	if (recall(ctx, &peer, &name))
		set_peer4(ctx, &name.address, name.port);
	return PROCEED;
}

SEC("cgroup/getpeername6")
int getpeername6(struct bpf_sock_addr *ctx)
{
	struct peer peer = {}, name;

	peer6(ctx, &peer);
	if (recall(ctx, &peer, &name))
		set_peer6(ctx, &name.address, name.port);
	return PROCEED;
}

INLINE int is_node_port(const struct bpf_sock *ctx, __be32 family)
{
	struct frontend_key key = { .port = bpf_htons(ctx->src_port) };

	key.protocol = ctx->protocol;
	key.address.word[2] = family;
	return bpf_map_lookup_elem(&frontends_v2, &key) != 0;
}

/* A process of the node that listened on a node port would never hear of a packet, and nobody would know why. */
INLINE int check_bind(const struct bpf_sock *ctx, int hears4, int hears6)
{
	if (!is_node(bpf_get_netns_cookie((void *)ctx)))
		return PROCEED;
	if (!(hears4 && is_node_port(ctx, V4_MAPPED)) && !(hears6 && is_node_port(ctx, 0)))
		return PROCEED;
	bpf_set_retval(-EADDRINUSE);
	return REJECT;
}

SEC("cgroup/post_bind4")
int post_bind4(struct bpf_sock *ctx)
{
	return check_bind(ctx, 1, 0);
}

/*
 * At all addresses it hears both families. One that wants IPv6 alone (IPV6_V6ONLY) looks the same from here, and is refused the
 * node port of the other family too.
 */
SEC("cgroup/post_bind6")
int post_bind6(struct bpf_sock *ctx)
{
	const __u32 word[] = { ctx->src_ip6[0], ctx->src_ip6[1], ctx->src_ip6[2], ctx->src_ip6[3] };
	int begins0 = !word[0] && !word[1], mapped = begins0 && word[2] == V4_MAPPED;

	return check_bind(ctx, mapped || FAULTY(68, 0, begins0 && !word[2] && !word[3]), !mapped);
}
