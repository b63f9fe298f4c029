/* What differs between nodes. Set before load; the verifier then sees constants and drops what cannot be reached. */
#ifndef WEFT_CONFIG_H
#define WEFT_CONFIG_H

#include "abi/address.h"

/* Addresses of Services. Packets to them that no socket hook translated must not leave by the default route. */
const volatile struct network cfg_service_network4 = {};
const volatile struct network cfg_service_network6 = {};

/* The MAC address of every pod's gateway: the host end of its veth pair. Locally administered, the same on all nodes. */
const volatile struct mac cfg_gateway_mac = {};

/* The uplink's own MAC address: who answers for the pods of this node there. */
const volatile struct mac cfg_uplink_mac = {};

/* The uplink where it is one end of a veth pair whose other end is another namespace's; 0: a device like any other. */
const volatile __u32 cfg_cable_ifindex = 0;

/* Addresses of pods, of the whole cluster: one of these that nobody has told us of is an unknown pod, not the world. */
const volatile struct network cfg_pod_network4 = {};
const volatile struct network cfg_pod_network6 = {};

/* This node's own address on its uplink: what pods are known by outside, and whom a backend elsewhere answers. */
const volatile struct address cfg_node_address4 = {};
const volatile struct address cfg_node_address6 = {};

/* The network namespace of the node itself: what its sockets have and its pods' have not. */
const volatile __u64 cfg_node_cookie = 0;

/* ns between two of the kernel's ticks, and the number of the first one since the start; 0: not known. */
const volatile __u32 cfg_tick_ns = 0;
const volatile __u32 cfg_first_tick = 0;

/* How many established flows one pod may hold; 0: as many as there is room for. */
const volatile __u32 cfg_flow_share = 0;

/* How many connections that are translated one pod may have begun; 0: as many as there is room for. */
const volatile __u32 cfg_pair_share = 0;

/* How many unanswered flows wait among the established ones; more are a flood, and have a map of their own. */
const volatile __u32 cfg_unanswered_max = 16384;

/* 0: connections and drops are told to nobody. For the bench, which shows what telling costs. */
const volatile __u32 cfg_records = 1;

/* 1: packets to pods of other nodes are wrapped in VXLAN and sent by this device. */
const volatile __u32 cfg_tunnel = 0;
const volatile __u32 cfg_tunnel_ifindex = 0;

/*
 * The same programs, asked instead of used. MODEL: the clock is skb->tstamp (ns), and what was decided is told in skb->cb:
 * [0] verdict << 16 | reason, [1] rule, [2] identity of the source, [3] of the destination, [4] backend or random choice.
 * What comes by the tunnel has its key in skb->cb: [0] the number, [1] the other node's address; what goes into it has it in
 * skb->tstamp in the end, the address above the number.
 * XDP has neither: its clock is the eight bytes of metadata, and what was decided is seen by what comes out.
 * WHY: as MODEL, by the kernel's clock, and no map is written and nothing sent; [4] is the set that refused, or the egress
 * rule where [1] is the ingress one.
 */
#define PROBE_MODEL 1
#define PROBE_WHY 2
const volatile __u32 cfg_probe = 0;

#endif
