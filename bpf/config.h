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

#endif
