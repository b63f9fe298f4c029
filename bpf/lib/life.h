/* Seconds without a packet after which a connection is over, for flows and for translations alike. */
#ifndef WEFT_LIB_LIFE_H
#define WEFT_LIB_LIFE_H

#define SECONDS_UNANSWERED 60
#define SECONDS_TCP 8000 /* RFC 5382: at least two hours and four minutes; half-closed is alive */
#define SECONDS_CLOSING 10
#define SECONDS_UDP 180 /* RFC 4787: at least two minutes; and whatever else has no connections */
#define SECONDS_ICMP 60 /* RFC 5508 */

#endif
