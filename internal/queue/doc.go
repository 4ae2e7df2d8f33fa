// Package queue gives verdicts on the packets of NFQUEUE queues: it binds a
// queue, reads packets many at a time, has a Decider decide on each, and answers
// many with one message.
//
// The queue's socket is opened and owned by github.com/florianl/go-nfqueue,
// whose constants are used too. Its loop is not: it allocates a message and some
// twenty attributes a packet and sends a message a verdict, which takes ten
// times the processor that the loop here takes, and its verdicts have no room
// for a queue's number or for NF_STOP.
//
// Hot loop, per batch of up to 64 packets: one receive (nl.Receiver), each
// message read in place into one reused Packet, one Decide a packet, one send of
// all answers (see answers). Nothing is allocated.
package queue
