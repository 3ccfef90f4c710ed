package nft

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// watchBuffer is the size of the receive buffer of Watch in bytes: room for the messages of a large ruleset.
const watchBuffer = 1 << 20

// Watch calls changed once when it has subscribed, and then each time the nftables ruleset of the namespace has changed,
// by whomever, iptables-nft among them (iptables-legacy tells nobody). Several changes may come as one call. When
// messages were lost, changed is called too: it must look for itself what there is. Watch returns nil when ctx ends.
func (h *Handle) Watch(ctx context.Context, changed func()) error {
	h.mu.Lock()
	s, err := (*socket)(nil), errClosed
	if !h.closed {
		s, err = h.dial(unix.NFNLGRP_NFTABLES)
	}
	h.mu.Unlock()
	if err != nil {
		return fmt.Errorf("watch nftables: %w", err)
	}
	defer s.close()
	if err := s.raw.Control(func(fd uintptr) {
		// Beyond the system's limit, which root may; less room only means more calls.
		_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, watchBuffer)
	}); err != nil {
		return fmt.Errorf("watch nftables: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = s.file.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	changed()
	for {
		b, err := s.receive()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS):
			// The subscription stands; what is in the buffer is old. The kernel says it once a loss.
			changed()
		case err != nil:
			return fmt.Errorf("watch nftables: %w", err)
		case endsTransaction(b):
			changed()
		}
	}
}

// endsTransaction says that a datagram has the message that ends the messages of a transaction.
func endsTransaction(b []byte) bool {
	for h := range messages(b) {
		if h.Type == unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWGEN {
			return true
		}
	}
	return false
}
