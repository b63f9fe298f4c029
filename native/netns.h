/* A network namespace entered within one call. Nothing of it leaves the library. */
#ifndef WEFT_NETNS_H
#define WEFT_NETNS_H

/* Goes in; *home is the way back, or -1 where there is nowhere to go (netns -1). After an error the caller is where it was. */
int netns_go_in(int netns, int *home);
/* Ends the process where the way back fails: it would do the rest of its work in the wrong namespace. */
void netns_come_back(int home);

#endif
